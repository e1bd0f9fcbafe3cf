"""`shoal bench`: measures Shoal's speed, each figure next to a baseline from the same run.

A benchmark is a function that yields result rows and progress messages, and one row of the table below. A figure is the
median of several repeats. Repeats alternate between Shoal and the baseline because the speed of a machine varies over
time: compare ratios, not figures of different runs. Each benchmark runs in a separate single-threaded process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shoal.commands.bench import actor, end_to_end, learner, memory, peers, policy, replay, weights, world_rates, worlds
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.measurements import BenchProgress, BenchRow

Benchmark = Callable[[BenchConfig], Iterator[BenchRow | BenchProgress]]

BENCHMARKS: dict[str, Benchmark] = {
    "worlds": worlds.rows,
    "policy": policy.rows,
    "actor": actor.rows,
    "learner": learner.rows,
    "replay": replay.rows,
    "weights": weights.rows,
    "memory": memory.rows,
    "end-to-end": end_to_end.rows,
    "peers": peers.rows,
    "world": world_rates.rows,
}
BY_NAME_ONLY = ("peers", "world")
"""Benchmarks that run only if named: peers downloads gigabytes, and world needs the name of a world."""

__all__ = ["BENCHMARKS", "BY_NAME_ONLY", "BenchConfig", "BenchProgress", "BenchRow"]
