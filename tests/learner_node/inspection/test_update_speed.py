"""What the speeds compare is the same work."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from learner_node.inspection import update_speed as speed
from learner_node.stacked.update import StackedUpdate


def pieces(networks: Sequence[nn.Module]) -> list[Tensor]:
    """Returns torch modules' parameters in the order that checkpoints keep."""
    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, nn.Linear)]
    return [piece for layer in layers for piece in (layer.weight.data.t(), layer.bias.data)]


def test_the_plain_loop_makes_the_same_update() -> None:
    # Adam divides by a gradient: where that is nearly 0, rounding moves a weight (one batch in sixty).
    torch.manual_seed(0)
    joint, network, algorithm = speed.simple_spread_shapes(), speed.NETWORK, speed.ALGORITHM
    batch = speed.random_batch(joint, 64)
    stacked, loop = (
        StackedUpdate(speed.run_of(network, algorithm), batch.obs_action),
        speed.PerAgentLoop(joint, network, algorithm),
    )
    kinds = (stacked.policies, loop.policies, loop._targets[0]), (stacked.critics, loop.critics, loop._targets[1])
    for trained, *copies in kinds:
        for networks in copies:
            own = pieces(networks)
            flat = torch.split(trained.tensors()["online"], [piece.numel() for piece in own])
            for piece, numbers in zip(own, flat, strict=True):
                piece.copy_(numbers.view(piece.shape))
    for _ in range(3):
        stacked.update(batch, algorithm.policy_learning_rate, algorithm.critic_learning_rate)
        loop.update(batch)
    for trained, networks, _ in kinds:
        flat = torch.cat([piece.flatten() for piece in pieces(networks)])
        torch.testing.assert_close(trained.tensors()["online"], flat, rtol=0, atol=2e-4)


def test_needed_arithmetic_of_the_defaults_is_what_the_goals_count() -> None:
    """The sum over all products, by hand: 193,152 multiplications a row."""
    count = speed.update_flop(speed.simple_spread_shapes(), speed.NETWORK, 1024)
    assert count == pytest.approx(0.3956e9, rel=1e-3)


def test_threads_are_measured_in_turn_and_left_at_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "ROUNDS", 2)
    told: list[int] = []
    monkeypatch.setattr(speed.torch, "set_num_threads", told.append)
    one, two = speed.seconds_by_threads((1, 2), rows=32)
    assert min(one, two) > 0
    assert told == [1, 1, 2, 2, 1, 1, 2, 2, 1]


def test_speeds_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "ROUNDS", 3)
    (measured,) = speed.speeds((32,))
    assert measured.rows == 32
    assert min(measured[1:]) > 0


def test_both_engines_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "ROUNDS", 3)
    measured = list(speed.engine_speeds((32,)))
    assert [(one.networks, one.rows) for one in measured] == [("update", 32), ("defaults", 32)]
    assert min(min(one.autograd_s, one.stacked_s) for one in measured) > 0


def test_products_alone_are_the_updates_products() -> None:
    a, b, out = torch.randn(8, 4), torch.randn(4, 2), torch.empty(8, 2)
    with speed.Products() as products:
        torch.mm(a, b, out=out).add_(1.0)
    products.replay()
    torch.testing.assert_close(out, a @ b)
