"""Joint actions per second of the numpy policies against the same policies in torch, on one thread."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from common.policy.heads import Floats
from common.policy.network import Policy, weight_count
from common.run.players import players
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.measurements import BenchProgress, BenchRow, compare, rate, row

COPIES = (32, 256, 1024)
GOAL_AT, GOAL = 256, 1.0


def rows(_config: BenchConfig) -> Iterator[BenchRow | BenchProgress]:
    """Yields policy/COPIES: three agents with 64-64 networks and the shapes of simple_spread."""
    # Only the baseline needs torch; actors do not.
    from learner_node.inspection.update_speed import NETWORK, policy_in_torch, simple_spread_shapes  # noqa: PLC0415

    team, rng = players(simple_spread_shapes(), "maddpg"), np.random.default_rng(0)
    flat = (rng.standard_normal(weight_count(team, NETWORK)) * 0.1).astype(np.float32)
    policy, torch_policy = Policy(team, NETWORK, flat), policy_in_torch(team, NETWORK, flat)
    for copies in COPIES:
        yield BenchProgress(f"policies of {copies} copies")
        obs = rng.standard_normal((copies, team.obs_dim)).astype(np.float32)

        def act(obs: Floats = obs) -> int:
            return len(policy.act(obs))

        def act_in_torch(obs: Floats = obs) -> int:
            return len(torch_policy(obs))

        value, baseline = compare(lambda act=act: rate(act), lambda act=act_in_torch: rate(act))  # type: ignore[misc]
        yield row(f"policy/{copies}", "joint actions/s", value, ("torch", baseline), GOAL if copies == GOAL_AT else 0.0)
