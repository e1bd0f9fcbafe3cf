"""The schedule of episodes: how many are played, which one is next, and how long the rest will take."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from actor_node.evaluation.rollouts.episodes import Episode, Watcher

MIN_EPISODES, MAX_EPISODES = 20, 1_000
"""Bounds on the number of episodes that fit into a time."""
_FORECAST_AFTER_S = 5.0
"""The user reads a forecast after this time, if the episodes will take longer than this time [s]."""


class PlayLimits(NamedTuple):
    """The PlayOptions of an environment that is not batched, with the defaults filled in."""

    episodes: int
    """0 plays as many as start within the time, from `min_episodes` to `max_episodes`."""
    within_s: float
    """Time during which episodes may start, if `episodes` is 0 [s]."""
    processes: int
    """0 plays in this process."""
    copies: int
    """Largest number of copies in each process."""
    max_steps: int
    """Limit on steps of an episode; 0 sets none."""
    max_episodes: int = MAX_EPISODES
    """Largest number of episodes, if `episodes` is 0."""
    min_episodes: int = MIN_EPISODES
    """Number of episodes that are played even if the time is over, if `episodes` is 0."""

    @property
    def max_failures(self) -> int:
        """Failed episodes after which the rollouts end if none has succeeded.

        More than MIN_EPISODES, because a failed episode is shorter than a successful one, so its result arrives first.
        """
        return MIN_EPISODES + 2 * self.copies * max(self.processes, 1)

    @property
    def most_episodes(self) -> int:
        """Largest number of episodes."""
        return self.episodes or self.max_episodes


class EpisodeSchedule:
    """Hands out episode numbers in order, collects the results, and forecasts the end."""

    def __init__(self, limits: PlayLimits, watcher: Watcher) -> None:
        self._limits, self._watcher = limits, watcher
        self._next = 0
        self._forecast_given = False
        self.started_at = time.monotonic()
        self.episodes: list[Episode] = []
        """Results in order of arrival, with failures."""
        self._succeeded = 0

    def next_number(self) -> int | None:
        """Returns the number of the next episode; None if enough episodes have started."""
        if not self.has_next:
            return None
        self._next += 1
        return self._next - 1

    @property
    def has_next(self) -> bool:
        """Whether another episode must start."""
        limits = self._limits
        failures = len(self.episodes) - self._succeeded
        late = time.monotonic() - self.started_at >= limits.within_s
        time_is_up = not limits.episodes and self._next >= limits.min_episodes and late
        return (
            self._next < limits.most_episodes
            and not time_is_up
            and (self._succeeded > 0 or failures < limits.max_failures)
        )

    def add(self, episode: Episode) -> None:
        """Adds the result of an episode."""
        self.episodes.append(episode)
        self._succeeded += not episode.failure
        self._watcher.done(len(self.episodes), self.expected())
        self._forecast()

    def expected(self) -> int:
        """Returns the expected number of episodes."""
        limits = self._limits
        if limits.episodes or not self.episodes:
            return limits.most_episodes
        fitting = math.ceil(len(self.episodes) / max(time.monotonic() - self.started_at, 1e-3) * limits.within_s)
        return min(max(fitting, limits.min_episodes, len(self.episodes)), limits.most_episodes)

    def _forecast(self) -> None:
        passed, count = time.monotonic() - self.started_at, len(self.episodes)
        if self._forecast_given or (count < MIN_EPISODES and passed < _FORECAST_AFTER_S):
            return
        self._forecast_given = True
        total = self.expected()
        expected_s = passed / count * total
        if expected_s < _FORECAST_AFTER_S:
            return
        minutes, seconds = divmod(round(expected_s), 60)
        on = "1 process" if self._limits.processes < 2 else f"{self._limits.processes} processes"
        self._watcher.notify(f"about {minutes}:{seconds:02} for {total:,} episodes on {on}")
