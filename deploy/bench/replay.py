"""The replay server over TCP: what it takes in, what it hands out, and how soon it has its memory back.

ingest: 4 writers that send recorded chunks, against RPUSH of the same bytes, pipelined, into the same Redis.
serve: batches of 1,024 drawn by this process, against np.take over the same records in this process.
recovery: a restart's reading of its chunks, of which 200 MB/s are asked for.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import redis

from common.run import Run
from common.transitions import transition_dtype
from deploy.bench.config import BenchConfig
from deploy.bench.crowd import Crowd, Recorded, fill, make_run, record
from deploy.bench.drawing import BATCH, Drawer, Taking
from deploy.bench.rows import REPEATS, Doing, Row, compare, rate, row
from deploy.bench.stage import Stage
from deploy.bench.sweeps import actor_rows, ring_rows

WRITERS = 4
SECONDS = 1.0
PIPELINED = 8
"""RPUSHes sent at once: as many chunks as an actor's window."""
GOALS = {"ram": 5.0, "redis": 0.8}
SERVED_GOAL = 0.5
RECOVERED = 200_000
RECOVERY_MB_S = 200.0
_LIST = "bench"
_RECOVERED = re.compile(r"recovered transitions=(\d+) .* seconds=([\d.]+)")


def rows(config: BenchConfig) -> Iterator[Row | Doing]:
    """Yields replay/ingest/LEVEL, replay/serve/1024 and its p99, replay/recovery, then what the load costs."""
    run = make_run()
    recorded = record(run)
    yield from _ingest(run, recorded)
    yield from _serve(run, recorded)
    yield from _recovery(run, recorded)
    yield from actor_rows(run, recorded, full=config.full)
    yield from ring_rows(recorded, full=config.full)


def _ingest(run: Run, recorded: Sequence[Recorded]) -> Iterator[Row | Doing]:
    with Stage() as stage:
        url = stage.redis()
        baseline = pushing(url, recorded, run.spec.replay.capacity)
        for level, own_url in (("ram", "none"), ("redis", url)):
            yield Doing(f"replay: ingesting from {WRITERS} writers, level {level}")
            server = stage.replay(own_url)
            server.open(run)
            crowd = Crowd(server.endpoint, run, WRITERS, recorded)
            try:
                crowd.connect()
                crowd.pump(SECONDS)
                ours, theirs = compare(lambda crowd=crowd: crowd.pump(SECONDS), lambda: rate(baseline, SECONDS))  # type: ignore[misc]
            finally:
                crowd.close()
            server.end()
            yield row(f"replay/ingest/{level}", "transitions/s", ours, ("RPUSH, pipelined", theirs), GOALS[level])


def pushing(url: str, recorded: Sequence[Recorded], most_rows: int) -> Callable[[], int]:
    """Returns a function that pushes a pipeline of chunks to a list in Redis and returns the transitions in them."""
    client = redis.Redis.from_url(url)

    def push() -> int:
        pipeline = client.pipeline(transaction=False)
        for one in recorded[:PIPELINED]:
            pipeline.rpush(_LIST, one.payload)
        pipeline.ltrim(_LIST, -(most_rows // recorded[0].rows), -1)
        pipeline.execute()
        return sum(one.rows for one in recorded[:PIPELINED])

    return push


def _serve(run: Run, recorded: Sequence[Recorded]) -> Iterator[Row | Doing]:
    yield Doing(f"replay: serving batches of {BATCH:,}")
    size = run.spec.replay.capacity // 2
    with Stage() as stage:
        server = stage.replay()
        server.open(run)
        fill(server.endpoint, run, recorded, size)
        drawer = Drawer(server.endpoint, run)
        taking = Taking(run, recorded, size)
        try:
            ours, theirs = compare(lambda: rate(drawer.draw, SECONDS), lambda: rate(taking.draw, SECONDS))
            yield row(f"replay/serve/{BATCH}", "batches/s", ours, ("np.take in process", theirs), SERVED_GOAL)
            trips, takes = drawer.round_trips(500), taking.timed(500)
            worst, alone = (float(np.percentile(seconds, 99)) * 1e3 for seconds in (trips, takes))
            yield row(f"replay/serve/{BATCH}/p99", "ms", worst, ("np.take in process", alone))
        finally:
            drawer.close()


def _recovery(run: Run, recorded: Sequence[Recorded]) -> Iterator[Row | Doing]:
    yield Doing(f"replay: recovering {RECOVERED:,} transitions from Redis")
    record_bytes = transition_dtype(run.joint).itemsize
    with Stage() as stage:
        url = stage.redis()
        server = stage.replay(url)
        server.open(run)
        fill(server.endpoint, run, recorded, RECOVERED)
        server.end()
        found = []
        for _ in range(REPEATS):
            server = stage.replay(url)
            transitions, seconds = server.started.wait_for(_RECOVERED).groups()
            found.append(int(transitions) * record_bytes / 1e6 / float(seconds))
            server.end()
    yield row("replay/recovery", "MB/s", statistics.median(found), ("what is asked for", RECOVERY_MB_S), 1.0)
