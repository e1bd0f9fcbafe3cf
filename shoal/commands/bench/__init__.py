"""`shoal bench`: measures Shoal's speed, each figure next to a baseline from the same run.

A benchmark is a function that yields result rows and progress messages; BENCHMARKS lists all of them. A figure is the
median of several repeats. Repeats alternate between Shoal and the baseline because the speed of a machine varies over
time: compare ratios, not figures of different runs. Each benchmark runs in a separate single-threaded process.

gpu_learner.py    the learner on a GPU
single_process/   benchmarks of worlds, policies, the collection loop and the update
data_plane/       benchmarks of the replay server and of weights; load generators and baselines
end_to_end.py     a complete run         memory.py         memory and start-up time of actor workers
peers/            other programs         processes.py      the processes that a benchmark starts
cli.py            the command            measurements.py   rates, medians and the rows of the table
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shoal.commands.bench import end_to_end, memory, peers, world_rates
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.data_plane import replay, weights
from shoal.commands.bench.measurements import BenchFailure, BenchProgress, BenchRow
from shoal.commands.bench.single_process import actor, learner, policy, worlds

Benchmark = Callable[[BenchConfig], Iterator[BenchRow | BenchFailure | BenchProgress]]

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

__all__ = ["BENCHMARKS", "BY_NAME_ONLY", "BenchConfig", "BenchFailure", "BenchProgress", "BenchRow"]
