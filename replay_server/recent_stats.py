"""Recent statistics: rates over a few seconds, returns over the last episodes, policy lag. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque

from common.wire.messages import ActorReport

WINDOW_S = 5.0
"""Time over which a rate is computed [s]."""
SAMPLE_PERIOD_S = 0.25
"""Time between two stored values of a total [s]."""
MIN_EPISODES = 100
"""Minimum number of episodes in a mean return, once this many have finished."""
LAG_CHUNKS = 100
"""Number of chunks in the mean policy lag."""
LAG_BUCKETS = (0, 1, 2, 3, 5, 10, 20, 50, 200)
"""Upper bounds of the histogram of policy lag; one more bucket takes all larger lags."""


class SlidingRate:
    """The rate of a growing total over the last few seconds."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def observe(self, total: int, now: float) -> None:
        """Records the total at monotonic time `now`; call it often."""
        if self._points and now - self._points[-1][0] < SAMPLE_PERIOD_S:
            return
        self._points.append((now, total))
        while now - self._points[0][0] > WINDOW_S:
            self._points.popleft()

    def per_second(self, total: int, now: float) -> float:
        """Returns the rate of `total` now [1/s]; 0.0 before SAMPLE_PERIOD_S has passed."""
        if not self._points or now - self._points[0][0] < SAMPLE_PERIOD_S:
            return 0.0
        start, then = self._points[0]
        return (total - then) / (now - start)


class ReturnWindow:
    """Mean returns over the last 100 episodes or more, from reports of sums."""

    def __init__(self) -> None:
        self._parts: deque[tuple[int, float, tuple[float, ...]]] = deque()
        self._episodes = 0

    def add(self, episodes: int, return_sum: float, return_sums: tuple[float, ...]) -> None:
        """Adds finished episodes: their number, the sum of their returns, and that sum for each agent."""
        if episodes <= 0:
            return
        self._parts.append((episodes, return_sum, return_sums))
        self._episodes += episodes
        while self._episodes - self._parts[0][0] >= MIN_EPISODES:
            self._episodes -= self._parts.popleft()[0]

    @property
    def mean(self) -> float:
        """Mean return, summed over agents; NaN before the first episode."""
        parts = list(self._parts)  # copied first: the HTTP server's thread reads while the deque grows
        return sum(part[1] for part in parts) / sum(part[0] for part in parts) if parts else math.nan

    @property
    def means(self) -> tuple[float, ...]:
        """Mean return of each agent; empty before the first episode."""
        parts = list(self._parts)
        episodes = sum(part[0] for part in parts)
        return tuple(sum(agent) / episodes for agent in zip(*(part[2] for part in parts), strict=False))


class PolicyLag:
    """The policy lag: versions between the newest weights and the weights that each chunk was collected with."""

    def __init__(self) -> None:
        self._lags: deque[int] = deque(maxlen=LAG_CHUNKS)
        self._newest = 0
        self.chunks = [0] * (len(LAG_BUCKETS) + 1)
        """Number of chunks by the bucket of their lag, over all chunks."""
        self.total = 0
        """Sum of the lags of all chunks."""

    def note_published(self, version: int) -> None:
        """Records a published version."""
        self._newest = max(self._newest, version)

    def add(self, used_version: int) -> None:
        """Counts one chunk, collected with the weights of `used_version`."""
        self.note_published(used_version)
        lag = self._newest - used_version
        self._lags.append(lag)
        self.chunks[bisect_left(LAG_BUCKETS, lag)] += 1
        self.total += lag

    @property
    def mean(self) -> float:
        """Mean lag of the last LAG_CHUNKS chunks; 0.0 before the first."""
        return sum(self._lags) / len(self._lags) if self._lags else 0.0


class RecentStats:
    """The recent statistics that the status shows."""

    def __init__(self) -> None:
        self.inserts = SlidingRate()
        self.samples = SlidingRate()
        self.returns = ReturnWindow()
        self.lag = PolicyLag()
        self.episodes = 0
        """Episodes of all actors that were reported since the server started."""

    def count_episodes(self, before: ActorReport | None, report: ActorReport, *, rejoined: bool) -> None:
        """Counts the episodes an actor has finished since its report `before`.

        rejoined: whether the actor collected before this server first heard of it. Its first report then covers old
        episodes too: they count, but their returns are not recent.
        """
        episodes = report.episodes - (before.episodes if before else 0)
        self.episodes += max(episodes, 0)
        if before is None and rejoined:
            return
        # The report of a worker that has collected nothing yet has no agents.
        sums = before.return_sums if before and before.return_sums else (0.0,) * len(report.return_sums)
        self.returns.add(
            episodes,
            report.return_sum - (before.return_sum if before else 0.0),
            tuple(new - old for new, old in zip(report.return_sums, sums, strict=False)),
        )
