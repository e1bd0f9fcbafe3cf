"""When a process that ended is started again: after a growing delay, until it fails too often. Pure."""

from __future__ import annotations

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
STEADY_S = 60.0
"""A process that ran this long counts as having started well: the delay begins anew."""
MOST_FAILURES = 8
"""Failures in a row, none of them after a steady run, before the process is given up."""


class Restarts:
    """The history of one process: asked at each end how long to wait before the next start."""

    def __init__(self) -> None:
        self.failures = 0
        """In a row."""
        self.total = 0
        """Restarts granted."""

    def delay_after(self, ran_s: float) -> float | None:
        """Returns the seconds to wait before starting again after a run of `ran_s`; None = give it up."""
        self.failures = 1 if ran_s >= STEADY_S else self.failures + 1
        if self.failures > MOST_FAILURES:
            return None
        self.total += 1
        return min(FIRST_DELAY_S * 2.0 ** (self.failures - 1), LONGEST_DELAY_S)
