"""The metrics log of a run: lines of metrics.jsonl and evaluations.jsonl, also for TensorBoard and a tracker.

metrics.jsonl, one object a line: `time` (Unix seconds), `trained_s`, `updating_s`, `env_steps`, `updates`,
`updates_per_s`, `progress`, `exploration_scale`; over agents `critic_loss`, `policy_loss`, `q_mean`,
`critic_gradient_norm`, `policy_gradient_norm`, with stochastic policies `entropy` and `temperature`, and the sizes of
inputs, `obs_mean`, `obs_spread`, `obs_size`, `reward_mean`, `reward_spread`, `reward_size`; `episode_steps`,
`reward_change`; from the replay server's status
`return_mean` (last episodes, exploration included), `return_means` over agents, `env_steps_per_s`,
`samples_per_insert`, `policy_lag`, `replay_size`, `actors`, `actors_waited_s` (sum over actors), `waiting` (which
process waits for which at this moment, as text). `updating_s` includes the waits for batches in `ReplayClient.next`.
TensorBoard, over updates: `agent{i}/losses`, `agent{i}/mean_episode_rewards`, `run/...`. A tracker receives the
numbers of the line under their own names. A line of evaluations.jsonl is a `ScheduledEvaluation`.
docs/tracking.md describes every field.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from io import FileIO
from typing import Any

import msgspec
from tensorboardX import SummaryWriter

from common.files import writing
from common.run.directory import RunDirectory
from common.run.evaluations import ScheduledEvaluation
from common.wire.messages import Status
from learner_node.reporting.trackers import BackgroundTracker, finite_numbers
from learner_node.update.update_stats import Losses

MAX_EVENTS = 10_000
"""Largest number of events that wait for TensorBoard's writer threads. A full disk ends those threads: a queue smaller
than the events of one `write` would then block that `write` forever."""


class MetricsLog:
    """Appends to a run's metrics.jsonl and TensorBoard files."""

    def __init__(self, directory: RunDirectory, tracker: BackgroundTracker | None = None) -> None:
        self._tracker, self._path = tracker, directory.path
        with writing(directory.path):
            # Unbuffered, so that a line that does not fit on the disk is not written again when the file is closed.
            self._lines = directory.metrics_file.open("ab", buffering=0)
            self._evaluations = directory.evaluations_file.open("ab", buffering=0)
            self._tensorboard = SummaryWriter(str(directory.tensorboard), max_queue=MAX_EVENTS)

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
            self._write_events(updates, line)
        if self._tracker:
            self._tracker.log(updates, finite_numbers(line))

    def write_evaluation(self, found: ScheduledEvaluation, updates: int) -> None:
        """Writes the line of an evaluation; updates: number of updates now. ShoalError if the disk is full."""
        values = {**found.values, "evaluation/env_steps": float(found.env_steps)}
        with writing(self._path):
            _append(self._evaluations, msgspec.json.encode(found) + b"\n")
            self._check_writers()
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, found.updates)
        if self._tracker:
            # A tracker may refuse a step before its newest one, so the evaluation's own step is a value.
            self._tracker.log(updates, {**values, "evaluation/updates": float(found.updates), "time": found.time})

    def close(self) -> None:
        """Writes buffered events and closes the files; ShoalError if the disk is full."""
        self._lines.close()
        self._evaluations.close()
        if self._tracker:
            self._tracker.close()
        queues = [writer.event_writer._event_queue for writer in (self._tensorboard.all_writers or {}).values()]
        try:
            with writing(self._path):
                self._tensorboard.close()
        finally:
            # Without this, events that an ended writer thread left in its queue would keep this process alive.
            for queue in queues:
                queue.cancel_join_thread()

    def _write_events(self, updates: int, line: Mapping[str, Any]) -> None:
        self._check_writers()
        tensorboard = self._tensorboard
        for i, (critic, policy) in enumerate(zip(line["critic_loss"], line["policy_loss"], strict=True)):
            tensorboard.add_scalars(f"agent{i}/losses", {"critic loss": critic, "actor_loss": policy}, updates)
        for i, value in enumerate(line.get("return_means", ())):
            if math.isfinite(value):
                tensorboard.add_scalar(f"agent{i}/mean_episode_rewards", value, updates)
        for name, value in line.items():
            if isinstance(value, int | float) and math.isfinite(value) and name not in ("time", "updates"):
                tensorboard.add_scalar(f"run/{name}", value, updates)

    def _check_writers(self) -> None:
        """Raises OSError for a writer thread that has ended, as it does without an error when the disk is full."""
        for writer in (self._tensorboard.all_writers or {}).values():
            if not writer.event_writer._worker.is_alive():
                raise OSError(errno.ENOSPC, "TensorBoard's writer has ended", writer.get_logdir())


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
