"""Small instruments of the learner's loop: when something is due, how fast it updates, what time a run is charged.

All times are monotonic seconds, given by the caller.
"""

from __future__ import annotations

from collections import deque

_RATE_WINDOW = 10
"""Observations a rate is taken over."""


class Timer:
    """Says once a period that something is due."""

    def __init__(self, period_s: float, now: float) -> None:
        self._period_s, self._last = period_s, now

    def is_due(self, now: float) -> bool:
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


class RunClock:
    """Charges time to a run's budget: all that passes from the run's first transition on.

    Warm-up and waiting for slow actors are charged. Waiting for a peer that is gone is not.
    """

    def __init__(self, env_steps: int, now: float) -> None:
        """Takes the environment steps known so far; the clock starts with the next one, or with the first batch."""
        self._known, self._last = env_steps, now
        self._begun = False
        self.paused = ""
        """The peer that is gone, in words, while time is not charged for it; empty otherwise."""

    def charge(self, now: float, *, env_steps: int, trained: bool, absent: str) -> float:
        """Returns the seconds since the last call that the budget is charged.

        trained: whether an update was done in that time. absent: the peer that is gone; empty when none is.
        """
        passed_s, self._last = now - self._last, now
        self._begun = self._begun or trained or env_steps > self._known
        self.paused = absent if self._begun and not trained else ""
        return passed_s if self._begun and not self.paused else 0.0
