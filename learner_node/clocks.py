"""Clocks of the learner's loop: periodic timers, the rate of updates, and the time charged to a run's budget.

All times are monotonic seconds, given by the caller.
"""

from __future__ import annotations

from collections import deque

_RATE_WINDOW = 10
"""Number of observations that a rate is computed over."""


class Timer:
    """A periodic timer."""

    def __init__(self, period_s: float, now: float) -> None:
        self._period_s, self._last = period_s, now

    def is_due(self, now: float) -> bool:
        """Returns whether a period is over; if so, the next period starts."""
        if now - self._last < self._period_s:
            return False
        self._last = now
        return True


class UpdateRate:
    """The number of updates a second, over the last observations."""

    def __init__(self) -> None:
        self._observations: deque[tuple[float, int]] = deque(maxlen=_RATE_WINDOW)

    def observe(self, updates: int, now: float) -> None:
        """Takes the number of updates so far."""
        self._observations.append((now, updates))

    @property
    def value(self) -> float:
        """Updates a second; 0 before two observations."""
        (first_at, first_updates), (last_at, last_updates) = (
            (self._observations[0], self._observations[-1]) if self._observations else ((0.0, 0), (0.0, 0))
        )
        return (last_updates - first_updates) / (last_at - first_at) if last_at > first_at else 0.0


class BudgetClock:
    """Charges time to a run's budget, from the run's first transition on.

    The warm-up and waits for slow actors are charged. Waits for a peer that is gone are not.
    """

    def __init__(self, env_steps: int, now: float) -> None:
        """env_steps: those known so far. The clock starts with the next step, or with the first batch."""
        self._initial_env_steps, self._last = env_steps, now
        self._has_started = False
        self.paused = ""
        """The peer that is gone, as text, while time is not charged; empty otherwise."""

    def charge(self, now: float, *, env_steps: int, trained: bool, absent: str) -> float:
        """Returns the seconds since the last call that are charged to the budget.

        trained: whether an update was done in that time. absent: the peer that is gone; empty if none is.
        """
        elapsed_s, self._last = now - self._last, now
        self._has_started = self._has_started or trained or env_steps > self._initial_env_steps
        self.paused = absent if self._has_started and not trained else ""
        return elapsed_s if self._has_started and not self.paused else 0.0
