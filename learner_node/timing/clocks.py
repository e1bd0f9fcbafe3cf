"""Timing of the learner's loop: periodic timers, the rate of updates, and the time charged to a run's budget.

The caller passes the time, in monotonic seconds.
"""

from __future__ import annotations

from collections import deque

_RATE_WINDOW = 10
"""Number of observations that a rate is computed over."""


class Timer:
    """A timer that is due once every period."""

    def __init__(self, period_s: float, now: float) -> None:
        self._period_s, self._last = period_s, now

    def is_due(self, now: float) -> bool:
        """Returns whether the period is over, and starts the next one if it is."""
        if now - self._last < self._period_s:
            return False
        self._last = now
        return True


class UpdateRate:
    """The number of updates a second, over the last ten observations."""

    def __init__(self) -> None:
        self._observations: deque[tuple[float, int]] = deque(maxlen=_RATE_WINDOW)

    def observe(self, updates: int, now: float) -> None:
        """Records the number of updates so far."""
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

    Time is also charged during the warm-up and while the learner waits for slow actors. It is not charged while a peer
    is absent.
    """

    def __init__(self, env_steps: int, now: float) -> None:
        """Starts the clock at the next environment step or the first batch; env_steps: number of steps known so far."""
        self._initial_env_steps, self._last = env_steps, now
        self._has_started = False
        self.paused = ""
        """The absent peer, as text, while time is not charged; empty otherwise."""

    def charge(self, now: float, *, env_steps: int, trained: bool, absent: str) -> float:
        """Returns the seconds since the last call that are charged to the budget.

        trained: whether an update was done in that time. absent: the absent peer, as text; empty if none is.
        """
        elapsed_s, self._last = now - self._last, now
        self._has_started = self._has_started or trained or env_steps > self._initial_env_steps
        self.paused = absent if self._has_started and not trained else ""
        return elapsed_s if self._has_started and not self.paused else 0.0
