"""The metrics log of a run: lines of metrics.jsonl and evaluations.jsonl, also for TensorBoard and a tracker.

metrics.jsonl, one object a line: `time` (Unix seconds), `trained_s`, `updating_s`, `env_steps`, `updates`,
`updates_per_s`, `progress`, `exploration_scale`; over agents `critic_loss`, `policy_loss`, `q_mean`,
`critic_gradient_norm`, `policy_gradient_norm`, with stochastic policies `entropy` and `temperature`, and the sizes of
inputs, `obs_mean`, `obs_spread`, `obs_size`, `reward_mean`, `reward_spread`, `reward_size`; `episode_steps`,
`reward_change`; from the replay server's status
`return_mean` (last episodes, exploration included), `return_means` over agents, `env_steps_per_s`,
`samples_per_insert`, `policy_lag`, `replay_size`, `actors`, `actors_waited_s` (sum over actors), `waiting` (which
process waits for which at this moment, as text). `updating_s` includes the waits for batches in `ReplayClient.next`.
TensorBoard (tensorboard.py) and trackers receive the numbers of the line by name. A line of evaluations.jsonl is a
`ScheduledEvaluation`. docs/tracking.md describes every field.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec

from common.files import writing
from common.run.directory import RunDirectory
from common.run.evaluations import ScheduledEvaluation
from common.run.run import Run
from common.wire.messages import Status
from learner_node.reporting.line_numbers import finite_numbers, step_of
from learner_node.reporting.tensorboard import TensorBoardLog
from learner_node.reporting.trackers import BackgroundTracker
from learner_node.update.update_stats import Losses

_log = logging.getLogger(__name__)


class MetricsLog:
    """Appends to a run's metrics.jsonl and TensorBoard files."""

    def __init__(self, directory: RunDirectory, run: Run, tracker: BackgroundTracker | None = None) -> None:
        self._run, self._tracker, self._path = run, tracker, directory.path
        with writing(directory.path):
            # Unbuffered, so that a line that does not fit on the disk is not written again when the file is closed.
            self._lines = _open_at_line_end(directory.metrics_file)
            self._evaluations = _open_at_line_end(directory.evaluations_file)
            self._tensorboard = TensorBoardLog(directory, run)

    def write(self, updates: int, values: Mapping[str, Any], losses: Losses, status: Status | None) -> None:
        """Writes one line: the learner's values, its last losses, and the replay server's last status.

        ShoalError if the disk is full.
        """
        line: dict[str, Any] = {"time": round(time.time(), 3), "updates": updates, **values}
        line |= {name: by_player for name, by_player in asdict(losses).items() if by_player}
        if status is not None:
            line |= {
                "return_mean": status.return_mean,
                "return_means": status.return_means,
                "env_steps_per_s": status.inserts_per_s,
                "samples_per_insert": status.samples_per_insert,
                "policy_lag": status.policy_lag,
                "replay_size": status.size,
                "actors": status.actor_count,
                "actors_waited_s": sum(actor.waited_s for actor in status.actors),
                "waiting": list(status.waiting),
            }
        with writing(self._path):
            _append(self._lines, json.dumps({name: _finite(value) for name, value in line.items()}).encode() + b"\n")
            self._tensorboard.write(line)
        if self._tracker:
            self._tracker.log(step_of(self._run, line), finite_numbers(line, self._run))

    def write_evaluation(self, found: ScheduledEvaluation, *, updates: int, env_steps: int) -> None:
        """Writes the line of an evaluation; updates, env_steps: of the run now. ShoalError if the disk is full."""
        position = {"updates": found.updates, "env_steps": found.env_steps}
        values = found.values | {f"evaluation/{name}": float(value) for name, value in position.items()}
        with writing(self._path):
            _append(self._evaluations, msgspec.json.encode(found) + b"\n")
            self._tensorboard.write_values(step_of(self._run, position), values)
        if self._tracker:
            # A tracker may refuse a step before its newest one: the position of the evaluation is among the values.
            step = step_of(self._run, {"updates": updates, "env_steps": env_steps})
            self._tracker.log(step, {**values, "time": found.time})

    def close(self) -> None:
        """Writes buffered events and closes the files; ShoalError if the disk is full."""
        self._lines.close()
        self._evaluations.close()
        if self._tracker:
            self._tracker.close()
        with writing(self._path):
            self._tensorboard.close()


def _open_at_line_end(path: Path) -> FileIO:
    """Opens a file for appending lines, and removes an incomplete last line of a process that was killed."""
    file = FileIO(path, "a+")
    try:
        file.seek(0)
        content = file.readall()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            _log.warning("removed an incomplete last line file=%s bytes=%d", path, len(content) - complete)
            file.truncate(complete)
        file.seek(complete)
    except BaseException:
        file.close()
        raise
    return file


def _append(file: FileIO, line: bytes) -> None:
    end = file.tell()
    if file.write(line) < len(line):
        # A resumed run must not append to an incomplete line.
        file.truncate(end)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)


def _finite(value: Any) -> Any:
    """Returns a value for strict JSON, with None in place of numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
