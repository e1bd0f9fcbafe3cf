"""What workers count, in memory they share with their supervisor: one row a worker, one column a figure.

A restarted worker goes on in its row, so that the node's totals never go backwards.
"""

from __future__ import annotations

from ctypes import Array, c_double
from multiprocessing.context import SpawnContext

import numpy as np
import numpy.typing as npt

TOTALS = (
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
)
"""Figures that only grow."""
LEVELS = ("chunks_unacknowledged", "weights_version", "weights_age_s")
"""Figures that come and go."""
FIGURES = TOTALS + LEVELS


def shared_figures(context: SpawnContext, workers: int) -> Array[c_double]:
    """Returns zeroed shared memory for the figures of all workers."""
    array: Array[c_double] = context.RawArray(c_double, workers * len(FIGURES))
    return array


class Counters:
    """One worker's row, or all rows, by name."""

    def __init__(self, shared: Array[c_double]) -> None:
        self._rows: npt.NDArray[np.float64] = np.frombuffer(shared, np.float64).reshape(-1, len(FIGURES))  # type: ignore[call-overload]

    def add(self, worker: int, figure: str, amount: float) -> None:
        """Adds to a total."""
        self._rows[worker, FIGURES.index(figure)] += amount

    def set(self, worker: int, figure: str, value: float) -> None:
        """Sets a level."""
        self._rows[worker, FIGURES.index(figure)] = value

    def column(self, figure: str) -> npt.NDArray[np.float64]:
        """Returns a figure of all workers, [workers]."""
        return self._rows[:, FIGURES.index(figure)].copy()
