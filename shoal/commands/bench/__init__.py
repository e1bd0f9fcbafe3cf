"""`shoal bench`: what Shoal's speed is, each figure with its baseline measured in the same run.

A benchmark is a function that yields rows, and what it is doing meanwhile, and one row of the table below. Figures are
medians of several repeats, ours and the baseline's in turn, because machines have slow spells; compare ratios, not
figures of different runs. Each benchmark runs in a process of its own, of one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shoal.commands.bench import actor, end_to_end, learner, memory, peers, policy, replay, weights, worlds
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.rows import BenchProgress, BenchRow

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
}
BY_NAME_ONLY = ("peers",)
"""Not part of what runs without an argument: it downloads gigabytes."""

__all__ = ["BENCHMARKS", "BY_NAME_ONLY", "BenchConfig", "BenchProgress", "BenchRow"]
