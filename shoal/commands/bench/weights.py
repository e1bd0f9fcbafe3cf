"""How old the weights are that actors act with: a learner's broadcast, and many workers' ends of it in one process.

The age is looked at whenever a worker would begin a chunk: the time since the weights it has then were published.
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
from shoal.commands.bench.fake_learner import publishing
from shoal.commands.bench.load_generator import make_run
from shoal.commands.bench.processes import Processes
from shoal.commands.bench.rows import BenchProgress, BenchRow, row

SUBSCRIBERS = 32
SECONDS = 10.0
LOOK_S = 0.002
ALLOWED_MS = 450.0
FIRST_S = 60.0
REPORT_S = 1.0


def rows(_config: BenchConfig) -> Iterator[BenchRow | BenchProgress]:
    """Yields weights/age/32/p99 and its median."""
    yield BenchProgress(f"weights: {SUBSCRIBERS} subscribers, published every 200 ms")
    run = make_run()
    with Processes() as stage:
        server = stage.replay()
        with publishing(run, server.endpoint) as address:
            links = [ReplaySession(f"bench-{i}", server.endpoint, address) for i in range(SUBSCRIBERS)]
            try:
                ages_ms = _ages(links) * 1e3
            finally:
                for link in links:
                    link.close()
    worst, median = (float(np.percentile(ages_ms, share)) for share in (99, 50))
    yield row(f"weights/age/{SUBSCRIBERS}/p99", "ms", worst, ("what is allowed", ALLOWED_MS), 1.0)
    yield row(f"weights/age/{SUBSCRIBERS}/median", "ms", median, ("half a period", 100.0))


def _ages(links: list[ReplaySession]) -> npt.NDArray[np.float64]:
    workers, give_up_at = Workers(links), time.monotonic() + FIRST_S
    while any(link.weights is None for link in links):
        if time.monotonic() > give_up_at:
            raise PeerError(f"not every subscriber had weights within {FIRST_S:g} s")
        workers.turn()
    found, until = [], time.monotonic() + SECONDS
    while time.monotonic() < until:
        workers.turn()
        now = time.monotonic_ns()
        found += [now - link.weights.header.updates for link in links if link.weights is not None]
    return np.asarray(found, np.float64) / 1e9


class Workers:
    """What workers do with their links, but for playing."""

    def __init__(self, links: list[ReplaySession]) -> None:
        self.links = links
        self._report_at = 0.0

    def turn(self) -> None:
        """Takes what has come, and once a second reports, which is answered: silence would mean a lost server."""
        now = time.monotonic()
        for i, link in enumerate(self.links):
            link.poll(time.monotonic())
            if now >= self._report_at:
                link.report(ActorReport(f"bench-{i}", link.outbox.incarnation, 0, 0, 0.0, (), 0, 0.0, "", 0.0, ""))
        if now >= self._report_at:
            self._report_at = now + REPORT_S
        time.sleep(LOOK_S)
