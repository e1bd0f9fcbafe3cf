"""How the cost of a replay server grows with the number of actors and with the number of stored transitions."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from common.errors import ShoalError
from common.run.run import Run
from common.transitions import transition_dtype
from shoal.commands.bench.data_plane.load_generator import LoadGenerator, RecordedChunk, fill, make_run
from shoal.commands.bench.data_plane.sampling_load import SamplingClient, TakeBaseline
from shoal.commands.bench.measurements import BenchProgress, BenchRow, compare, rate, row
from shoal.commands.bench.processes import Processes

ACTORS, ALL_ACTORS = (1, 8, 64, 512), (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
RINGS, ALL_RINGS = (100_000, 1_000_000), (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
SECONDS = 1.0
REPEATS = 3


class LoadCost(NamedTuple):
    """The throughput of a number of actors, and its cost on the server."""

    transitions_s: float
    """Acknowledged transitions per second."""
    p99_s: float
    """99th percentile of the time from sending a chunk to its acknowledgement [s]."""
    cpu_us: float
    """CPU time of the server per transition [us]."""
    memory_mib: float
    """Resident memory of the server [MiB]."""


def actor_rows(run: Run, recorded: Sequence[RecordedChunk], *, full: bool) -> Iterator[BenchRow | BenchProgress]:
    """Yields replay/actors/N and its cpu, memory and ack-p99; the baseline of each is one actor."""
    first: LoadCost | None = None
    for actors in ALL_ACTORS if full else ACTORS:
        yield BenchProgress(f"replay: {actors} actors sending at full speed")
        cost = _cost(run, recorded, actors)
        first = first or cost
        name = f"replay/actors/{actors}"
        yield row(name, "transitions/s", cost.transitions_s, ("1 actor", first.transitions_s))
        yield row(f"{name}/cpu", "us/transition", cost.cpu_us, ("1 actor", first.cpu_us))
        yield row(f"{name}/memory", "MiB", cost.memory_mib, ("1 actor", first.memory_mib))
        yield row(f"{name}/ack-p99", "ms", cost.p99_s * 1e3, ("1 actor", first.p99_s * 1e3))


def _cost(run: Run, recorded: Sequence[RecordedChunk], actors: int) -> LoadCost:
    with Processes() as processes:
        server = processes.replay()
        server.open(run)
        # A full ring has all its memory, so that further growth is due to the actors.
        fill(server.endpoint, run, recorded, run.spec.replay.capacity)
        load = LoadGenerator(server.endpoint, run, actors, recorded)
        try:
            load.connect()
            load.pump(SECONDS)
            load.take_latencies()
            before, rows_before = server.metrics(), load.acked_rows
            rates = [load.pump(SECONDS) for _ in range(REPEATS)]
            rows_after, after = load.acked_rows, server.metrics()
            cpu_s = after["shoal_cpu_seconds_total"] - before["shoal_cpu_seconds_total"]
            return LoadCost(
                statistics.median(rates),
                float(np.percentile(load.take_latencies(), 99)),
                cpu_s / (rows_after - rows_before) * 1e6,
                after["shoal_memory_bytes"] / 2**20,
            )
        finally:
            load.close()


def ring_rows(recorded: Sequence[RecordedChunk], *, full: bool) -> Iterator[BenchRow | BenchProgress]:
    """Yields replay/ring/SIZE: batches per second from a ring of SIZE transitions, against np.take alone."""
    for size in ALL_RINGS if full else RINGS:
        run = make_run(capacity=size)
        gib = size * transition_dtype(run.joint).itemsize / 2**30
        yield BenchProgress(f"replay: a ring of {size:,} transitions, {gib:.1f} GiB")
        try:
            with Processes() as processes:
                server = processes.replay()
                server.open(run)
                fill(server.endpoint, run, recorded, size)
                yield from _sampling_rows(server.endpoint, run, recorded, size)
        except (ShoalError, MemoryError) as e:
            yield BenchProgress(f"skipped the ring of {size:,} transitions: {e}")


def _sampling_rows(endpoint: str, run: Run, recorded: Sequence[RecordedChunk], size: int) -> Iterator[BenchRow]:
    client, baseline = SamplingClient(endpoint, run), TakeBaseline(run, recorded, size)
    try:
        ours, baseline_rate = compare(lambda: rate(client.draw, SECONDS), lambda: rate(baseline.draw, SECONDS), REPEATS)
        yield row(f"replay/ring/{size}", "batches/s", ours, ("np.take in process", baseline_rate))
        ours_ms, baseline_ms = (
            float(np.percentile(times, 99)) * 1e3 for times in (client.round_trips(500), baseline.timed(500))
        )
        yield row(f"replay/ring/{size}/p99", "ms", ours_ms, ("np.take in process", baseline_ms))
    finally:
        client.close()
