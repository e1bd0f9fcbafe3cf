"""Small instruments of the learner's loop: when something is due, how fast it updates.

All times are monotonic seconds, given by the caller.
"""

from __future__ import annotations

from collections import deque

_RATE_WINDOW = 10
"""Observations a rate is taken over."""


class Due:
    """Says once a period that something is due."""

    def __init__(self, period_s: float, now: float) -> None:
        self._period_s, self._last = period_s, now

    def __call__(self, now: float) -> bool:
        """Returns whether the period is over, and begins the next if so."""
        if now - self._last < self._period_s:
            return False
        self._last = now
        return True


class UpdateRate:
    """Updates a second over the last observations."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=_RATE_WINDOW)

    def observe(self, updates: int, now: float) -> None:
        """Notes the count of updates."""
        self._seen.append((now, updates))

    @property
    def value(self) -> float:
        """Updates a second; 0 before two observations."""
        (first, least), (last, most) = (self._seen[0], self._seen[-1]) if self._seen else ((0.0, 0), (0.0, 0))
        return (most - least) / (last - first) if last > first else 0.0
