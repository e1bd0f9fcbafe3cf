"""Trackers: the real MLflow and Weights & Biases, off line, and trackers that fail, hang or are slow."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.run.directory import RunDirectory, create
from common.run.run import Run
from learner_node.reporting import trackers
from learner_node.reporting.evaluation_log import log_evaluation
from learner_node.reporting.line_numbers import finite_numbers
from learner_node.reporting.metrics_log import MetricsLog
from learner_node.reporting.trackers import BackgroundTracker, open_tracker
from learner_node.update.update_stats import Losses
from tests.common.examples import MIXED, make_run

LINE = {"time": 1_700_000_000.5, "updates": 20, "critic_loss": [0.5, 0.25], "return_mean": -30.5, "waiting": ["a"]}


@pytest.fixture
def made(tmp_path: Path) -> tuple[Run, RunDirectory]:
    directory, run = create(tmp_path / "run", make_run().spec, MIXED)
    return run, directory


class Notes:
    """A tracker that notes, and fails or waits where it is told to."""

    def __init__(self, *, fails: bool = False, gate: threading.Event | None = None) -> None:
        self.lines: list[tuple[int, Mapping[str, float]]] = []
        self.closed = False
        self._fails, self._gate = fails, gate

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._gate:
            self._gate.wait(30)
        if self._fails:
            raise RuntimeError("no such project")
        self.lines.append((step, values))

    def close(self) -> None:
        self.closed = True


def test_a_line_is_its_finite_numbers_by_name_and_agent(made: tuple[Run, RunDirectory]) -> None:
    run, _ = made
    first, second, *_ = (agent.name for agent in run.joint.agents)
    agents = len(run.joint.agents)
    line = {**LINE, "policy_lag": float("nan"), "actors": 2, "ok": True, "none": None, "odd": [1.0] * (agents + 5)}
    line["critic_loss"] = [0.5, 0.25, *[math.nan] * (agents - 2)]
    assert finite_numbers(line, run) == {
        "time": 1_700_000_000.5,
        "updates": 20.0,
        f"critic_loss/{first}": 0.5,
        f"critic_loss/{second}": 0.25,
        "return_mean": -30.5,
        "actors": 2.0,
        **{f"odd/{i}": 1.0 for i in range(agents + 5)},
    }


def test_the_logbook_gives_a_tracker_the_numbers_it_writes(made: tuple[Run, RunDirectory]) -> None:
    run, directory = made
    first, second, *_ = (agent.name for agent in run.joint.agents)
    others = [1.0] * (len(run.joint.agents) - 2)
    notes = Notes()
    logbook = MetricsLog(directory, run, notes)
    rest = [[3.0, 4.0, *others] for _ in range(3)]
    logbook.write(20, {"env_steps": 640}, Losses([0.5, math.nan, *others], [1.0, 2.0, *others], *rest), None)
    logbook.close()
    ((step, values),) = notes.lines
    (written,) = map(json.loads, directory.metrics_file.read_text().splitlines())
    assert step == 640, "environment steps are the x axis"
    assert values == finite_numbers(written, run)
    assert (values["env_steps"], values[f"critic_loss/{first}"], values[f"policy_loss/{second}"]) == (640.0, 0.5, 2.0)
    assert f"critic_loss/{second}" not in values
    assert notes.closed


def test_lines_come_in_order_and_all_before_the_end() -> None:
    notes = Notes()
    tracker = BackgroundTracker("notes", lambda: notes)
    for updates in range(20):
        tracker.log(updates, {"x": 1.0})
    tracker.close()
    assert [updates for updates, _ in notes.lines] == list(range(20))
    assert notes.closed


def test_a_failure_is_told_once_and_ends_tracking_only(caplog: pytest.LogCaptureFixture) -> None:
    tracker = BackgroundTracker("notes", lambda: Notes(fails=True))
    with caplog.at_level(logging.WARNING):
        for updates in range(200):
            tracker.log(updates, {"x": 1.0})
        tracker.close()
        tracker.log(201, {"x": 1.0})
    assert [record.message for record in caplog.records if "no such project" in record.message]
    assert sum("notes failed" in record.message for record in caplog.records) == 1


def test_one_that_cannot_be_opened_is_no_more_than_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def open_() -> Notes:
        raise SystemExit("not logged in")

    with caplog.at_level(logging.WARNING):
        BackgroundTracker("notes", open_).close()
    assert "not logged in" in caplog.text


def test_a_slow_one_holds_nobody_up_and_loses_only_lines(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    notes = Notes(gate=gate)
    tracker = BackgroundTracker("notes", lambda: notes)
    with caplog.at_level(logging.WARNING):
        for updates in range(3 * trackers.QUEUE_LINES):
            tracker.log(updates, {"x": 1.0})
    assert sum("is slow" in record.message for record in caplog.records) == 1
    gate.set()
    tracker.close()
    seen = [updates for updates, _ in notes.lines]
    assert seen == sorted(seen)
    assert trackers.QUEUE_LINES <= len(seen) <= trackers.QUEUE_LINES + 1


def test_one_that_hangs_does_not_keep_the_run_from_ending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trackers, "CLOSE_TIMEOUT_S", 0.05)
    gate = threading.Event()
    tracker = BackgroundTracker("notes", lambda: Notes(gate=gate))
    tracker.log(1, {"x": 1.0})
    with caplog.at_level(logging.WARNING):
        tracker.close()
    gate.set()
    assert "did not receive all lines" in caplog.text


def test_one_that_broke_with_lines_left_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "CLOSE_TIMEOUT_S", 60.0)
    gate = threading.Event()
    tracker = BackgroundTracker("notes", lambda: Notes(fails=True, gate=gate))
    for updates in range(3 * trackers.QUEUE_LINES):
        tracker.log(updates, {"x": 1.0})
    gate.set()
    started_at = time.monotonic()
    tracker.close()
    assert time.monotonic() - started_at < 30.0


def test_one_that_is_not_installed_is_refused_at_once(
    made: tuple[Run, RunDirectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"--track wandb: .* pip install 'shoal\[track\]'"):
        open_tracker("wandb", *made)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_mlflow_keeps_a_run_in_its_directory_and_goes_on_with_it(
    made: tuple[Run, RunDirectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    # A loaded machine takes longer to open it than a run waits at its end.
    monkeypatch.setattr(trackers, "CLOSE_TIMEOUT_S", 300.0)
    run, directory = made
    for updates in (20, 40):
        tracker = open_tracker("mlflow", run, directory)
        assert tracker
        tracker.log(updates, {"critic_loss/agent_1": 0.25, "return_mean": -30.5, "time": LINE["time"]})
        tracker.close()
    log_evaluation(directory, "mlflow", 40, {"evaluation/return": -3.5, "evaluation/return_per_agent/a b:c": -3.5})
    client = mlflow.MlflowClient(tracking_uri=(directory.path / "mlruns").as_uri())
    (tracked,) = client.search_runs([client.get_experiment_by_name("shoal").experiment_id])
    assert tracked.data.tags["shoal.run"] == run.id
    assert tracked.data.params["replay.batch"] == str(run.spec.replay.batch)
    assert [
        (metric.step, metric.value) for metric in client.get_metric_history(tracked.info.run_id, "critic_loss/agent_1")
    ] == [
        (20, 0.25),
        (40, 0.25),
    ]
    assert client.get_metric_history(tracked.info.run_id, "return_mean")[0].timestamp == 1_700_000_000_500
    (final,) = client.get_metric_history(tracked.info.run_id, "evaluation/return")
    assert (final.step, final.value) == (40, -3.5)
    assert tracked.data.metrics["evaluation/return_per_agent/a_b_c"] == -3.5
    assert tracked.info.status == "FINISHED"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_wandb_keeps_a_run_off_line(made: tuple[Run, RunDirectory]) -> None:
    """In a process of its own, as a learner is one: Weights & Biases starts a service."""
    pytest.importorskip("wandb")
    _, directory = made
    code = (
        "from pathlib import Path\n"
        "from common.run.directory import RunDirectory\n"
        "from learner_node.reporting import trackers\n"
        # A loaded machine takes longer to start its service than a run waits at its end.
        "trackers.CLOSE_TIMEOUT_S = 300.0\n"
        f"directory = RunDirectory(Path({str(directory.path)!r}))\n"
        "tracker = trackers.open_tracker('wandb', directory.run, directory)\n"
        "tracker.log(20, {'critic_loss/agent_0': 0.5, 'time': 1.7e9})\n"
        "tracker.close()\n"
        "from learner_node.reporting.evaluation_log import log_evaluation\n"
        "log_evaluation(directory, 'wandb', 20, {'evaluation/return': -3.5})\n"
    )
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=350, check=False)
    assert done.returncode == 0, done.stderr
    assert "fails" not in done.stderr
    written = list(directory.path.glob("wandb/offline-run-*/run-*.wandb"))
    assert all(directory.run.id in file.name for file in written)
    content = b"".join(file.read_bytes() for file in written)
    assert b"critic_loss/agent_0" in content
    assert b"evaluation/return" in content
