"""Tests of a run's curves in TensorBoard: their names, their x axis, and their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.run.directory import RunDirectory, create
from common.run.evaluations import ScheduledEvaluation, read_evaluations
from common.run.run import Run, make_run_spec
from common.worlds import world_spec
from learner_node.reporting.metrics_log import MetricsLog
from learner_node.reporting.tensorboard import write_figures
from learner_node.update.update_stats import Losses
from tests.learner_node.event_files import scalars

AGENTS = ("adversary_0", "adversary_1", "adversary_2", "agent_0")


def tag(path: Path, **settings: Any) -> tuple[RunDirectory, Run]:
    spec = make_run_spec({"scenario": "simple_tag"}, settings)
    return create(path / "run", spec, world_spec("simple_tag"))


def write(directory: RunDirectory, run: Run, players: int = 4) -> None:
    log = MetricsLog(directory, run)
    by_player = [float(i) for i in range(players)]
    values = {"env_steps": 6_400, "progress": 0.5, "return_means": (1.0, 2.0, 3.0, float("nan"))}
    log.write(300, values, Losses(by_player, by_player, by_player, by_player, by_player), None)
    log.close()


def test_curves_are_named_as_the_world_names_its_agents_over_environment_steps(tmp_path: Path) -> None:
    directory, run = tag(tmp_path)
    write(directory, run)
    curves = scalars(directory.tensorboard)
    for i, agent in enumerate(AGENTS):
        assert curves[".", f"critic_loss/{agent}"] == [(6_400, float(i))]
    assert curves[".", "return_means/adversary_2"] == [(6_400, 3.0)]
    assert (".", "return_means/agent_0") not in curves, "it is not known yet"
    assert curves[".", "run/progress"] == [(6_400, 0.5)]
    assert not {name for _, name in curves if " " in name}


def test_a_side_that_learns_as_one_player_has_one_curve(tmp_path: Path) -> None:
    directory, run = tag(tmp_path, algorithm={"name": "adversary=joint,agent=maddpg"})
    write(directory, run, players=2)
    names = {name for _, name in scalars(directory.tensorboard) if name.startswith("critic_loss")}
    assert names == {f"critic_loss/{player.name}" for player in run.players.agents}
    assert len(names) == 2


def test_a_run_has_one_directory_and_one_file(tmp_path: Path) -> None:
    directory, run = tag(tmp_path)
    write(directory, run)
    assert [path.is_file() for path in directory.tensorboard.iterdir()] == [True]
    write_figures(directory, 6_400, {"evaluation/return": -3.5})
    assert [path.is_file() for path in directory.tensorboard.iterdir()] == [True, True]
    assert scalars(directory.tensorboard)[".", "evaluation/return"] == [(6_400, -3.5)]


@pytest.mark.parametrize("agent", range(4))
def test_numbered_curves_are_the_seed_documents_over_updates(tmp_path: Path, agent: int) -> None:
    directory, run = tag(tmp_path, logging={"tensorboard": "numbered"})
    write(directory, run)
    curves = scalars(directory.tensorboard)
    assert curves[f"agent{agent}/losses/critic loss", f"agent{agent}/losses"] == [(300, float(agent))]
    assert curves[f"agent{agent}/losses/actor_loss", f"agent{agent}/losses"] == [(300, float(agent))]
    if agent < 3:
        assert curves[".", f"agent{agent}/mean_episode_rewards"] == [(300, agent + 1.0)]
    assert curves[".", "run/progress"] == [(300, 0.5)]
    assert not {name for _, name in curves if name.startswith("critic_loss")}


class Tracker:
    """Notes what it receives."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def log(self, step: int, values: dict[str, float]) -> None:
        self.lines.append((step, values))

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("curves", "at", "now"), [("named", 2_500, 4_000), ("numbered", 100, 160)])
def test_an_evaluation_is_a_line_and_stands_where_its_weights_were_taken(
    tmp_path: Path, curves: str, at: int, now: int
) -> None:
    directory, run = tag(tmp_path, logging={"tensorboard": curves})
    tracker = Tracker()
    log = MetricsLog(directory, run, tracker)  # type: ignore[arg-type]
    found = ScheduledEvaluation(9.0, 2_500, 100, 3.0, 20, 2_000_000, -3.5, (-4.0, -3.0), {"agent_0": -3.5})
    log.write_evaluation(found, updates=160, env_steps=4_000)
    log.close()
    assert read_evaluations(directory.evaluations_file) == [found]
    drawn = scalars(directory.tensorboard)
    assert drawn[".", "evaluation/return"] == [(at, -3.5)]
    assert drawn[".", "evaluation/return_per_agent/agent_0"] == [(at, -3.5)]
    ((step, values),) = tracker.lines
    assert step == now, "a tracker accepts no step before its newest one"
    assert (values["evaluation/env_steps"], values["evaluation/updates"], values["time"]) == (2_500.0, 100.0, 9.0)
