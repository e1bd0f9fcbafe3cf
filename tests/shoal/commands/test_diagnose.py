"""Tests of `shoal diagnose` on run directories made for the test."""

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

from actor_node.evaluation.rollouts.episodes import Trajectories
from common.policy.file import PolicyFile, save_policy
from common.process import command
from common.run.directory import RunDirectory, create
from common.run.run import Run, make_run_spec
from common.worlds import world_spec
from deploy.local.config import TrainConfig
from deploy.local.live_display import make_display
from learner_node.persistence.checkpoints import Checkpoints
from learner_node.persistence.state import Counters, copy_state
from learner_node.stacked.update import StackedUpdate
from shoal.cli import shoal
from shoal.commands.diagnose.cli import episodes_after_training, print_warnings_after_training
from shoal.commands.diagnose.diagnosis import MAX_EPISODE_STEPS, diagnose, horizon, with_complete_returns
from shoal.commands.train.artifacts import Artifacts
from tests.actor_node.talkers import run_of, talkers

from .report_runs import line, write_lines

pytestmark = pytest.mark.slow


def make_directory(path: Path, run: Run, flat: np.ndarray | None = None) -> tuple[RunDirectory, Run]:
    """Makes the directory of a run with the given policies, or with an untrained checkpoint."""
    directory, made = create(path, run.spec, run.joint)
    if flat is not None:
        save_policy(directory.policy_file, PolicyFile(made, 1, 10, flat))
    else:
        algorithm = StackedUpdate(made, torch.zeros(()))
        Checkpoints(directory.checkpoints, 3).save(copy_state(algorithm, Counters(updates=10)), best=False)
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
def test_every_kind_of_team_is_diagnosed(tmp_path: Path, scenario: str, world: Any, settings: Any) -> None:
    directory, run = make_directory(tmp_path / "run", small_run(scenario, world, **settings))
    found = diagnose(directory, 10)
    assert set(found.skipped) == {"course"}
    assert found.updates == 10
    players = [player.name for player in run.players.agents]
    assert [own.player for own in found.values] == players
    assert [own.network for own in found.networks][: len(players)] == players
    assert len(found.networks) >= 2 * len(players)
    speakers = {"simple_world_comm": 1, "simple_reference": 2, "mpe2:simple_speaker_listener": 1}.get(scenario, 0)
    assert len(found.communication) == speakers * len(run.joint.sides)
    printed = json.loads(msgspec.json.encode(found))
    assert all(math.isfinite(bound) for own in printed["values"] for bound in (own["bias"], *own["bias_ci95"]))


def test_without_a_checkpoint_the_values_are_skipped(tmp_path: Path) -> None:
    run = run_of()
    directory, _ = make_directory(tmp_path / "run", run, talkers(run, listens=False))
    found = diagnose(directory, 100)
    assert found.skipped["values"] == "there is no checkpoint with critics"
    assert [own.network for own in found.networks] == ["speaker_0", "listener_0"]
    assert {warning.about for warning in found.warnings if warning.topic == "communication"} == {"speaker_0"}


def test_communication_and_values_of_a_foreign_world_are_skipped(tmp_path: Path) -> None:
    run = small_run("pettingzoo:mpe2.simple_speaker_listener_v4")
    found = diagnose(make_directory(tmp_path / "run", run)[0], 10)
    assert set(found.skipped) == {"communication", "values", "course"}
    assert not found.communication
    assert not found.values
    assert len(found.networks) >= 4


SIZED = "pettingzoo:tests.shoal.commands.sized_numbers"


def test_values_of_a_foreign_world_are_compared_if_its_episodes_are_long_enough(tmp_path: Path) -> None:
    run = small_run(SIZED, {"steps": 300}, algorithm={"discount": 0.9})
    found = diagnose(make_directory(tmp_path / "long", run)[0], 10)
    assert set(found.skipped) == {"communication", "course"}
    assert [own.player for own in found.values] == ["cart_0", "cart_1"]
    for own in found.values:
        # The discount covers ten steps; the carts of an untrained policy soon stop.
        assert own.realised == pytest.approx(10.0 * own.reward_watched, rel=0.3)
        assert -10.0 <= own.realised < 0.0

    short = small_run(SIZED, {"steps": 30}, algorithm={"discount": 0.9})
    found = diagnose(make_directory(tmp_path / "short", short)[0], 10)
    assert found.skipped["values"].startswith("only 0 states were followed by the 44 steps of the same episode")
    assert not found.values


