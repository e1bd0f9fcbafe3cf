"""The age of the weights that actors act with: one learner's broadcast and many subscribed workers in one process.

The age is the time since the current weights of a worker were published, measured each time that a worker would start
a chunk.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from actor_node.replay_session import ReplaySession
from common.errors import PeerError
from common.wire.messages import ActorReport
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.data_plane.fake_learner import publish_weights
from shoal.commands.bench.data_plane.load_generator import make_run
from shoal.commands.bench.measurements import BenchProgress, BenchRow, row
from shoal.commands.bench.processes import Processes

SUBSCRIBERS = 32
SECONDS = 10.0
POLL_PERIOD_S = 0.002
MAX_AGE_MS = 450.0
FIRST_WEIGHTS_TIMEOUT_S = 60.0
REPORT_PERIOD_S = 1.0


def rows(_config: BenchConfig) -> Iterator[BenchRow | BenchProgress]:
    """Yields weights/age/32/p99 and weights/age/32/median."""
    yield BenchProgress(f"weights: {SUBSCRIBERS} subscribers, published every 200 ms")
    run = make_run()
    with Processes() as processes:
        server = processes.replay()
        with publish_weights(run, server.endpoint) as address:
            sessions = [ReplaySession(f"bench-{i}", server.endpoint, address) for i in range(SUBSCRIBERS)]
            try:
                ages_ms = _ages(sessions) * 1e3
            finally:
                for session in sessions:
                    session.close()
    worst, median = (float(np.percentile(ages_ms, q)) for q in (99, 50))
    yield row(f"weights/age/{SUBSCRIBERS}/p99", "ms", worst, ("allowed age", MAX_AGE_MS), 1.0)
    yield row(f"weights/age/{SUBSCRIBERS}/median", "ms", median, ("half a period", 100.0))


def _ages(sessions: list[ReplaySession]) -> npt.NDArray[np.float64]:
    polled, give_up_at = PolledSessions(sessions), time.monotonic() + FIRST_WEIGHTS_TIMEOUT_S
    while any(session.weights is None for session in sessions):
        if time.monotonic() > give_up_at:
            raise PeerError(f"not every subscriber received weights within {FIRST_WEIGHTS_TIMEOUT_S:g} s")
        polled.poll()
    found, until = [], time.monotonic() + SECONDS
    while time.monotonic() < until:
        polled.poll()
        now = time.monotonic_ns()
        found += [now - session.weights.header.updates for session in sessions if session.weights is not None]
    return np.asarray(found, np.float64) / 1e9


class PolledSessions:
    """The sessions of many workers, polled as a worker does but without stepping environments."""

    def __init__(self, sessions: list[ReplaySession]) -> None:
        self.sessions = sessions
        self._report_at = 0.0

    def poll(self) -> None:
        """Receives pending messages, and reports once a second: the reply shows that the server is alive."""
        now = time.monotonic()
        for i, session in enumerate(self.sessions):
            session.poll(time.monotonic())
            if now >= self._report_at:
                session.report(
                    ActorReport(f"bench-{i}", session.outbox.incarnation, 0, 0, 0.0, (), 0, 0.0, "", 0.0, "")
                )
        if now >= self._report_at:
            self._report_at = now + REPORT_PERIOD_S
        time.sleep(POLL_PERIOD_S)
