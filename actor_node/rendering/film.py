"""Films of trained teams: episodes in the world of a run, drawn by the environment's renderer.

    policies -> a world of one copy -> Camera: its picture after each reset and step
             -> captions.py: scenario, episode, step, return, messages below each picture
             -> encoders.py: GIF or MP4

Several runs are filmed side by side from the same seeds; a run whose episode ends early shows its last picture.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from PIL import Image

from actor_node.evaluation.rollouts.episodes import ignore_progress
from actor_node.evaluation.task import reference_world
from actor_node.rendering.captions import Messages, Panel, draw_panels
from actor_node.rendering.encoders import film_kind
from common.errors import ConfigError, ShoalError, WorldError
from common.policy.episodes import EpisodePolicy
from common.policy.file import load_policy
from common.policy.network import Policy
from common.run.directory import RunDirectory
from common.run.players import with_sides
from common.run.run import Run
from common.spec import difference
from common.worlds import World, is_batched, is_foreign, make_world
from common.worlds.history_world import without_history
from common.worlds.world import HasEnvironments, HasInnerWorld

FIRST_SEED = 1_000_000
"""Seed of the first episode, as in `shoal evaluate`: a film shows the first episodes of the evaluation."""
DEFAULT_FPS = 10
"""Frames a second of a world that does not define them."""
_PAUSE_S = 0.8
"""How long the last picture of an episode is shown [s]."""


class Film(msgspec.Struct, frozen=True):
    """The result of filming."""

    path: str
    runs: tuple[str, ...]
    episodes: int
    seed: int
    frames: int
    width: int
    height: int
    fps: int
    bytes: int
    seconds: float
    """Time spent on making the film [s]."""
    returns: tuple[tuple[float, ...], ...]
    """[runs, episodes]: rewards summed over agents and over the filmed steps."""


class Shot(NamedTuple):
    """One picture of an episode."""

    picture: Image.Image
    messages: Messages
    step: int
    returns: tuple[float, ...]
    """Each side's return so far."""


def render(
    directories: Sequence[RunDirectory],
    output: Path,
    *,
    episodes: int = 3,
    seed: int = FIRST_SEED,
    fps: int = 0,
    width: int = 480,
    steps: int = 500,
    progress: Callable[[int], object] = ignore_progress,
) -> Film:
    """Films `episodes` episodes of each run, episode e from `reset(seed=seed + e)`, and writes them to `output`.

    fps: frames a second; 0 takes the environment's. width: width of a run's picture [pixels]. steps: limit on the steps
    of an episode. progress: called with the number of finished episodes. Raises ConfigError if a run cannot be played
    or drawn.
    """
    started_at = time.perf_counter()
    kind = film_kind(output)
    with ExitStack() as stack:
        # Closing one mpe2 world ends pygame for all worlds of this process, so all are closed after the last picture.
        filmed_runs = [FilmedRun(directory, width) for directory in directories]
        for filmed_run in filmed_runs:
            stack.enter_context(closing(filmed_run))
        fps = fps or filmed_runs[0].fps
        film = kind(fps)
        shots: list[list[list[Shot]]] = []
        """[episode][run]: all shots of an episode; after its pictures are in the film, only the last shot."""
        for episode in range(episodes):
            shots.append([filmed_run.play(seed + episode, steps) for filmed_run in filmed_runs])
            film.add([*_frames(filmed_runs, shots[-1], f"{episode + 1}/{episodes}")], pause=round(_PAUSE_S * fps))
            _drop_pictures(shots[-1])
            progress(episode + 1)
        size_bytes = film.write(output)
    return Film(
        path=str(output),
        runs=tuple(str(directory.path) for directory in directories),
        episodes=episodes,
        seed=seed,
        frames=film.frames,
        width=film.size[0],
        height=film.size[1],
        fps=fps,
        bytes=size_bytes,
        seconds=round(time.perf_counter() - started_at, 2),
        returns=tuple(tuple(sum(each[run][-1].returns) for each in shots) for run in range(len(filmed_runs))),
    )


