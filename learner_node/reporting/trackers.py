"""Experiment trackers (Weights & Biases, MLflow): a thread sends them the lines of metrics.jsonl.

    MetricsLog.write --line--> a short queue --> the thread: opens the tracker, logs each line, closes it

A tracker may be slow, unreachable or broken. Learning never waits for it and never ends with it: the first failure is
logged and ends the tracking. Lines that do not fit into the queue are dropped; metrics.jsonl has all of them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from common.errors import ConfigError
from common.files import file_name
from common.run.directory import RunDirectory
from common.run.run import Run
from learner_node.config import TrackerKind

PROJECT = "shoal"
"""The project in Weights & Biases and the experiment in MLflow that contain the runs."""
QUEUE_LINES = 64
CLOSE_TIMEOUT_S = 10.0
"""Longest wait at a run's end [s]: half of the time that a launcher or a cluster gives a process to end."""
POLL_PERIOD_S = 0.1

_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """A tracker of one run."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the numbers of a line at its position on the x axis."""

    def log_evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the figures of an evaluation at a position on the x axis, after all lines.

        values: as in a line, with `time`.
        """

    def close(self) -> None:
        """Closes the tracker after everything is sent."""


def refuse_missing(kind: TrackerKind) -> None:
    """Raises ConfigError if a tracker is not installed."""
    if kind != "none" and importlib.util.find_spec(kind) is None:
        raise ConfigError(f"--track {kind}: the package is not installed. Install it: pip install 'shoal[track]'")


def open_tracker(kind: TrackerKind, run: Run, directory: RunDirectory) -> BackgroundTracker | None:
    """Returns the tracker of a run, None for `none`; ConfigError if it is not installed."""
    refuse_missing(kind)
    return None if kind == "none" else BackgroundTracker(kind, lambda: make_tracker(kind, run, directory))


def make_tracker(kind: TrackerKind, run: Run, directory: RunDirectory) -> Tracker:
    """Opens the tracker of a run, which may take seconds and raise any exception of the tracker's package."""
    kinds: dict[str, Callable[[Run, RunDirectory], Tracker]] = {"mlflow": Mlflow, "wandb": WeightsAndBiases}
    return kinds[kind](run, directory)


class BackgroundTracker:
    """A tracker that a thread opens, feeds and closes. The thread ends when the tracker fails."""

    def __init__(self, name: str, open_: Callable[[], Tracker]) -> None:
        self._name, self._open = name, open_
        self._lines: queue.Queue[tuple[int, Mapping[str, float]] | None] = queue.Queue(QUEUE_LINES)
        self._dropped = False
        self._thread = threading.Thread(target=self._run_tracker, name=f"track-{name}", daemon=True)
        self._thread.start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Queues a line without waiting; drops it if the queue is full."""
        if not self._thread.is_alive():
            return
        try:
            self._lines.put_nowait((step, values))
        except queue.Full:
            if not self._dropped:
                _log.warning("%s is slow; some lines are not sent, metrics.jsonl has them", self._name)
            self._dropped = True

    def close(self) -> None:
        """Sends the queued lines and closes the tracker, within CLOSE_TIMEOUT_S."""
        give_up_at = time.monotonic() + CLOSE_TIMEOUT_S
        while self._thread.is_alive() and time.monotonic() < give_up_at:
            with contextlib.suppress(queue.Full):
                self._lines.put(None, timeout=POLL_PERIOD_S)
                self._thread.join(give_up_at - time.monotonic())
        if self._thread.is_alive():
            _log.warning(
                "%s did not receive all lines within %g s; metrics.jsonl has them", self._name, CLOSE_TIMEOUT_S
            )

    def _run_tracker(self) -> None:
        try:
            tracker = self._open()
            while (line := self._lines.get()) is not None:
                tracker.log(*line)
            tracker.close()
        except (Exception, SystemExit) as e:  # noqa: BLE001  (no failure of a tracker stops learning)
            _log.warning("%s failed; the run continues without it, and metrics.jsonl has all lines: %s", self._name, e)


class WeightsAndBiases:
    """A run of Weights & Biases, stored where its settings say (WANDB_MODE=offline: in the run's directory)."""

    def __init__(self, run: Run, directory: RunDirectory) -> None:
        """Opens the run; after a resume, the same run as before."""
        import wandb  # noqa: PLC0415  (an optional extra)

        self._run = wandb.init(
            project=PROJECT,
            id=run.id,
            name=directory.path.name,
            dir=str(directory.path),
            config=msgspec.to_builtins(run.spec),
            resume="allow",
            # Neither console output nor git state is sent.
            settings=wandb.Settings(console="off", disable_git=True, save_code=False, finish_timeout=CLOSE_TIMEOUT_S),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the numbers of a line; Weights & Biases ignores lines older than its newest."""
        self._run.log(dict(values), step=step)

    def log_evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Sets the figures in the run's summary: a resumed run accepts no line of the step of its newest one."""
        self._run.summary.update({**values, "evaluation/step": step})

    def close(self) -> None:
        """Sends the remaining lines and closes the run."""
        self._run.finish()


class Mlflow:
    """A run of MLflow, at the tracking server of its settings; without one, in files in the run's directory."""

    def __init__(self, run: Run, directory: RunDirectory) -> None:
        """Opens the run; after a resume, the same run as before."""
        import mlflow  # noqa: PLC0415  (an optional extra)
        from mlflow.entities import Param  # noqa: PLC0415

        uri = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else _file_store(directory)  # type: ignore[no-untyped-call]
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        existing = self._client.get_experiment_by_name(PROJECT)
        experiment = existing.experiment_id if existing else self._client.create_experiment(PROJECT)
        runs = self._client.search_runs([experiment], f"tags.`shoal.run` = '{run.id}'", max_results=1)
        if runs:
            self._id = runs[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        tags = {"shoal.run": run.id, "shoal.directory": str(directory.path.resolve())}
        self._id = self._client.create_run(experiment, tags=tags, run_name=directory.path.name).info.run_id
        params = [Param(_stored_name(name), str(value)) for name, value in _flatten(msgspec.to_builtins(run.spec))]
        self._client.log_batch(self._id, params=params)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the numbers of a line, with the time of the line."""
        from mlflow.entities import Metric  # noqa: PLC0415

        at_ms = int(values["time"] * 1_000)
        metrics = [Metric(_stored_name(name), value, at_ms, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics)

    def log_evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the figures as a line's numbers are logged."""
        self.log(step, values)

    def close(self) -> None:
        """Marks the run as finished."""
        self._client.set_terminated(self._id)


def _flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _flatten(item, f"{name}/{i}")
    else:
        yield name, value


def _stored_name(name: str) -> str:
    """Returns a parameter's or metric's name as a valid file name, because MLflow's store makes files of the names."""
    return "/".join(file_name(part) for part in name.split("/"))


def _file_store(directory: RunDirectory) -> str:
    """Returns the URI of a store in the run's directory."""
    # MLflow 3 allows stores in files only with this variable.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    return (directory.path.resolve() / "mlruns").as_uri()
