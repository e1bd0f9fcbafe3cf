"""shoal/commands/train/final_task.py: what hangs or crashes in the child costs the parent a limited time only."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from actor_node.evaluation.evaluate import Estimate, Evaluation
from common.errors import WorldError
from common.run.directory import create
from common.run.run import make_run_spec
from common.worlds import world_spec
from learner_node.reporting.metrics_log import MetricsLog
from learner_node.update.update_stats import Losses
from shoal.commands.train.final_task import FinalTask, evaluation_values, run_in_child, run_task
from tests.learner_node.event_files import scalars
from tests.shoal.commands.test_diagnose import make_directory, small_run

pytestmark = pytest.mark.slow

ENVIRONMENT = """
import os, subprocess, time
from pathlib import Path
from tests.shoal.commands.sized_numbers import Env

HERE = Path(__file__).parent


class Misbehaving(Env):
    def __init__(self):
        super().__init__(1.0, 1.0, 20)
        self._way = (HERE / "way").read_text()
        (HERE / f"left-{os.getpid()}").write_text(str(subprocess.Popen(["sleep", "600"]).pid))

    def step(self, actions):
        if self._way == "exit":
            os._exit(3)
        return super().step(actions)

    def close(self):
        if self._way == "hang":
            (HERE / "closing").touch()
            time.sleep(600)


def parallel_env():
    return Misbehaving()
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], FinalTask]:
    """Makes a run of the environment above that misbehaves in a way, and returns the task to diagnose it."""
    (tmp_path / "final_task_env.py").write_text(ENVIRONMENT)
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(way: str) -> FinalTask:
        (tmp_path / "way").write_text("well")
        directory = make_directory(tmp_path / "run", small_run("pettingzoo:final_task_env"))[0]
        (tmp_path / "way").write_text(way)
        for left in tmp_path.glob("left-*"):  # of the copy that read the spaces, here
            psutil.Process(int(left.read_text())).kill()
            left.unlink()
        return FinalTask("diagnosis", str(directory.path), 10)

    return make


def left_behind(directory: Path) -> list[int]:
    """Returns the programs that copies started and that still run."""
    pids = [int(path.read_text()) for path in directory.glob("left-*")]
    assert pids
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def test_a_diagnosis_leaves_no_program_behind(
    run: Callable[[str], FinalTask], tmp_path: Path, eventually: Callable[..., object]
) -> None:
    task = run("well")
    found = run_in_child(task, lambda: False)
    assert found.updates > 0
    stored = json.loads((Path(task.run) / "diagnosis.json").read_text())
    assert (stored["updates"], len(stored["warnings"])) == (found.updates, len(found.warnings)), "for the report"
    eventually(lambda: not left_behind(tmp_path), "the programs end")


def test_a_stop_ends_a_copy_that_does_not_close(
    run: Callable[[str], FinalTask], tmp_path: Path, eventually: Callable[..., object]
) -> None:
    task = run("hang")
    with pytest.raises(WorldError, match="stopped"):
        run_in_child(task, (tmp_path / "closing").exists)
    eventually(lambda: not left_behind(tmp_path), "the programs end")


def test_the_limit_ends_it(run: Callable[[str], FinalTask]) -> None:
    with pytest.raises(WorldError, match="did not finish within 1 s"):
        run_in_child(run("hang"), lambda: False, timeout_s=1.0)


def test_a_process_that_ends_is_an_error(run: Callable[[str], FinalTask]) -> None:
    with pytest.raises(WorldError, match="ended without a result"):
        run_in_child(run("exit"), lambda: False)


def test_a_fault_comes_back_in_words(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="does not contain a run"):
        run_in_child(FinalTask("diagnosis", str(tmp_path), 10), lambda: False)


def test_the_figures_of_an_evaluation_reach_tensorboard(tmp_path: Path) -> None:
    directory, _ = create(tmp_path / "run", make_run_spec({"scenario": "simple_spread"}), world_spec("simple_spread"))
    metrics = {"collisions": Estimate(0.5, (0.4, 0.6)), "touches": Estimate(math.nan, (math.nan, math.nan))}
    found = Evaluation(
        scenario="simple_spread",
        world="simple_spread",
        episodes=10,
        seed=5,
        updates=300,
        weights_hash="0a",
        return_mean=-3.5,
        return_ci95=(-4.0, -3.0),
        return_std=1.0,
        return_per_agent={"agent_0": -1.5, "agent_1": -2.0},
        published_scales={},
        metrics=metrics,
    )
    run_task(FinalTask("evaluation", str(directory.path), step=9_600, values=evaluation_values(found)))
    assert scalars(directory.tensorboard) == {
        (".", "evaluation/updates"): [(9_600, 300.0)],
        (".", "evaluation/return"): [(9_600, -3.5)],
        (".", "evaluation/return_low"): [(9_600, -4.0)],
        (".", "evaluation/return_high"): [(9_600, -3.0)],
        (".", "evaluation/return_per_agent/agent_0"): [(9_600, -1.5)],
        (".", "evaluation/return_per_agent/agent_1"): [(9_600, -2.0)],
        (".", "evaluation/metrics/collisions"): [(9_600, 0.5)],
    }


def test_a_run_that_ends_in_the_second_it_began_in_keeps_its_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    directory, run = create(tmp_path / "run", make_run_spec({"scenario": "simple_spread"}), world_spec("simple_spread"))
    log = MetricsLog(directory, run)
    log.write(300, {"env_steps": 9_600, "return_means": (-7.5,) * 3}, Losses(*[[0.5] * 3] * 5), None)
    log.close()
    run_task(FinalTask("evaluation", str(directory.path), step=9_600, values={"evaluation/return": -3.5}))
    curves = scalars(directory.tensorboard)
    assert curves[".", "return_means/agent_0"] == [(9_600, -7.5)]
    assert curves[".", "evaluation/return"] == [(9_600, -3.5)]
