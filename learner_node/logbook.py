"""What is kept of a run's course: lines of metrics.jsonl, and the same for TensorBoard.

metrics.jsonl, one object a line: `time` (Unix seconds), `trained_s`, `env_steps`, `updates`, `updates_per_s`,
`progress`, `exploration_scale`; over agents `critic_loss`, `policy_loss`, `q_mean`, `critic_gradient_norm`,
`policy_gradient_norm`; and what the replay server knows: `return_mean` (last episodes, exploration included),
`return_means` over agents, `env_steps_per_s`, `samples_per_insert`, `policy_lag`, `replay_size`, `actors`,
`actors_waited_s` (of all of them so far), `waiting` (who waits for whom at this moment, in words).
TensorBoard, over updates: `agent{i}/losses`, `agent{i}/mean_episode_rewards`, `run/...`. A tracker, if one is asked
for: the line's numbers under their own names. docs/tracking.md has all of it, field by field.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tensorboardX import SummaryWriter

from common.messages import Status
from common.run_directory import RunDirectory
from learner_node.algorithms.measured import Figures
from learner_node.trackers import Tracker, numbers_of


class Logbook:
    """Appends to a run's metrics.jsonl and TensorBoard files."""

    def __init__(self, directory: RunDirectory, tracker: Tracker | None = None) -> None:
        self._tracker = tracker
        self._lines = directory.metrics_file.open("a", buffering=1)
        self._board = SummaryWriter(str(directory.tensorboard))

    def write(self, updates: int, learner: Mapping[str, float], figures: Figures, status: Status | None) -> None:
        """Writes the learner's figures, its last losses, and what the replay server last said of the run."""
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
        self._lines.write(json.dumps({name: _finite(value) for name, value in line.items()}) + "\n")
        self._show(updates, line)
        if self._tracker:
            self._tracker.log(updates, numbers_of(line))

    def close(self) -> None:
        """Writes out what is buffered and closes the files."""
        self._board.close()
        self._lines.close()
        if self._tracker:
            self._tracker.close()

    def _show(self, updates: int, line: Mapping[str, Any]) -> None:
        board = self._board
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
