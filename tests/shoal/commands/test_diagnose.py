"""`shoal diagnose` over run directories made by hand."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from rich.console import Console

from actor_node.evaluation.episodes import Trajectories
from common.policy.file import PolicyFile, save_policy
from common.process import command
from common.run.directory import RunDirectory, create
from common.run.run import Run, make_run_spec
from common.worlds import world_spec
from deploy.local.config import TrainConfig
from deploy.local.live_display import make_display
from learner_node.checkpoints import Checkpoints
from learner_node.stacked.update import StackedUpdate
from learner_node.state import Counters, capture
from shoal.cli import shoal
from shoal.commands.diagnose import LONGEST, diagnose, horizon, with_whole_returns
from shoal.commands.diagnose.cli import episodes_after_training, print_warnings_after_training
from shoal.commands.train.artifacts import Artifacts
from tests.actor_node.talkers import run_of, talkers

from .report_runs import line, write_lines

pytestmark = pytest.mark.slow


def kept(path: Path, run: Run, flat: np.ndarray | None = None) -> tuple[RunDirectory, Run]:
    """Makes the directory of a run, with policies only where they are given, else with an untrained checkpoint."""
    directory, made = create(path, run.spec, run.joint)
    if flat is not None:
        save_policy(directory.policy_file, PolicyFile(made, 1, 10, flat))
    else:
        algorithm = StackedUpdate(made.joint, made.spec.network, made.spec.algorithm, 0, torch.zeros(()))
        Checkpoints(directory.checkpoints, 3).save(capture(algorithm, Counters(updates=10)), best=False)
    return directory, made


def small_run(scenario: str, world: dict[str, Any] | None = None, **settings: Any) -> Run:
    network = {"policy_hidden": [8, 8], "critic_hidden": [8, 8]}
    spec = make_run_spec({"scenario": scenario, "world": world or {}, "network": network}, settings)
    return Run("r", spec, world_spec(scenario, **(world or {})))


@pytest.mark.parametrize(
    ("scenario", "world", "settings"),
    [
        ("simple_world_comm", {}, {}),
        ("simple_reference", {"continuous_actions": False}, {}),
        ("simple_tag", {"max_cycles": 10}, {"algorithm": {"name": "adversary=joint,agent=iddpg"}}),
        ("simple_spread", {"terminate_on_success": True}, {"network": {"head": "force"}}),
        ("simple_line", {}, {}),
        ("mpe2:simple_speaker_listener", {}, {"network": {"head": "soft"}}),
    ],
    ids=str,
)
def test_every_kind_of_team_is_looked_at(tmp_path: Path, scenario: str, world: Any, settings: Any) -> None:
    directory, run = kept(tmp_path / "run", small_run(scenario, world, **settings))
    found = diagnose(directory, 10)
    assert set(found.skipped) == {"course"}
    assert found.updates == 10
    players = [player.name for player in run.players.agents]
    assert [own.player for own in found.values] == players
    assert [own.network for own in found.networks][: len(players)] == players
    assert len(found.networks) >= 2 * len(players)
    speakers = {"simple_world_comm": 1, "simple_reference": 2, "mpe2:simple_speaker_listener": 1}.get(scenario, 0)
    assert len(found.communication) == speakers * len(run.joint.teams)
    told = json.loads(msgspec.json.encode(found))
    assert all(math.isfinite(bound) for own in told["values"] for bound in (own["bias"], *own["bias_ci95"]))


def test_without_a_checkpoint_there_are_no_critics_and_it_says_so(tmp_path: Path) -> None:
    run = run_of()
    directory, _ = kept(tmp_path / "run", run, talkers(run, listens=False))
    found = diagnose(directory, 100)
    assert found.skipped["values"] == "there is no checkpoint with critics"
    assert [own.network for own in found.networks] == ["speaker_0", "listener_0"]
    assert {warned.about for warned in found.warnings if warned.topic == "communication"} == {"speaker_0"}


def test_in_a_world_from_elsewhere_it_says_what_it_cannot_know(tmp_path: Path) -> None:
    run = small_run("pettingzoo:mpe2.simple_speaker_listener_v4")
    found = diagnose(kept(tmp_path / "run", run)[0], 10)
    assert set(found.skipped) == {"communication", "values", "course"}
    assert not found.communication
    assert not found.values
    assert len(found.networks) >= 4


SIZED = "pettingzoo:tests.shoal.commands.sized_numbers"


def test_values_of_a_world_from_elsewhere_are_compared_where_its_episodes_are_long_enough(tmp_path: Path) -> None:
    run = small_run(SIZED, {"steps": 300}, algorithm={"discount": 0.9})
    found = diagnose(kept(tmp_path / "long", run)[0], 10)
    assert set(found.skipped) == {"communication", "course"}
    assert [own.player for own in found.values] == ["cart_0", "cart_1"]
    for own in found.values:
        # The discount sees ten steps; carts of an untrained policy soon stand still.
        assert own.realised == pytest.approx(10.0 * own.reward_watched, rel=0.3)
        assert -10.0 <= own.realised < 0.0

    short = small_run(SIZED, {"steps": 30}, algorithm={"discount": 0.9})
    found = diagnose(kept(tmp_path / "short", short)[0], 10)
    assert found.skipped["values"].startswith("only 0 states had the 44 steps after them in the same episode")
    assert not found.values


def test_returns_are_whole_where_enough_follows_or_the_episode_ended_truly() -> None:
    steps, tail, ends = 30, 10, [30, 20, 20]
    acted = (np.arange(steps)[:, None] < ends).astype(np.float32)[..., None]
    discount = np.ones((steps, 3, 1), np.float32)
    discount[19, 1] = 0.0  # the second ended truly, the third by a time limit
    obs = np.zeros((25, 3, 1), np.float32)
    whole = with_whole_returns(Trajectories(obs, obs, acted, discount, acted), tail).present[:25, :, 0]
    assert whole.sum(axis=0).tolist() == [20.0, 20.0, 10.0]
    assert whole[:10, 2].all()


@pytest.mark.parametrize(
    ("observed", "rewarded", "about"),
    [
        (1.0, 1.0, set()),
        (1e4, 1.0, {"observations"}),
        (1.0, 1e5, {"rewards"}),
        (1e-4, 1e-4, {"observations", "rewards"}),
    ],
)
def test_sizes_far_from_1_are_warned_of(tmp_path: Path, observed: float, rewarded: float, about: set[str]) -> None:
    run = small_run(SIZED, {"observed": observed, "rewarded": rewarded})
    found = diagnose(kept(tmp_path / "run", run)[0], 10)
    assert {warned.about for warned in found.warnings if warned.topic == "inputs"} == about
    assert found.agents == ["cart_0", "cart_1"]


def test_how_long_is_played_on() -> None:
    assert horizon(25, 0.95) == 25 + 90
    assert 0.95**90 <= 0.01 < 0.95**89
    assert horizon(25, 0.0) == 26
    assert horizon(25, 1.0) is horizon(25, 0.9999) is None
    assert (horizon(25, 0.999) or 0) < LONGEST


def test_a_discount_of_one_is_not_compared(tmp_path: Path) -> None:
    run = small_run("simple", algorithm={"discount": 1.0})
    found = diagnose(kept(tmp_path / "run", run)[0], 10)
    assert "algorithm.discount = 1" in found.skipped["values"]
    assert found.networks


def test_the_same_seed_finds_the_same(tmp_path: Path) -> None:
    directory, _ = kept(tmp_path / "run", small_run("simple_reference"))
    first, second = (diagnose(directory, 12, seed) for seed in (5, 5))
    assert (first.communication, first.values, first.networks) == (
        second.communication,
        second.values,
        second.networks,
    )


def test_the_command_shows_tables_and_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of()
    directory, _ = kept(tmp_path / "run", run, talkers(run, listens=False))
    write_lines(directory, [line(i, 2, policy_lag=50.0) for i in range(20)])
    assert command.run(shoal, "shoal", ["diagnose", str(directory.path), "--episodes", "50"]) == 0
    shown = capsys.readouterr().out
    for word in (
        "speaker_0",
        "warning: speaker_0 is ignored",
        "  usually: ",
        "  try: ",
        "policy lag",
        "values: not looked",
    ):
        assert word in shown
    assert command.run(shoal, "shoal", ["diagnose", str(directory.path), "--episodes", "50", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["warnings"][0]["topic"] == "communication"
    assert told["warnings"][0]["try"]
    assert told["course"]["policy_lag"] == 50.0
    assert told["communication"][0]["shuffled_cost"] == 0.0
    assert command.run(shoal, "shoal", ["diagnose", str(tmp_path)]) == 2
    assert "does not contain a run" in capsys.readouterr().err


def test_the_short_form_says_only_what_it_warns_of(tmp_path: Path) -> None:
    run = run_of()
    said = []
    for listens in (True, False):
        directory, _ = kept(tmp_path / f"{listens}", run, talkers(run, listens=listens))
        screen = Console(file=io.StringIO(), width=200)
        print_warnings_after_training(directory, screen)
        said.append(screen.file.getvalue())
    assert "ignored" not in said[0]
    assert "warning: speaker_0 is ignored" in said[1]
    assert "more: shoal diagnose" in said[1]
    assert "what messages are worth" not in said[1]


def test_a_diagnosis_that_fails_costs_a_line_only(tmp_path: Path) -> None:
    directory, _ = create(tmp_path / "run", run_of().spec, run_of().joint)
    screen = Console(file=io.StringIO(), width=200)
    showing = Artifacts(TrainConfig(), screen)
    showing.begin(directory, make_display(screen, "a run"))
    showing.warn()
    assert "without a diagnosis: " in screen.file.getvalue()
    assert "policy.safetensors does not exist" in screen.file.getvalue()


@pytest.mark.parametrize(("agents", "episodes"), [(1, 100), (3, 100), (10, 100), (20, 25), (40, 10), (200, 10)])
def test_the_diagnosis_after_a_training_of_many_agents_looks_at_fewer_episodes(agents: int, episodes: int) -> None:
    assert episodes_after_training(agents) == episodes
