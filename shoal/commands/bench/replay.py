"""The replay server over TCP: what it takes in, what it hands out, and how soon it has its memory back.

ingest: 4 writers that send recorded chunks, against RPUSH of the same chunks, pipelined, into the same Redis; and, as
replays over Redis are mostly written, against an RPUSH a transition (ingest/LEVEL/singly).
serve: batches of 1,024 drawn by this process, against np.take over the same records in this process, and against
ZeroMQ alone, which sends as many bytes from another process and does nothing else (serve/1024/wire).
recovery: a restart's reading of its chunks, of which 200 MB/s are asked for.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import redis

from common.run.run import Run
from common.transitions import transition_dtype
from shoal.commands.bench.bare_wire import BareWire
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.load_generator import LoadGenerator, RecordedChunk, fill, make_run, record
from shoal.commands.bench.processes import Processes
from shoal.commands.bench.rows import REPEATS, BenchProgress, BenchRow, compare, rate, row
from shoal.commands.bench.sampling_load import BATCH, SamplingClient, TakeBaseline
from shoal.commands.bench.sweeps import actor_rows, ring_rows

WRITERS = 4
SECONDS = 1.0
PIPELINED = 8
"""RPUSHes sent at once: as many chunks as an actor's window."""
GOALS = {"ram": 5.0, "redis": 0.8}
SERVED_GOAL = 0.5
RECOVERED = 200_000
RECOVERY_MB_S = 200.0
_RECOVERED = re.compile(r"recovered transitions=(\d+) .* seconds=([\d.]+)")


def rows(config: BenchConfig) -> Iterator[BenchRow | BenchProgress]:
    """Yields replay/ingest/LEVEL, replay/serve/1024 and its p99, replay/recovery, then what the load costs."""
    run = make_run()
    recorded = record(run)
    yield from _ingest(run, recorded)
    yield from _serve(run, recorded)
    yield from _recovery(run, recorded)
    yield from actor_rows(run, recorded, full=config.full)
    yield from ring_rows(recorded, full=config.full)


def _ingest(run: Run, recorded: Sequence[RecordedChunk]) -> Iterator[BenchRow | BenchProgress]:
    with Processes() as stage:
        url = stage.redis()
        record_bytes, capacity = transition_dtype(run.joint).itemsize, run.spec.replay.capacity
        chunks = pushing(url, [one.payload for one in recorded[:PIPELINED]], capacity // recorded[0].rows)
        singles = pushing(url, list(_records(recorded[:PIPELINED], record_bytes)), capacity)
        pushed = sum(one.rows for one in recorded[:PIPELINED])
        for level, own_url in (("ram", "none"), ("redis", url)):
            yield BenchProgress(f"replay: ingesting from {WRITERS} writers, level {level}")
            server = stage.replay(own_url)
            server.open(run)
            crowd = LoadGenerator(server.endpoint, run, WRITERS, recorded)
            try:
                crowd.connect()
                crowd.pump(SECONDS)
                pump = partial(crowd.pump, SECONDS)
                ours, theirs = compare(pump, lambda: pushed * rate(chunks, SECONDS))
                yield row(f"replay/ingest/{level}", "transitions/s", ours, ("RPUSH, pipelined", theirs), GOALS[level])
                ours, theirs = compare(pump, lambda: pushed * rate(singles, SECONDS))
                one_each = "an RPUSH a transition, pipelined", theirs
                yield row(f"replay/ingest/{level}/singly", "transitions/s", ours, one_each)
            finally:
                crowd.close()
            server.end()


def _records(recorded: Sequence[RecordedChunk], record_bytes: int) -> Iterator[bytes]:
    for one in recorded:
        whole = memoryview(one.payload)
        yield from (bytes(whole[at : at + record_bytes]) for at in range(0, len(whole), record_bytes))


def pushing(url: str, values: Sequence[bytes], most: int) -> Callable[[], int]:
    """Returns a function that pushes values to a list in Redis, of which `most` stay, in one pipeline; it returns 1."""
    client, name = redis.Redis.from_url(url), f"bench-{len(values)}"

    def push() -> int:
        pipeline = client.pipeline(transaction=False)
        for value in values:
            pipeline.rpush(name, value)
        pipeline.ltrim(name, -most, -1)
        pipeline.execute()
        return 1

    return push


def _serve(run: Run, recorded: Sequence[RecordedChunk]) -> Iterator[BenchRow | BenchProgress]:
    yield BenchProgress(f"replay: serving batches of {BATCH:,}")
    size = run.spec.replay.capacity // 2
    with Processes() as stage:
        server = stage.replay()
        server.open(run)
        fill(server.endpoint, run, recorded, size)
        drawer = SamplingClient(server.endpoint, run)
        taking = TakeBaseline(run, recorded, size)
        try:
            ours, theirs = compare(lambda: rate(drawer.draw, SECONDS), lambda: rate(taking.draw, SECONDS))
            yield row(f"replay/serve/{BATCH}", "batches/s", ours, ("np.take in process", theirs), SERVED_GOAL)
            with BareWire(BATCH * transition_dtype(run.joint).itemsize) as wire:
                ours, theirs = compare(lambda: rate(drawer.draw, SECONDS), lambda: rate(wire.draw, SECONDS))
            yield row(f"replay/serve/{BATCH}/wire", "batches/s", ours, ("ZeroMQ alone", theirs))
            trips, takes = drawer.round_trips(500), taking.timed(500)
            worst, alone = (float(np.percentile(seconds, 99)) * 1e3 for seconds in (trips, takes))
            yield row(f"replay/serve/{BATCH}/p99", "ms", worst, ("np.take in process", alone))
        finally:
            drawer.close()


def _recovery(run: Run, recorded: Sequence[RecordedChunk]) -> Iterator[BenchRow | BenchProgress]:
    yield BenchProgress(f"replay: recovering {RECOVERED:,} transitions from Redis")
    record_bytes = transition_dtype(run.joint).itemsize
    with Processes() as stage:
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
