"""What workers count, in memory they share with their supervisor: one row a worker, one column a figure.

A restarted worker goes on in its row, so that the node's totals never go backwards.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from ctypes import Array, c_char, c_double
from multiprocessing.context import SpawnContext
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actor_node.environment_calls import CallTable
from common.process.metrics import RUN_LABELS

ACK_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the histogram of acknowledgement times; what took longer is in one more bucket."""
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
"""Figures that only grow."""
GAUGES = ("chunks_unacknowledged", "weights_version", "weights_age_s")
"""Figures that come and go."""
FIGURES = COUNTERS + GAUGES
_LABEL_BYTES = 2_500
"""What the longest run, scenario and algorithm take."""


class Shared(NamedTuple):
    """The memory itself, as it is handed to workers."""

    figures: Array[c_double]
    run: Array[c_char]
    """What `common.process.metrics.run_labels` tells of the run, a line each; empty before a worker knows."""
    doing: Array[c_double]
    """See `actor_node.environment_calls.CurrentCallTable`."""
    stop_at: Array[c_double]
    """Monotonic time at which the node was asked to end; 0 before. Holds where the user's code takes the signals."""


def shared_figures(context: SpawnContext, workers: int) -> Shared:
    """Returns zeroed shared memory for the figures of all workers."""
    return Shared(
        context.RawArray(c_double, workers * len(FIGURES)),
        context.RawArray(c_char, _LABEL_BYTES),
        context.RawArray(c_double, CallTable.size(workers)),
        context.RawArray(c_double, 1),
    )


class WorkerMetrics:
    """One worker's row, or all rows, by name."""

    def __init__(self, shared: Shared) -> None:
        self._rows: npt.NDArray[np.float64] = np.frombuffer(shared.figures, np.float64).reshape(-1, len(FIGURES))  # type: ignore[call-overload]
        self._run = shared.run

    def add(self, worker: int, figure: str, amount: float) -> None:
        """Adds to a total."""
        self._rows[worker, FIGURES.index(figure)] += amount

    def set(self, worker: int, figure: str, value: float) -> None:
        """Sets a level."""
        self._rows[worker, FIGURES.index(figure)] = value

    def forget_levels(self, worker: int) -> None:
        """Clears what no longer holds once a worker has ended."""
        for figure in GAUGES:
            self.set(worker, figure, 0.0)

    def column(self, figure: str) -> npt.NDArray[np.float64]:
        """Returns a figure of all workers, [workers]."""
        return self._rows[:, FIGURES.index(figure)].copy()

    @property
    def run(self) -> dict[str, str]:
        """The labels of the run that the workers collect for; empty before they know."""
        values = self._run.value.decode(errors="replace").split("\n")
        return dict(zip(RUN_LABELS, values, strict=True)) if len(values) == len(RUN_LABELS) else {}

    @run.setter
    def run(self, labels: dict[str, str]) -> None:
        # No lock: a worker that is killed while it holds one would block its supervisor for ever.
        self._run.value = "\n".join(labels[name] for name in RUN_LABELS).encode()


class AckTimes:
    """How long one worker's chunks took from their collection to their acknowledgement: what a kill would lose."""

    def __init__(self, counters: WorkerMetrics, worker: int) -> None:
        self._counters, self._worker = counters, worker
        self._sent: deque[tuple[int, float]] = deque()

    def sent(self, seq: int, now: float) -> None:
        """Notes a chunk that was handed over at monotonic time `now`."""
        self._sent.append((seq, now))

    def acknowledged(self, seq: int, now: float) -> None:
        """Counts every chunk up to `seq`."""
        while self._sent and self._sent[0][0] <= seq:
            took_s = now - self._sent.popleft()[1]
            self._counters.add(self._worker, "ack_s", took_s)
            self._counters.add(self._worker, ACK_BUCKETS[bisect_left(ACK_SECONDS, took_s)], 1)
