"""What the speeds compare is the same work."""

from __future__ import annotations

import pytest
import torch

from common.run import AlgorithmSpec, NetworkSpec
from learner_node import speed
from learner_node.algorithms.maddpg import Maddpg
from learner_node.networks import critic_order, policy_order

from .test_maddpg import flatten, load


def test_the_plain_loop_makes_the_same_update() -> None:
    joint, network, algorithm = speed.simple_spread_shapes(), NetworkSpec(), AlgorithmSpec()
    batch = speed.random_batch(joint, 64)
    stacked, loop = Maddpg(joint, network, algorithm, 0, batch.joint), speed.PlainLoop(joint, network, algorithm)
    orders = policy_order(joint, network), critic_order(69, 3, network.critic_hidden)
    for networks, trained, order in zip(
        ((loop.policies, loop._targets[0]), (loop.critics, loop._targets[1])),
        (stacked.policies, stacked.critics),
        orders,
        strict=True,
    ):
        for copies in networks:
            load(copies, trained.flat[order])
    for _ in range(3):
        stacked.update(batch, algorithm.policy_learning_rate, algorithm.critic_learning_rate)
        loop.update(batch)
    torch.testing.assert_close(stacked.policies.flat[orders[0]], flatten(loop.policies), rtol=0, atol=2e-4)
    torch.testing.assert_close(stacked.critics.flat[orders[1]], flatten(loop.critics), rtol=0, atol=2e-4)


def test_needed_arithmetic_of_the_defaults_is_what_the_goals_count() -> None:
    """The sum over all products, by hand: 193,152 multiplications a row."""
    count = speed.needed_flop(speed.simple_spread_shapes(), NetworkSpec(), 1024)
    assert count == pytest.approx(0.3956e9, rel=1e-3)


def test_speeds_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "ROUNDS", 3)
    (measured,) = speed.speeds((32,))
    assert measured.rows == 32
    assert min(measured[1:]) > 0
