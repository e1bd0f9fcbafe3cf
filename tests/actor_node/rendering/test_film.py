"""Films, against mpe2's own pictures and against what the files hold when they are read back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import av
import numpy as np
import pytest
from gymnasium import spaces
from mpe2 import simple_spread_v3
from pettingzoo import ParallelEnv
from PIL import Image

from actor_node.evaluation.evaluate import evaluate
from actor_node.rendering.captions import Panel, draw_panels, symbol
from actor_node.rendering.encoders import Gif
from actor_node.rendering.film import FIRST_SEED, FilmedRun, render
from common.errors import ConfigError
from common.policy.file import PolicyFile, save_policy
from common.policy.network import Policy
from common.run.directory import RunDirectory, create
from common.run.run import make_run_spec
from common.worlds import world_spec
from tests.common.examples import random_weights

Make = Callable[..., RunDirectory]


@pytest.fixture
def trained(tmp_path: Path) -> Make:
    """Makes the directory of a run with policies that nobody has trained."""

    def make(name: str = "run", scenario: str = "simple_spread", seed: int = 0, **world: Any) -> RunDirectory:
        spec = make_run_spec({"scenario": scenario, "world": world})
        directory, run = create(tmp_path / name, spec, world_spec(scenario, **world))
        weights = random_weights(run, seed) * np.float32(0.2)
        save_policy(directory.policy_file, PolicyFile(run, 3, 300, weights))
        return directory

    return make


def gif_frames(path: Path) -> tuple[list[Image.Image], list[int]]:
    """Returns the pictures of a GIF and for how many milliseconds each is shown."""
    frames, durations = [], []
    with Image.open(path) as film:
        for i in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(i)
            frames.append(film.convert("RGB"))
            durations.append(film.info["duration"])
    return frames, durations


# ---- what is filmed -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_pictures_are_mpe2s_own_from_the_start_to_the_true_end(trained: Make) -> None:
    """The world resets itself when an episode ends: the last picture must be of the end, not of the next start."""
    directory = trained(max_cycles=4)
    run = directory.run
    policy = Policy(run.players, run.spec.network, random_weights(run) * np.float32(0.2))
    env = simple_spread_v3.parallel_env(render_mode="rgb_array", continuous_actions=True, max_cycles=4)
    seen, _ = env.reset(seed=8)
    expected, total = [env.render()], 0.0
    while env.agents:
        row = policy.act(np.concatenate(list(seen.values()))[None])[0]
        seen, rewards, *_ = env.step({a.name: np.clip(row[a.action_slice], 0, 1) for a in run.joint.agents})
        expected.append(env.render())
        total += sum(rewards.values())

    filmed_run = FilmedRun(directory, width=2_000)
    shots = filmed_run.play(8, steps=500)

    assert [shot.step for shot in shots] == [0, 1, 2, 3, 4]
    for shot, picture in zip(shots, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(shot.picture), picture)
    assert shots[-1].returns == (pytest.approx(total, rel=1e-5),)


@pytest.mark.slow
def test_the_film_is_of_the_evaluations_first_episodes(trained: Make, tmp_path: Path) -> None:
    directory = trained(max_cycles=6)
    film = render([directory], tmp_path / "play.gif", episodes=2, width=120)
    result = evaluate(directory, 2, FIRST_SEED)
    assert np.mean(film.returns) == pytest.approx(result.return_mean, rel=1e-5)


def test_an_episode_is_cut_after_so_many_steps(trained: Make) -> None:
    assert len(FilmedRun(trained(), 120).play(1, steps=3)) == 4


@pytest.mark.parametrize("scenario", ["simple_speaker_listener", "simple_world_comm"])
def test_messages_are_the_actions_of_those_who_speak(trained: Make, scenario: str) -> None:
    directory = trained(scenario=scenario, continuous_actions=False)
    filmed_run = FilmedRun(directory, 120)
    shots = filmed_run.play(5, steps=3)
    assert len(shots[0].messages) == 1
    assert sum(next(iter(shots[0].messages.values()))) == 0.0, "nobody has spoken before the first step"
    for shot in shots[1:]:
        message = next(iter(shot.messages.values()))
        assert sorted(message) == [0.0] * (len(message) - 1) + [1.0]


def test_those_who_are_silent_have_no_line(trained: Make) -> None:
    assert FilmedRun(trained(), 120).play(5, steps=1)[-1].messages == {}


def test_returns_are_told_side_by_side_in_a_contest(trained: Make) -> None:
    shots = FilmedRun(trained(scenario="simple_adversary"), 120).play(5, steps=2)
    assert len(shots[-1].returns) == 2


# ---- files --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_gif_has_every_frame_for_its_time_and_loops(trained: Make, tmp_path: Path) -> None:
    film = render([trained(max_cycles=5)], tmp_path / "play.gif", episodes=2, width=200, fps=20)
    frames, durations = gif_frames(tmp_path / "play.gif")
    assert (film.frames, film.fps, film.episodes) == (12, 20, 2)
    assert film.bytes == (tmp_path / "play.gif").stat().st_size
    assert all(frame.size == (film.width, film.height) for frame in frames)
    # Each episode's end rests for 0.8 s; frames that are alike are stored once and shown longer.
    assert sum(durations) == 2 * (6 * 50 + 800)
    with Image.open(tmp_path / "play.gif") as written:
        assert written.info["loop"] == 0


@pytest.mark.slow
def test_an_mp4_plays_everywhere_and_has_every_frame(trained: Make, tmp_path: Path) -> None:
    film = render([trained(max_cycles=5)], tmp_path / "play.mp4", episodes=2, width=201, fps=10)
    with av.open(str(tmp_path / "play.mp4")) as container:
        stream = container.streams.video[0]
        decoded = list(container.decode(stream))
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 10
    assert len(decoded) == film.frames + 2 * 8
    assert (decoded[0].width, decoded[0].height) == (film.width, film.height)
    assert film.width % 2 == film.height % 2 == 0
    assert film.bytes == (tmp_path / "play.mp4").stat().st_size


@pytest.mark.slow
def test_two_runs_stand_side_by_side_and_the_shorter_waits(trained: Make, tmp_path: Path) -> None:
    one, other = trained("one", max_cycles=3), trained("other", seed=1, max_cycles=6)
    film = render([one, other], tmp_path / "both.gif", episodes=1, width=150)
    frames, _ = gif_frames(tmp_path / "both.gif")
    assert film.frames == 7
    assert film.width == 150 + 6 + 150
    assert len(film.returns) == 2
    left, right = ([np.asarray(frame)[:150, part] for frame in frames] for part in (slice(0, 150), slice(156, None)))
    assert np.array_equal(left[-1], left[-2]), "its episode was over"
    assert not np.array_equal(right[-1], right[-2])


def test_flat_colours_stay_as_they_were_painted() -> None:
    """Means of a palette next to white must not be taken for white."""
    frames = []
    for step in range(4):
        pixels = np.full((80, 80, 3), 255, np.uint8)
        pixels[:10] = np.linspace(240, 255, 80, dtype=np.uint8)[None, :, None]
        pixels[20 + step : 40 + step, 20:40] = (50, 60, 200)
        frames.append(Image.fromarray(pixels))
    film = Gif(10)
    film.add(frames, pause=0)
    shown = film._images[2].convert("RGB")
    assert shown.getpixel((70, 70)) == (255, 255, 255)
    assert shown.getpixel((30, 30)) == (50, 60, 200)


# ---- captions -----------------------------------------------------------------------------------------------------


def panel(**changes: Any) -> Panel:
    usual = Panel(
        picture=Image.new("RGB", (300, 200), (255, 255, 255)),
        title="simple_spread",
        episode="episode 1/3",
        step=(2, 25),
        returns={"": -3.5},
        messages={},
    )
    return usual._replace(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "simple_tag"},
        {"episode": "episode 2/3"},
        {"step": (3, 25)},
        {"returns": {"": -3.6}},
        {"returns": {"adversary": 1.0, "agent": -1.0}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_a_caption_says_is_seen_below_the_picture_only(changes: dict[str, Any]) -> None:
    before, after = (np.asarray(draw_panels([one])) for one in (panel(), panel(**changes)))
    np.testing.assert_array_equal(before[:200], after[:200])
    assert (before[200:] != after[200:]).any()


def test_messages_have_lines_of_their_own_and_cells_as_bright_as_they_are_loud() -> None:
    quiet, loud = (
        np.asarray(draw_panels([panel(messages={"agent_0": (0.0, value, 0.0)})])).astype(int) for value in (0.1, 0.9)
    )
    assert quiet.shape[0] > np.asarray(draw_panels([panel()])).shape[0]
    assert loud[200:].sum() > quiet[200:].sum()
    assert (symbol((0.1, 0.9, 0.2)), symbol((0.0, 0.0)), symbol(())) == ("B", "-", "-")


@pytest.mark.parametrize("width", [120, 301, 2_000])
def test_names_of_any_length_fit_any_width(width: int) -> None:
    name = "pettingzoo.butterfly.a_name_that_is_much_too_long_for_any_strip_" * 5
    wide_strip = panel(
        picture=Image.new("RGB", (width, 99)),
        title=name,
        returns={name: 123_456.7},
        messages={name + "é": (0.2,) * 40},
    )
    frame = draw_panels([wide_strip, wide_strip])
    assert frame.width == 2 * width + 6
    assert frame.height % 2 == 0


# ---- mistakes -----------------------------------------------------------------------------------------------------


class Unpictured(ParallelEnv):  # type: ignore[misc]
    """An environment that can be played, not seen."""

    metadata: ClassVar = {"name": "unpictured", "render_modes": ["human"]}
    possible_agents: ClassVar = ["one"]

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def observation_space(self, agent: str) -> spaces.Box:
        return spaces.Box(-1, 1, (2,))

    def action_space(self, agent: str) -> spaces.Box:
        return spaces.Box(-1, 1, (1,))


def test_a_world_that_has_no_pictures_is_refused(trained: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("unpictured_v0")
    module.parallel_env = Unpictured  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unpictured_v0", module)
    directory = trained(scenario="pettingzoo:unpictured_v0")
    with pytest.raises(ConfigError, match="cannot be filmed: it renders human, not 'rgb_array'"):
        FilmedRun(directory, 120)
    module.parallel_env = lambda: Unpictured("human")  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="takes no render_mode"):
        FilmedRun(directory, 120)


@pytest.mark.parametrize(
    ("name", "message"),
    [("play.avi", r"ends in \.gif or \.mp4"), ("play", r"\.gif or \.mp4"), ("nowhere/play.gif", "does not exist")],
)
def test_names_that_are_no_films_are_refused_before_anything_is_played(
    trained: Make, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        render([trained()], tmp_path / name)


def test_a_run_without_policies_is_refused(trained: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not contain a run"):
        render([RunDirectory(tmp_path / "nowhere")], tmp_path / "play.gif")
    directory = trained()
    directory.policy_file.unlink()
    with pytest.raises(ConfigError, match=r"does not exist\. The learner writes it"):
        render([directory], tmp_path / "play.gif")


@pytest.mark.slow
def test_actors_load_nothing_that_makes_films() -> None:
    script = (
        "import sys, actor_node.worker, actor_node.supervisor; print([m for m in ('PIL', 'av') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
