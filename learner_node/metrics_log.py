"""What is kept of a run's course: lines of metrics.jsonl, and the same for TensorBoard.

metrics.jsonl, one object a line: `time` (Unix seconds), `trained_s`, `updating_s`, `env_steps`, `updates`,
`updates_per_s`, `progress`, `exploration_scale`; over agents `critic_loss`, `policy_loss`, `q_mean`,
`critic_gradient_norm`, `policy_gradient_norm`, and the sizes of inputs, `obs_mean`, `obs_spread`, `obs_size`,
`reward_mean`, `reward_spread`, `reward_size`; `episode_steps`, `reward_change`; and what the replay server knows:
`return_mean` (last episodes, exploration included), `return_means` over agents, `env_steps_per_s`,
`samples_per_insert`, `policy_lag`, `replay_size`, `actors`, `actors_waited_s` (of all of them so far), `waiting` (who
waits for whom at this moment, in words).
TensorBoard, over updates: `agent{i}/losses`, `agent{i}/mean_episode_rewards`, `run/...`. A tracker, if one is asked
for: the line's numbers under their own names. docs/tracking.md has all of it, field by field.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tensorboardX import SummaryWriter

from common.files import writing
from common.run.directory import RunDirectory
from common.wire.messages import Status
from learner_node.stacked.update_stats import Losses
from learner_node.trackers import Tracker, numbers_of

MOST_EVENTS = 10_000
"""That may wait for TensorBoard's writers, threads which a full disk ends: more than one `write` makes, or it would
wait for ever."""


class MetricsLog:
    """Appends to a run's metrics.jsonl and TensorBoard files."""

    def __init__(self, directory: RunDirectory, tracker: Tracker | None = None) -> None:
        self._tracker, self._path = tracker, directory.path
        with writing(directory.path):
            # Unbuffered: a line that does not fit is not kept to be tried again when the file is closed.
            self._lines = directory.metrics_file.open("ab", buffering=0)
            self._board = SummaryWriter(str(directory.tensorboard), max_queue=MOST_EVENTS)

    def write(self, updates: int, learner: Mapping[str, Any], figures: Losses, status: Status | None) -> None:
        """Writes the learner's figures, its last losses, and what the replay server last said of the run.

        ShoalError when there is no room for it.
        """
        line: dict[str, Any] = {"time": round(time.time(), 3), "updates": updates, **learner}
        line |= asdict(figures)
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
            self._append(json.dumps({name: _finite(value) for name, value in line.items()}).encode() + b"\n")
            self._show(updates, line)
        if self._tracker:
            self._tracker.log(updates, numbers_of(line))

    def close(self) -> None:
        """Writes out what is buffered and closes the files; ShoalError when there is no room for it."""
        self._lines.close()
        if self._tracker:
            self._tracker.close()
        queues = [writer.event_writer._event_queue for writer in (self._board.all_writers or {}).values()]
        try:
            with writing(self._path):
                self._board.close()
        finally:
            # What a writer that has ended did not take would keep this process from ending.
            for queue in queues:
                queue.cancel_join_thread()

    def _append(self, line: bytes) -> None:
        end = self._lines.tell()
        if self._lines.write(line) < len(line):
            # Or what is written after a resume would stand on the same line.
            self._lines.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._lines.name)

    def _show(self, updates: int, line: Mapping[str, Any]) -> None:
        board = self._board
        for writer in (board.all_writers or {}).values():
            # It tells nobody that it has ended.
            if not writer.event_writer._worker.is_alive():
                raise OSError(errno.ENOSPC, "TensorBoard's writer has ended", writer.get_logdir())
        for i, (critic, policy) in enumerate(zip(line["critic_loss"], line["policy_loss"], strict=True)):
            board.add_scalars(f"agent{i}/losses", {"critic loss": critic, "actor_loss": policy}, updates)
        for i, value in enumerate(line.get("return_means", ())):
            if math.isfinite(value):
                board.add_scalar(f"agent{i}/mean_episode_rewards", value, updates)
        for name, value in line.items():
            if isinstance(value, int | float) and math.isfinite(value) and name not in ("time", "updates"):
                board.add_scalar(f"run/{name}", value, updates)


def _finite(value: Any) -> Any:
    """Returns a value as strict JSON has it: null for what is no number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
