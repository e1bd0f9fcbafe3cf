"""Evaluations of a run in training, through real processes: what a user sees, and a killed evaluator."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from common.run.directory import RunDirectory
from common.run.evaluations import read_evaluations
from common.wire.messages import EvaluationReport
from tests.conftest import PATIENCE_S, wait_until

from .conftest import Commands, family, log_of, one, status_at

pytestmark = pytest.mark.system

SMALL = ("--actors", 1, "--copies", 8, "--redis", "none", "--no-film", "--set", "replay.min_size=256")
OFTEN = ("--set", "evaluation.share_of_time=1", "--set", "evaluation.times=8", "--set", "evaluation.episodes=10")


def test_a_run_is_evaluated_while_it_trains_and_survives_kill_9_of_the_evaluator(
    commands: Commands, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    budget = ("--steps", 16_000, "--episodes", 50, "--json")
    train = commands.start("shoal", "train", "simple_spread", *SMALL, *OFTEN, *budget, "--run", run)
    endpoint = f"ipc://{run.resolve() / 'sockets' / 'replay'}"

    def newest() -> EvaluationReport | None:
        assert train.poll() is None, log_of(train)
        status = status_at(endpoint)
        return status.learner.evaluation if status and status.learner else None

    first = wait_until(newest, "the first evaluation in the status")
    assert first.episodes == 10
    assert first.best_return >= first.return_mean
    evaluator = one(train, "evaluator_process")
    environ = evaluator.environ()
    assert environ["OPENBLAS_NUM_THREADS"] == "1"
    assert not any("torch" in each.path for each in evaluator.memory_maps())
    evaluator.kill()
    assert train.wait(PATIENCE_S) == 0, log_of(train)
    assert family(train) == []

    found = read_evaluations(RunDirectory(run).evaluations_file)
    assert found[0].updates == 0
    assert found[-1].env_steps >= 16_000
    assert 3 <= len(found) <= 9
    log = log_of(train)
    result = json.loads(next(line for line in log.splitlines() if line.startswith("{")))
    assert [each["updates"] for each in result["evaluations"]] == [each.updates for each in found]
    assert [each["name"] for each in result["scale"][0]["references"]] == ["random", "untrained", "scripted"]
    assert result["next_steps"]
    assert "next: " in log
    assert "Return in evaluations" in (run / "report.html").read_text()


def test_ctrl_c_does_not_wait_for_an_evaluation_and_leaves_no_process(commands: Commands, tmp_path: Path) -> None:
    slow = "pettingzoo:tests.actor_node.slow_env:SlowEnv"
    world = ("--set", "world.step_s=0.2", "--set", "evaluation.share_of_time=1", "--set", "evaluation.episodes=1000")
    run = tmp_path / "run"
    train = commands.start("shoal", "train", slow, *SMALL, *world, "--time", "5m", "--run", run)
    one(train, "evaluator_process")
    train.send_signal(signal.SIGINT)
    assert train.wait(PATIENCE_S) == 130, log_of(train)
    assert "Traceback" not in log_of(train)
    wait_until(lambda: not family(train), "the end of all processes")
