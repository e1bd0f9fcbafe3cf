"""Tests of the policies in torch, which are a baseline."""

from __future__ import annotations

import numpy as np

from common.policy.network import Policy
from common.run.players import players
from learner_node.inspection.update_speed import NETWORK, policy_in_torch, simple_spread_shapes


def test_the_policies_in_torch_are_the_same_policies() -> None:
    team, rng = players(simple_spread_shapes(), "maddpg"), np.random.default_rng(0)
    flat = (rng.standard_normal(3 * ((18 + 1) * 64 + (64 + 1) * 64 + (64 + 1) * 5)) * 0.1).astype(np.float32)
    obs = rng.standard_normal((5, 54)).astype(np.float32)
    np.testing.assert_allclose(policy_in_torch(team, NETWORK, flat)(obs), Policy(team, NETWORK, flat).act(obs), 1e-5)