class Camera:
    """An environment that stores a picture after each reset and step, at most `width` pixels wide."""

    def __init__(self, env: Any, width: int) -> None:
        self._env, self._width = env, width
        self.taken: list[tuple[Image.Image, Messages]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, *seeds: Any, **options: Any) -> Any:
        """Resets the environment and stores its picture."""
        result = self._env.reset(*seeds, **options)
        self._take()
        return result

    def step(self, actions: Any) -> Any:
        """Steps the environment and stores its picture."""
        result = self._env.step(actions)
        self._take()
        return result

    def _take(self) -> None:
        picture = Image.fromarray(np.asarray(self._env.render(), np.uint8))
        if picture.width > self._width:
            height = round(picture.height * self._width / picture.width)
            picture = picture.resize((self._width, height), Image.Resampling.HAMMING)
        self.taken.append((picture, _messages(self._env)))


class FilmedRun:
    """One run's policies in the world in which the run is evaluated, with a camera."""

    def __init__(self, directory: RunDirectory, width: int) -> None:
        directory.run  # noqa: B018  (its error distinguishes a directory without a run from one without policies)
        stored = load_policy(directory.policy_file)
        self.run = stored.run
        self.name = directory.path.resolve().name
        self._team = EpisodePolicy(Policy(self.run.players, self.run.spec.network, stored.flat))
        self._sides = _membership(self.run)
        self._world, environments = _open_world(self.run)
        if with_sides(self._world.spec, self.run.spec.network.sides) != self.run.joint.without_state:
            raise ConfigError(
                f"{directory.path}: the installed {self._world.name} differs from the world of this run:"
                f" {difference(self.run.joint.without_state, self._world.spec)}. Install the version it was trained"
                " with."
            )
        cameras: list[Camera] = []

        def with_camera(env: Any) -> Camera:
            cameras.append(Camera(_renderable(self._world.name, env), width))
            return cameras[-1]

        wrap = environments.wrap_inner if isinstance(environments, HasInnerWorld) else environments.wrap
        wrap(with_camera)
        self._camera = cameras[0]
        metadata = getattr(self._camera, "metadata", {})
        self.fps = int(min(metadata.get("render_fps") or DEFAULT_FPS, 50))

    def play(self, seed: int, steps: int) -> list[Shot]:
        """Plays one episode, or its first `steps` steps, and returns its pictures: of the start and of each step.

        Raises WorldError if the environment or its renderer fails.
        """
        try:
            return self._play(seed, steps)
        except ShoalError as e:
            raise WorldError(f"{e}{_hint(e)}") from e
        except Exception as e:
            raise WorldError(f"{self._world.name} could not be filmed: {type(e).__name__}: {e}{_hint(e)}") from e

    def _play(self, seed: int, steps: int) -> list[Shot]:
        totals = np.zeros(len(self.run.joint.sides))
        self._camera.taken.clear()
        obs = self._world.reset([seed])
        self._team.start_episodes()
        shots = [Shot(*self._camera.taken[0], 0, tuple(totals))]
        while len(shots) <= steps:
            self._camera.taken.clear()
            step = self._world.step(self._team.act(obs))
            totals += self._sides @ step.reward[0]
            # If the episode is over, the world has been reset, and the reset's picture is the second. A vectorised
            # world resets inside its step, so that its last picture shows the next episode.
            restarted = step.episode_over[0] and is_batched(self._world.name)
            picture, messages = shots[-1][:2] if restarted else self._camera.taken[0]
            shots.append(Shot(picture, messages, len(shots), tuple(map(float, totals))))
            if step.episode_over[0]:
                break
            obs = step.obs
        return shots

    def close(self) -> None:
        """Closes the world."""
        self._world.close()


def _frames(
    filmed_runs: Sequence[FilmedRun], shots_by_run: Sequence[Sequence[Shot]], episode: str
) -> list[Image.Image]:
    """Returns the captioned frames of one episode."""
    filmed = list(zip(filmed_runs, shots_by_run, strict=True))
    return [
        draw_panels([_panel(filmed_run, shots, i, episode, len(filmed)) for filmed_run, shots in filmed])
        for i in range(max(len(shots) for shots in shots_by_run))
    ]


