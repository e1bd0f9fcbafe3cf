"""One Adam over flat parameters takes the steps of torch's optimisers."""

from __future__ import annotations

import pytest
import torch

from learner_node.update.optimiser import Adam, WeightDecay


@pytest.mark.parametrize("decay", [WeightDecay(0.0), WeightDecay(0.1), WeightDecay(0.1, decoupled=True)], ids=str)
def test_steps_are_those_of_torch(decay: WeightDecay) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(7, generator=generator, dtype=torch.float64)
    found, expected = start.clone(), torch.nn.Parameter(start.clone())
    kind = torch.optim.AdamW if decay.decoupled else torch.optim.Adam
    reference = kind([expected], lr=3e-2, weight_decay=decay.rate)
    adam = Adam(found, decay, None)
    adam.learning_rate.fill_(3e-2)
    for _ in range(5):
        gradient = torch.randn(7, generator=generator, dtype=torch.float64)
        adam.step(found, gradient.clone())
        expected.grad = gradient
        reference.step()
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-8)


def test_decoupled_decay_alone_shrinks_weights_by_rate_times_learning_rate() -> None:
    weights = torch.full((3,), 2.0, dtype=torch.float64)
    adam = Adam(weights, WeightDecay(0.1, decoupled=True), None)
    adam.learning_rate.fill_(0.5)
    for _ in range(2):
        adam.step(weights, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(weights, torch.full((3,), 2.0 * 0.95**2, dtype=torch.float64))


def test_a_relative_rate_scales_step_and_decay() -> None:
    weights = torch.full((2,), 2.0, dtype=torch.float64)
    adam = Adam(weights, WeightDecay(0.1, decoupled=True), torch.tensor([1.0, 0.5], dtype=torch.float64))
    adam.learning_rate.fill_(0.5)
    adam.step(weights, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(weights, torch.tensor([1.9, 1.95], dtype=torch.float64))
