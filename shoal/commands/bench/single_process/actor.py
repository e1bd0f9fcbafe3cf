"""A worker's collection loop (world, policy, noise, records) against stepping mpe2 alone, on one core.

The loop does not send: `shoal bench replay` measures the network.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from actor_node.collection.collector import Collector
from actor_node.evaluation.task import reference_world
from common.policy.network import Policy, weight_count
from common.run.run import Run, make_run_spec
from common.wire.weights import WeightsHeader
from common.worlds import make_world, world_spec
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.measurements import BenchRow, compare, rate, row
from shoal.commands.bench.single_process.worlds import stepping

GOAL = 80.0
STEPS = 8


def rows(_config: BenchConfig) -> Iterator[BenchRow]:
    """Yields the rows actor/collect/COPIES, measured on simple_spread."""
    run = Run("bench", make_run_spec({"scenario": "simple_spread"}), world_spec("simple_spread"))
    rng = np.random.default_rng(0)
    flat = (rng.standard_normal(weight_count(run.players, run.spec.network)) * 0.1).astype(np.float32)
    policy = Policy(run.players, run.spec.network, flat)
    weights = WeightsHeader(run="bench", data_hash="", version=1, updates=0, exploration_scale=0.3, random_share=0.0)
    reference = make_world(reference_world("simple_spread"), 1, seed=0, continuous_actions=True)
    baseline = stepping(reference)
    for copies in (32, 256):
        collector = Collector(run, make_world("simple_spread", copies, seed=0), rng)

        def collect(collector: Collector = collector) -> int:
            return len(collector.collect(policy, weights, STEPS)[0])

        value, mpe2 = compare(lambda collect=collect: rate(collect), lambda: rate(baseline))  # type: ignore[misc]
        goal = GOAL if copies == 256 else 0.0
        yield row(f"actor/collect/{copies}", "env steps/s", value, ("mpe2 stepping alone", mpe2), goal)
    reference.close()
