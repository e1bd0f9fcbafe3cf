"""The replay server over TCP: how fast it ingests, serves batches, and recovers.

ingest: 4 simulated actors send recorded chunks; the baseline is a pipelined RPUSH of the same chunks into the same
Redis. A second baseline is one RPUSH per transition, the usual way to store a replay in Redis (ingest/LEVEL/singly).
serve: this process samples batches of 1,024; the baseline is np.take over the same records in this process. A second
baseline is ZeroMQ alone: another process sends the same number of bytes (serve/1024/wire).
recovery: a restarted server reads its chunks from Redis; the goal is 200 MB/s.
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
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.data_plane.load_generator import LoadGenerator, RecordedChunk, fill, make_run, record
from shoal.commands.bench.data_plane.replay_scaling import actor_rows, ring_rows
from shoal.commands.bench.data_plane.sampling_load import BATCH, SamplingClient, TakeBaseline
from shoal.commands.bench.data_plane.zeromq_baseline import ZeroMqBaseline
from shoal.commands.bench.measurements import REPEATS, BenchFailure, BenchProgress, BenchRow, compare, rate, row
from shoal.commands.bench.peers.replay import rows as peers_rows
from shoal.commands.bench.processes import Processes

ACTORS = 4
SECONDS = 1.0
PIPELINED = 8
"""RPUSH commands in one pipeline: the number of chunks in an actor's window."""
GOALS = {"ram": 5.0, "redis": 0.8}
SERVE_GOAL = 0.5
RECOVERED_TRANSITIONS = 200_000
RECOVERY_MB_S = 200.0
_RECOVERED = re.compile(r"recovered transitions=(\d+) .* seconds=([\d.]+)")


def rows(config: BenchConfig) -> Iterator[BenchRow | BenchFailure | BenchProgress]:
    """Yields the rows of ingest, serve and recovery, then the cost by number of actors and by size of the ring."""
    run = make_run()
    recorded = record(run)
    if config.peers:
        yield from peers_rows(config, run, recorded)
        return
    yield from _ingest(run, recorded)
    yield from _serve(run, recorded)
    yield from _recovery(run, recorded)
    yield from actor_rows(run, recorded, full=config.full)
    yield from ring_rows(recorded, full=config.full)


def _ingest(run: Run, recorded: Sequence[RecordedChunk]) -> Iterator[BenchRow | BenchProgress]:
    with Processes() as processes:
        url = processes.redis()
        record_bytes, capacity = transition_dtype(run.joint).itemsize, run.spec.replay.capacity
        chunks = make_push(url, [one.payload for one in recorded[:PIPELINED]], capacity // recorded[0].rows)
        singles = make_push(url, list(_records(recorded[:PIPELINED], record_bytes)), capacity)
        pushed = sum(one.rows for one in recorded[:PIPELINED])
        for level, redis_url in (("ram", "none"), ("redis", url)):
            yield BenchProgress(f"replay: ingesting from {ACTORS} actors, level {level}")
            server = processes.replay(redis_url)
            server.open(run)
            load = LoadGenerator(server.endpoint, run, ACTORS, recorded)
            try:
                load.connect()
                load.pump(SECONDS)
                pump = partial(load.pump, SECONDS)
                ours, baseline_rate = compare(pump, lambda: pushed * rate(chunks, SECONDS))
                yield row(
                    f"replay/ingest/{level}", "transitions/s", ours, ("RPUSH, pipelined", baseline_rate), GOALS[level]
                )
                ours, baseline_rate = compare(pump, lambda: pushed * rate(singles, SECONDS))
                one_each = "an RPUSH a transition, pipelined", baseline_rate
                yield row(f"replay/ingest/{level}/singly", "transitions/s", ours, one_each)
            finally:
                load.close()
            server.end()


def _records(recorded: Sequence[RecordedChunk], record_bytes: int) -> Iterator[bytes]:
    for one in recorded:
        whole = memoryview(one.payload)
        yield from (bytes(whole[at : at + record_bytes]) for at in range(0, len(whole), record_bytes))


def make_push(url: str, values: Sequence[bytes], max_length: int) -> Callable[[], int]:
    """Returns a function that pushes values to a Redis list and trims it, in one pipeline, and returns 1."""
    client, name = redis.Redis.from_url(url), f"bench-{len(values)}"

    def push() -> int:
        pipeline = client.pipeline(transaction=False)
        for value in values:
            pipeline.rpush(name, value)
        pipeline.ltrim(name, -max_length, -1)
        pipeline.execute()
        return 1

    return push


def _serve(run: Run, recorded: Sequence[RecordedChunk]) -> Iterator[BenchRow | BenchProgress]:
    yield BenchProgress(f"replay: serving batches of {BATCH:,}")
    size = run.spec.replay.capacity // 2
    with Processes() as processes:
        server = processes.replay()
        server.open(run)
        fill(server.endpoint, run, recorded, size)
        client = SamplingClient(server.endpoint, run)
        baseline = TakeBaseline(run, recorded, size)
        try:
            ours, baseline_rate = compare(lambda: rate(client.draw, SECONDS), lambda: rate(baseline.draw, SECONDS))
            yield row(f"replay/serve/{BATCH}", "batches/s", ours, ("np.take in process", baseline_rate), SERVE_GOAL)
            with ZeroMqBaseline(BATCH * transition_dtype(run.joint).itemsize) as wire:
                ours, baseline_rate = compare(lambda: rate(client.draw, SECONDS), lambda: rate(wire.draw, SECONDS))
            yield row(f"replay/serve/{BATCH}/wire", "batches/s", ours, ("ZeroMQ alone", baseline_rate))
            trips, takes = client.round_trips(500), baseline.timed(500)
            ours_ms, baseline_ms = (float(np.percentile(seconds, 99)) * 1e3 for seconds in (trips, takes))
            yield row(f"replay/serve/{BATCH}/p99", "ms", ours_ms, ("np.take in process", baseline_ms))
        finally:
            client.close()


def _recovery(run: Run, recorded: Sequence[RecordedChunk]) -> Iterator[BenchRow | BenchProgress]:
    yield BenchProgress(f"replay: recovering {RECOVERED_TRANSITIONS:,} transitions from Redis")
    record_bytes = transition_dtype(run.joint).itemsize
    with Processes() as processes:
        url = processes.redis()
        server = processes.replay(url)
        server.open(run)
        fill(server.endpoint, run, recorded, RECOVERED_TRANSITIONS)
        server.end()
        found = []
        for _ in range(REPEATS):
            server = processes.replay(url)
            transitions, seconds = server.started.wait_for(_RECOVERED).groups()
            found.append(int(transitions) * record_bytes / 1e6 / float(seconds))
            server.end()
    yield row("replay/recovery", "MB/s", statistics.median(found), ("target", RECOVERY_MB_S), 1.0)
