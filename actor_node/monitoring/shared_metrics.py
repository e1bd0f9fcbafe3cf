"""Metrics of the workers in memory that they share with their supervisor: one row per worker, one column per metric.

A restarted worker continues in its row, so that the node's totals never decrease.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from ctypes import Array, c_char, c_double
from multiprocessing.context import SpawnContext
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actor_node.monitoring.environment_calls import CallTable
from common.process.monitoring.metrics import RUN_LABELS

ACK_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the histogram of acknowledgement times; one more bucket counts longer times."""
ACK_BUCKETS = (*(f"acks_within_{bound:g}_s" for bound in ACK_SECONDS), "acks_later")
COUNTERS = (
    "env_steps",
    "episodes",
    "episode_return_sum",
    "chunks",
    "chunk_bytes",
    "chunks_resent",
    "weights_rejected",
    "collecting_s",
    "waiting_for_replay_s",
    "waiting_for_weights_s",
    "waiting_for_credit_s",
    "ack_s",
    *ACK_BUCKETS,
)
"""Metrics that only increase."""
GAUGES = ("chunks_unacknowledged", "weights_version", "weights_age_s")
"""Metrics that go up and down."""
COLUMNS = COUNTERS + GAUGES
_LABEL_BYTES = 2_500
"""Size of the text with the run's labels; enough for the longest run, scenario and algorithm."""


class NodeMemory(NamedTuple):
    """The memory that a node's supervisor and workers share, as arrays that a spawned worker inherits."""

    metrics: Array[c_double]
    run: Array[c_char]
    """Labels of the run (`common.process.monitoring.metrics.run_labels`), one a line; empty until a worker has one."""
    calls: Array[c_double]
    """Memory of `actor_node.monitoring.environment_calls.CallTable`."""
    stop_at: Array[c_double]
    """Monotonic time at which the node was asked to end; 0 before. Workers also obey it if the user's code has replaced
    the signal handlers."""


def allocate_node_memory(context: SpawnContext, workers: int) -> NodeMemory:
    """Returns zeroed shared memory for all workers of a node."""
    return NodeMemory(
        metrics=context.RawArray(c_double, workers * len(COLUMNS)),
        run=context.RawArray(c_char, _LABEL_BYTES),
        calls=context.RawArray(c_double, CallTable.size(workers)),
        stop_at=context.RawArray(c_double, 1),
    )


class WorkerMetrics:
    """The metrics of all workers, addressed by worker and name."""

    def __init__(self, shared: NodeMemory) -> None:
        self._rows: npt.NDArray[np.float64] = np.frombuffer(shared.metrics, np.float64).reshape(-1, len(COLUMNS))  # type: ignore[call-overload]
        self._run = shared.run

    def add(self, worker: int, counter: str, amount: float) -> None:
        """Adds to a counter."""
        self._rows[worker, COLUMNS.index(counter)] += amount

    def set(self, worker: int, gauge: str, value: float) -> None:
        """Sets a gauge."""
        self._rows[worker, COLUMNS.index(gauge)] = value

    def reset_gauges(self, worker: int) -> None:
        """Sets the gauges of a worker that has ended to 0."""
        for gauge in GAUGES:
            self.set(worker, gauge, 0.0)

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """Returns one metric of all workers [workers]."""
        return self._rows[:, COLUMNS.index(name)].copy()

    @property
    def run(self) -> dict[str, str]:
        """Labels of the run that the workers collect for; empty until a worker knows the run."""
        values = self._run.value.decode(errors="replace").split("\n")
        return dict(zip(RUN_LABELS, values, strict=True)) if len(values) == len(RUN_LABELS) else {}

    @run.setter
    def run(self, labels: dict[str, str]) -> None:
        # No lock: a worker killed inside one would block its supervisor forever.
        self._run.value = "\n".join(labels[name] for name in RUN_LABELS).encode()


class AckTimes:
    """Measures the time from a chunk's collection to its acknowledgement: what a kill of the worker would lose."""

    def __init__(self, metrics: WorkerMetrics, worker: int) -> None:
        self._metrics, self._worker = metrics, worker
        self._sent: deque[tuple[int, float]] = deque()

    def sent(self, seq: int, now: float) -> None:
        """Records a chunk that was sent at monotonic time `now`."""
        self._sent.append((seq, now))

    def acknowledged(self, seq: int, now: float) -> None:
        """Counts every chunk up to `seq` as acknowledged at monotonic time `now`."""
        while self._sent and self._sent[0][0] <= seq:
            ack_s = now - self._sent.popleft()[1]
            self._metrics.add(self._worker, "ack_s", ack_s)
            self._metrics.add(self._worker, ACK_BUCKETS[bisect_left(ACK_SECONDS, ack_s)], 1)
