"""The stacked networks hold what the actors' numpy policies and the checkpoints say they hold."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from common.policy import Policy, unflatten, weight_count
from common.run import AlgorithmSpec, NetworkSpec
from learner_node.algorithms.maddpg import Maddpg
from learner_node.networks import cohorts, critic_order, critic_size, policy_order, policy_size
from learner_node.passes import PolicyPass

from .teams import TEAMS

NETWORK = NetworkSpec()
SINGLE = torch.zeros(())


@pytest.mark.parametrize("team", TEAMS)
def test_numpy_policy_equals_torch_policy(team: str) -> None:
    joint = TEAMS[team]
    learner = Maddpg(joint, NETWORK, AlgorithmSpec(), 5, SINGLE)
    obs = np.random.default_rng(0).normal(size=(256, joint.obs_dim)).astype(np.float32)
    policy = Policy(joint, NETWORK, learner.policy_weights())
    logits = learner.logits(torch.from_numpy(obs))
    scale = np.abs(policy.logits(obs)).max()
    np.testing.assert_allclose(logits.numpy(), policy.logits(obs), rtol=1e-6, atol=1e-6 * scale)
    actions = learner.heads.greedy(logits).numpy()
    # Where two choices are as good as equal, the last bit decides: no choice in 256 rows is that close.
    np.testing.assert_allclose(actions, policy.act(obs), rtol=1e-6, atol=1e-6 * np.abs(actions).max())


@pytest.mark.parametrize("team", TEAMS)
def test_orders_name_every_parameter_once(team: str) -> None:
    joint = TEAMS[team]
    assert policy_size(joint, NETWORK) == weight_count(joint, NETWORK)
    assert sorted(policy_order(joint, NETWORK).tolist()) == list(range(policy_size(joint, NETWORK)))
    sizes = 11, 3, (7, 5)
    assert sorted(critic_order(*sizes).tolist()) == list(range(critic_size(*sizes)))


def test_policy_weights_go_back_where_they_came_from() -> None:
    joint = TEAMS["mixed"]
    learner, other = (Maddpg(joint, NETWORK, AlgorithmSpec(), seed, SINGLE) for seed in (1, 2))
    other.load_policy_weights(learner.policy_weights())
    assert torch.equal(learner.policies.flat, other.policies.flat)


def test_an_agents_start_depends_on_seed_and_place_alone() -> None:
    few, many = TEAMS["speaker_listener"], TEAMS["spread"]
    first = unflatten(Maddpg(many, NETWORK, AlgorithmSpec(), 7, SINGLE).policy_weights(), many, NETWORK)
    again = unflatten(Maddpg(many, NETWORK, AlgorithmSpec(), 7, SINGLE).policy_weights(), many, NETWORK)
    other = unflatten(Maddpg(few, NETWORK, AlgorithmSpec(), 7, SINGLE).policy_weights(), few, NETWORK)
    np.testing.assert_array_equal(first[0][1].weight, again[0][1].weight)
    assert not np.array_equal(first[0][1].weight, first[1][1].weight)
    assert other[0][0].weight.shape == (3, 64)


@pytest.mark.parametrize("team", ["tag", "mixed"])
def test_passes_equal_autograd(team: str) -> None:
    """The policies' gradients written by hand are those of autograd over numpy's layout."""
    joint, rows = TEAMS[team], 9
    learner = Maddpg(joint, NETWORK, AlgorithmSpec(), 5, torch.zeros((), dtype=torch.float64))
    obs, d_logits = (torch.randn(rows, n, dtype=torch.float64) for n in (joint.obs_dim, joint.action_dim))
    passes = PolicyPass(cohorts(joint), NETWORK.policy_hidden, rows, obs)
    passes.forward(learner.policies.online, obs)
    passes.backward(learner.policies.online, learner.policies.gradient, obs, d_logits)
    order = policy_order(joint, NETWORK)
    flat = learner.policies.flat[order].requires_grad_()
    logits, at = [], 0
    for agent in joint.agents:
        x = obs[:, agent.obs_slice]
        sizes = [agent.obs_dim, *NETWORK.policy_hidden, agent.action_dim]
        for depth, (i, o) in enumerate(pairwise(sizes)):
            weight, bias = flat[at : at + i * o].view(i, o), flat[at + i * o : at + (i + 1) * o]
            at += (i + 1) * o
            x = x @ weight + bias
            x = torch.relu(x) if depth < len(sizes) - 2 else x
        logits.append(x)
    (torch.cat(logits, 1) * d_logits).sum().backward()
    torch.testing.assert_close(learner.policies.gradient_flat[order], flat.grad, rtol=1e-10, atol=1e-12)
