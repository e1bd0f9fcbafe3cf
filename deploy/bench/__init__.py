"""`shoal bench`: what Shoal's speed is, each figure with its baseline measured in the same run.

A benchmark is a function that yields rows and one row of the table below. Figures are medians of several repeats, ours
and the baseline's in turn, because machines have slow spells; compare ratios, not figures of different runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deploy.bench import actor, learner, memory, worlds
from deploy.bench.rows import Row

BENCHMARKS: dict[str, Callable[[], Iterator[Row]]] = {
    "worlds": worlds.rows,
    "actor": actor.rows,
    "learner": learner.rows,
    "memory": memory.rows,
}

__all__ = ["BENCHMARKS", "Row"]