def test_returns_are_complete_if_enough_steps_follow_or_the_episode_terminated() -> None:
    steps, tail, ends = 30, 10, [30, 20, 20]
    acted = (np.arange(steps)[:, None] < ends).astype(np.float32)[..., None]
    discount = np.ones((steps, 3, 1), np.float32)
    discount[19, 1] = 0.0  # the second terminated, the third was truncated
    obs = np.zeros((25, 3, 1), np.float32)
    whole = with_complete_returns(Trajectories(obs, obs, acted, discount, acted), tail).present[:25, :, 0]
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
def test_sizes_far_from_1_cause_warnings(tmp_path: Path, observed: float, rewarded: float, about: set[str]) -> None:
    run = small_run(SIZED, {"observed": observed, "rewarded": rewarded})
    found = diagnose(make_directory(tmp_path / "run", run)[0], 10)
    assert {warning.about for warning in found.warnings if warning.topic == "inputs"} == about
    assert found.agents == ["cart_0", "cart_1"]


def test_the_horizon_follows_from_the_discount() -> None:
    assert horizon(25, 0.95) == 25 + 90
    assert 0.95**90 <= 0.01 < 0.95**89
    assert horizon(25, 0.0) == 26
    assert horizon(25, 1.0) is horizon(25, 0.9999) is None
    assert (horizon(25, 0.999) or 0) < MAX_EPISODE_STEPS


def test_a_discount_of_one_is_not_compared(tmp_path: Path) -> None:
    run = small_run("simple", algorithm={"discount": 1.0})
    found = diagnose(make_directory(tmp_path / "run", run)[0], 10)
    assert "algorithm.discount = 1" in found.skipped["values"]
    assert found.networks


def test_the_same_seed_gives_the_same_figures(tmp_path: Path) -> None:
    directory, _ = make_directory(tmp_path / "run", small_run("simple_reference"))
    first, second = (diagnose(directory, 12, seed) for seed in (5, 5))
    assert (first.communication, first.values, first.networks) == (
        second.communication,
        second.values,
        second.networks,
    )


def test_the_command_shows_tables_and_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of()
    directory, _ = make_directory(tmp_path / "run", run, talkers(run, listens=False))
    write_lines(directory, [line(i, 2, policy_lag=50.0) for i in range(20)])
    assert command.run(shoal, "shoal", ["diagnose", str(directory.path), "--episodes", "50"]) == 0
    shown = capsys.readouterr().out
    for word in (
        "speaker_0",
        "warning: messages of speaker_0 are ignored",
        "  usual cause: ",
        "  try: ",
        "policy lag",
        "values: skipped",
    ):
        assert word in shown
    assert command.run(shoal, "shoal", ["diagnose", str(directory.path), "--episodes", "50", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["warnings"][0]["topic"] == "communication"
    assert printed["warnings"][0]["try"]
    assert printed["course"]["policy_lag"] == 50.0
    assert printed["communication"][0]["shuffled_cost"] == 0.0
    assert command.run(shoal, "shoal", ["diagnose", str(tmp_path)]) == 2
    assert "does not contain a run" in capsys.readouterr().err


def test_after_training_only_warnings_are_printed(tmp_path: Path) -> None:
    run = run_of()
    outputs = []
    for listens in (True, False):
        directory, _ = make_directory(tmp_path / f"{listens}", run, talkers(run, listens=listens))
        screen = Console(file=io.StringIO(), width=200)
        print_warnings_after_training(directory, screen)
        outputs.append(screen.file.getvalue())
    assert "ignored" not in outputs[0]
    assert "warning: messages of speaker_0 are ignored" in outputs[1]
    assert "details: shoal diagnose" in outputs[1]
    assert "Value of messages" not in outputs[1]


def test_a_failed_diagnosis_costs_one_line(tmp_path: Path) -> None:
    directory, _ = create(tmp_path / "run", run_of().spec, run_of().joint)
    screen = Console(file=io.StringIO(), width=200)
    artifacts = Artifacts(TrainConfig(), screen)
    artifacts.start(directory, make_display(screen, "a run"))
    artifacts.warn(lambda: False)
    assert "skipped a diagnosis: " in screen.file.getvalue()
    assert "policy.safetensors does not exist" in screen.file.getvalue()


@pytest.mark.parametrize(("agents", "episodes"), [(1, 100), (3, 100), (10, 100), (20, 25), (40, 10), (200, 10)])
def test_the_diagnosis_after_training_many_agents_uses_fewer_episodes(agents: int, episodes: int) -> None:
    assert episodes_after_training(agents) == episodes
