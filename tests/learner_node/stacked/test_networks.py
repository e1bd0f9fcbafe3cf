"""The stacked networks hold what the actors' numpy policies and the checkpoints say they hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.policy.network import Policy, unflatten
from common.run.run import AlgorithmSpec, NetworkSpec
from learner_node.stacked.update import StackedUpdate
from tests.learner_node.teams import TEAMS, run_for

NETWORK = NetworkSpec(policy_hidden=(64, 64), critic_hidden=(64, 64), share_policies=False, share_critics=False)
SINGLE = torch.zeros(())


@pytest.mark.parametrize("team", TEAMS)
def test_numpy_policy_equals_torch_policy(team: str) -> None:
    joint = TEAMS[team]
    learner = StackedUpdate(run_for(joint, NETWORK, AlgorithmSpec(name="matd3"), seed=5), SINGLE)
    obs = np.random.default_rng(0).normal(size=(256, joint.obs_dim)).astype(np.float32)
    policy = Policy(learner.players, NETWORK, learner.policy_weights())
    logits = learner.logits(torch.from_numpy(obs))
    scale = np.abs(policy.logits(obs)).max()
    np.testing.assert_allclose(logits.numpy(), policy.logits(obs), rtol=1e-6, atol=1e-6 * scale)
    actions = learner.heads.greedy(logits).numpy()
    # Where two choices are as good as equal, the last bit decides: no choice in 256 rows is that close.
    np.testing.assert_allclose(actions, policy.act(obs), rtol=1e-6, atol=1e-6 * np.abs(actions).max())


@pytest.mark.parametrize("team", TEAMS)
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_what_is_kept_of_networks_names_every_parameter_once(team: str, shared: bool) -> None:
    network = NetworkSpec(share_policies=shared, share_critics=shared)
    learner = StackedUpdate(run_for(TEAMS[team], network, AlgorithmSpec(name="matd3"), seed=5), SINGLE)
    for trained in (learner.policies, learner.critics):
        assert sorted(trained.shared_index.tolist()) == list(range(len(trained.shared)))
    if not shared:
        assert len(learner.policies.shared) == len(learner.policy_weights())


@pytest.mark.parametrize("team", ["tag", "mixed"])
def test_one_step_of_one_agent_moves_all_that_share_with_it(team: str) -> None:
    network = NetworkSpec(share_policies=True)
    learner = StackedUpdate(run_for(TEAMS[team], network, AlgorithmSpec(name="matd3"), seed=5), SINGLE)
    learner.policies.shared.add_(torch.randn_like(learner.policies.shared))
    learner.policies.step()
    policies = [(*one.hidden, one.last) for one in unflatten(learner.policy_weights(), learner.players, network)]
    mates = {"tag": (0, 1, 2), "mixed": (1, 2)}[team]
    for layers in zip(*(policies[i] for i in mates), strict=True):
        assert all(np.array_equal(layers[0].weight, layer.weight) for layer in layers)


def test_an_agents_start_depends_on_seed_and_place_alone() -> None:
    few, many = TEAMS["speaker_listener"], TEAMS["spread"]
    learners = [
        StackedUpdate(run_for(team, NETWORK, AlgorithmSpec(name="matd3"), seed=7), SINGLE) for team in (many, many, few)
    ]
    first, again, other = (unflatten(one.policy_weights(), one.players, NETWORK) for one in learners)
    np.testing.assert_array_equal(first[0].hidden[1].weight, again[0].hidden[1].weight)
    assert not np.array_equal(first[0].hidden[1].weight, first[1].hidden[1].weight)
    assert other[0].first.weight.shape == (3, 64)