def _panel(filmed_run: FilmedRun, shots: Sequence[Shot], i: int, episode: str, runs: int) -> Panel:
    shot = shots[min(i, len(shots) - 1)]
    scenario, sides = filmed_run.run.spec.scenario.rpartition(".")[2], filmed_run.run.joint.sides
    return Panel(
        picture=shot.picture,
        title=scenario if runs == 1 else f"{filmed_run.name}: {scenario}",
        episode=f"episode {episode}",
        step=(shot.step, shots[-1].step),
        returns=dict(zip(sides if len(sides) > 1 else ("",), shot.returns, strict=True)),
        messages=shot.messages,
    )


def _drop_pictures(shots_by_run: list[list[Shot]]) -> None:
    """Deletes all shots but the last of each run, because the film already contains their pictures."""
    for shots in shots_by_run:
        del shots[:-1]


def _membership(run: Run) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Returns `[sides, agents]`: 1.0 where the agent belongs to the side."""
    return np.array([[float(agent.team == side) for agent in run.joint.agents] for side in run.joint.sides])


def _open_world(run: Run) -> tuple[World, HasEnvironments | HasInnerWorld]:
    """Makes the world in which the run is evaluated, without a screen; ConfigError if it has no renderer.

    Returns the world and its environments, which are the same unless agents remember (`world.history`).
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    if _has_no_display():
        os.environ.setdefault("MUJOCO_GL", "egl")
    name, options = reference_world(run.spec.scenario), dict(run.spec.world)
    if not is_foreign(name):
        options.pop("dynamics", None)
    elif not is_batched(name):
        options["render_mode"] = "rgb_array"
    try:
        world = make_world(name, 1, seed=0, options=options)
    except ConfigError as e:
        if "render_mode" not in options:
            raise
        raise ConfigError(f"{name} cannot be filmed: its constructor takes no render_mode='rgb_array' ({e})") from e
    environments = without_history(world)
    if not isinstance(environments, HasEnvironments | HasInnerWorld):
        raise TypeError(f"{name} has no environment to film")
    return world, environments


def _has_no_display() -> bool:
    return sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _hint(error: Exception) -> str:
    """Returns what the user can do if a renderer finds no display; empty for other errors."""
    text = str(error).lower()
    if not any(name in text for name in ("opengl", "egl", "glfw", "display", "osmesa")):
        return ""
    return "; without a display set MUJOCO_GL=egl (or osmesa), or skip the film with --no-film"


def _renderable(name: str, env: Any) -> Any:
    """Returns the environment, set up to render pictures; ConfigError if it cannot."""
    if is_batched(name):
        if not callable(getattr(env, "render", None)):
            raise ConfigError(
                f"{name} cannot be filmed: its world has no render(), which returns the picture of the first copy "
                "[height, width, 3]. Add it, or skip the film with --no-film."
            )
        return env
    modes = env.metadata.get("render_modes") or ()
    if "rgb_array" not in modes:
        raise ConfigError(
            f"{name} cannot be filmed: it renders {', '.join(modes) or 'nothing'}, not 'rgb_array'. Add that mode to"
            " the environment, or skip the film with --no-film."
        )
    env.unwrapped.render_mode = "rgb_array"
    if hasattr(env.unwrapped, "game_font"):
        # mpe2 writes messages over its picture, partly beyond its edge; the captions show them instead.
        env.unwrapped.game_font = _NoText()
    return env


class _NoText:
    """A font that writes nothing."""

    def render_to(self, *_: Any) -> None:
        """Writes nothing."""


def _messages(env: Any) -> Messages:
    """Returns the message of each speaking agent in an MPE world; empty in other worlds."""
    agents = getattr(getattr(getattr(env, "unwrapped", env), "world", None), "agents", ())
    speaking = [agent for agent in agents if not getattr(agent, "silent", True)]
    return {str(agent.name): tuple(map(float, agent.state.c)) for agent in speaking}
