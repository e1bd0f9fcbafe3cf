"""Action masks in the update: gradients by finite differences, and what forbidden choices receive."""

from __future__ import annotations

import numpy as np
import torch

from common.policy.network import Policy
from common.run.run import AlgorithmSpec, NetworkSpec
from learner_node.algorithms.actions import greedy_action
from learner_node.algorithms.maddpg import Maddpg, Minibatch, Noise
from learner_node.stacked.update import StackedUpdate
from tests.learner_node.teams import TEAMS, as_fields, random_records

JOINT = TEAMS["masked"]
NETWORK = NetworkSpec(policy_hidden=(6,), critic_hidden=(8,), share_policies=False, share_critics=False)
ALGORITHM = AlgorithmSpec(name="maddpg", gumbel="soft", action_regularisation=0.1, gradient_clip=0.0)
ROWS = 24
DOUBLE = torch.zeros((), dtype=torch.float64)


def minibatch(**changed: torch.Tensor) -> Minibatch:
    return Minibatch(**{**as_fields(random_records(JOINT, ROWS, 1), torch.float64), **changed})


def noise() -> Noise:
    generator = torch.Generator().manual_seed(5)
    drawn = [torch.rand(ROWS, JOINT.action_dim, generator=generator, dtype=torch.float64) for _ in range(2)]
    return Noise(drawn[0], -torch.log(-torch.log(drawn[1])))


def test_policy_gradients_under_masks_equal_finite_differences() -> None:
    torch.manual_seed(0)
    plain = Maddpg(JOINT, NETWORK, ALGORITHM, torch.float64)
    batch, gumbel = minibatch(), noise().gumbel
    signals = plain.signals(batch)

    def loss() -> torch.Tensor:
        return torch.stack(plain.policy_losses(batch, signals, gumbel)).sum()

    loss().backward()  # type: ignore[no-untyped-call]
    for network in plain.policy_networks:
        for parameter in network.parameters():
            flat, gradient = parameter.data.view(-1), parameter.grad
            assert gradient is not None
            at, step = int(gradient.abs().argmax()), 1e-6
            flat[at] += step
            above = loss().item()
            flat[at] -= 2 * step
            below = loss().item()
            flat[at] += step
            np.testing.assert_allclose((above - below) / (2 * step), gradient.view(-1)[at], rtol=1e-5, atol=1e-9)


def test_a_choice_that_is_never_allowed_gets_no_gradient_and_is_never_a_target() -> None:
    batch = minibatch()
    seen, numbers = JOINT.mask_columns[0]
    batch.obs[:, seen] = batch.next_obs[:, seen] = 0.0
    batch.obs[:, seen + 1] = batch.next_obs[:, seen + 1] = 1.0
    torch.manual_seed(0)
    plain = Maddpg(JOINT, NETWORK, ALGORITHM, torch.float64)
    torch.stack(plain.policy_losses(batch, plain.signals(batch), noise().gumbel)).sum().backward()  # type: ignore[no-untyped-call]
    last = plain.policy_networks[0].biases[-1].grad
    assert last is not None
    assert last[numbers] == 0.0
    assert (last[numbers + 1 :].abs() > 0.0).all()
    player = plain.players.agents[0]
    action = greedy_action(player, plain.logits(plain.target_policies, 0, batch.next_obs))
    assert (action[:, numbers] == 0.0).all()


def test_the_engine_and_numpy_policies_lower_the_same_logits() -> None:
    engine = StackedUpdate(JOINT, NETWORK, ALGORITHM, 3, torch.zeros(()))
    obs = random_records(JOINT, ROWS, 1)["obs"]
    ours = engine.logits(torch.from_numpy(obs.copy())).numpy()
    others = Policy(engine.players, NETWORK, engine.policy_weights()).logits(obs)
    np.testing.assert_allclose(ours, others, rtol=1e-5, atol=1e-5)
    is_forbidden = np.zeros_like(obs, bool, shape=ours.shape)
    seen, numbers = np.array(JOINT.mask_columns).T
    is_forbidden[:, numbers] = obs[:, seen] == 0.0
    np.testing.assert_array_equal(ours < -1e8, is_forbidden)
