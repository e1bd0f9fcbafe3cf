"""A worker's collection loop (world, policy, noise, records) against stepping the environment alone, on one core.

The loop does not send: `shoal bench replay` measures the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from actor_node.collection.collector import Collector
from actor_node.evaluation.task import reference_world
from common.policy.network import Policy, weight_count
from common.run.run import Run, make_run_spec
from common.wire.weights import WeightsHeader
from common.worlds import World, make_world
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.measurements import BenchRow, compare, rate, row
from shoal.commands.bench.single_process.busy_env import BusyEnv
from shoal.commands.bench.single_process.worlds import stepping

GOAL = 80.0
STEPS = 8
ADAPTER_COPIES = 8
ADAPTER_GOALS = {50: 0.5, 1_000: 0.9}
"""Duration of an environment's step [us] -> goal: the rate of collection as a fraction of the environment's rate."""


def rows(_config: BenchConfig) -> Iterator[BenchRow]:
    """Yields actor/collect/COPIES, measured on simple_spread, and actor/adapter/DURATION for PettingZoo's adapter."""
    reference = make_world(reference_world("simple_spread"), 1, seed=0, continuous_actions=True)
    baseline = stepping(reference)
    for copies in (32, 256):
        collect = collecting(make_world("simple_spread", copies, seed=0))
        value, mpe2 = compare(lambda collect=collect: rate(collect), lambda: rate(baseline))  # type: ignore[misc]
        goal = GOAL if copies == 256 else 0.0
        yield row(f"actor/collect/{copies}", "env steps/s", value, ("mpe2 stepping alone", mpe2), goal)
    reference.close()
    for step_us, goal in ADAPTER_GOALS.items():
        yield _adapter_row(step_us, goal)


def collecting(world: World, options: dict[str, Any] | None = None) -> Callable[[], int]:
    """Returns a function that collects STEPS steps of every copy with a random policy and returns their number."""
    run = Run("bench", make_run_spec({"scenario": world.name, "world": options or {}}), world.spec)
    rng = np.random.default_rng(0)
    flat = (rng.standard_normal(weight_count(run.players, run.spec.network)) * 0.1).astype(np.float32)
    policy = Policy(run.players, run.spec.network, flat)
    weights = WeightsHeader(run="bench", data_hash="", version=1, updates=0, exploration_scale=0.3, random_share=0.0)
    collector = Collector(run, world, rng)
    return lambda: len(collector.collect(policy, weights, STEPS)[0])


def _adapter_row(step_us: int, goal: float) -> BenchRow:
    world = make_world(f"pettingzoo:{BusyEnv.__module__}.BusyEnv", ADAPTER_COPIES, seed=0, options={"step_us": step_us})
    collect, loop = collecting(world, {"step_us": step_us}), _env_loop(BusyEnv(step_us))
    value, alone = compare(lambda: rate(collect), lambda: rate(loop))
    world.close()
    return row(f"actor/adapter/{step_us}us", "env steps/s", value, ("the environment alone", alone), goal)


def _env_loop(env: BusyEnv) -> Callable[[], int]:
    """Returns a function that steps one environment as a loop without Shoal does, and returns 1."""
    actions = {agent: np.zeros(env.action_space(agent).shape or 0) for agent in env.possible_agents}

    def step() -> int:
        if not env.agents:
            env.reset()
        env.step(actions)
        return 1

    return step
