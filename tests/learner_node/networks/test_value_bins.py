"""Critics that learn distributions over values: what the bins mean, and that every algorithm learns with them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.run.normalisation import resolve_normalisation
from common.run.run import Run, make_run_spec
from learner_node.algorithms.maddpg import Maddpg
from learner_node.engine import make_engine
from learner_node.networks.value_bins import BINS, LIMIT, ValueBins, cross_entropy
from learner_node.run_checks.sizes import sizes_of
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records, td_target

DOUBLE = torch.zeros((), dtype=torch.float64)
BINS_64 = ValueBins(DOUBLE)


def engine_of(team: str, critic: str = "mlp", **algorithm: Any) -> Maddpg:
    settings = {
        "network": {"policy_hidden": (4,), "critic_hidden": (8, 5), "critic": critic},
        "algorithm": {"name": "maddpg", "critic_loss": "hl_gauss", **algorithm},
    }
    engine = make_engine(Run("r", make_run_spec({"scenario": "simple_spread"}, settings), TEAMS[team]), DOUBLE)
    assert isinstance(engine, Maddpg)
    return engine


@settings(max_examples=40, deadline=None)
@given(st.floats(-LIMIT, LIMIT))
def test_the_value_of_a_targets_bins_is_the_target(target: float) -> None:
    probabilities = BINS_64.probabilities(torch.tensor(target, dtype=torch.float64))
    assert probabilities.sum().item() == pytest.approx(1.0, abs=1e-12)
    assert BINS_64.values(probabilities.clamp(min=1e-300).log()).item() == pytest.approx(target, rel=5e-4, abs=5e-4)


def test_a_targets_bins_are_a_gaussian_around_it() -> None:
    """Bins are 0.1 wide in symlog; the probability of a bin is the integral of a Gaussian of 0.075 over it."""
    target = 1.0
    middle = math.log(2.0)
    for number, probability in enumerate(BINS_64.probabilities(torch.tensor(target, dtype=torch.float64)).tolist()):
        grid = -5.05 + 0.1 * number + (np.arange(1000) + 0.5) * 1e-4
        density = np.exp(-0.5 * ((grid - middle) / 0.075) ** 2) / (0.075 * math.sqrt(2 * math.pi))
        assert probability == pytest.approx(density.sum() * 1e-4, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.floats(LIMIT, 1e30))
def test_targets_beyond_the_limit_are_clipped(target: float) -> None:
    for sign in (1, -1):
        found, expected = (
            BINS_64.probabilities(torch.tensor(sign * one, dtype=torch.float64)) for one in (target, LIMIT)
        )
        assert torch.equal(found, expected)


def test_cross_entropy_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, BINS, generator=generator, dtype=torch.float64)
    probabilities = torch.rand(6, BINS, generator=generator, dtype=torch.float64).softmax(1)
    expected = torch.nn.functional.cross_entropy(logits, probabilities, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, probabilities), expected)


@pytest.mark.parametrize("critic", ["mlp", "set", "attention"])
def test_values_start_at_zero(critic: str) -> None:
    engine = engine_of("tag", critic, name="matd3")
    rows = as_batch(as_fields(random_records(TEAMS["tag"], 5, 0), torch.float64)).obs_action
    assert engine.first_values(rows).abs().max() < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("team", "critic", "algorithm"),
    [
        ("spread", "set", {"name": "matd3"}),
        ("tag", "mlp", {"name": "adversary=joint,agent=iddpg"}),
        ("tag", "attention", {"name": "matd3", "team_critic": True}),
        ("mixed", "mlp", {"name": "masac"}),
        ("masked", "set", {"name": "maddpg", "teammates": "current", "normalise_rewards": True}),
    ],
    ids=str,
)
def test_values_approach_their_targets(team: str, critic: str, algorithm: dict[str, Any]) -> None:
    """With a discount of 0 the targets are the rewards, which critics fit in a hundred steps on one batch."""
    engine = engine_of(team, critic, discount=0.0, gradient_clip=0.0, **algorithm)
    batch = as_batch(as_fields(random_records(TEAMS[team], 8, 0, absences=True), torch.float64))
    batch = engine.normalise(batch)
    first = engine.update(batch, 0.0, 3e-2, update_policies=True).losses().critic_loss
    for _ in range(100):
        engine.update(batch, 0.0, 3e-2, update_policies=False)
    stats = engine.update(batch, 0.0, 0.0, update_policies=True)
    last = stats.losses().critic_loss
    assert all(after < 0.5 * before for before, after in zip(first, last, strict=True)), (first, last)
    assert stats.abs_td_error.shape == (8,)


def test_the_gradient_of_a_logit_is_the_probability_minus_that_of_the_target() -> None:
    engine = engine_of("alone", discount=0.0)
    batch = as_batch(as_fields(random_records(TEAMS["alone"], 4, 0), torch.float64))
    target = td_target(engine, batch)
    torch.testing.assert_close(target, batch.reward.t())
    logits = engine.critic_outputs(engine.critics.online, engine.critic_inputs(batch.obs_action))
    leaf = logits.detach().requires_grad_()
    weights = engine.mixer.row_weights(batch, engine.mixer.signals(batch))
    probabilities = BINS_64.probabilities(target)
    (gradient,) = torch.autograd.grad(engine.classification_loss(leaf, probabilities, batch, weights), leaf)
    torch.testing.assert_close(gradient, (leaf.detach().softmax(2) - probabilities) / 4)


def test_a_new_run_normalises_rewards_so_that_returns_fit_the_bins() -> None:
    spec = make_run_spec({"scenario": "simple_spread", "algorithm": {"critic_loss": "hl_gauss"}})
    found = resolve_normalisation(spec).algorithm
    assert (found.normalise_observations, found.normalise_rewards) == (False, True)


def test_sizes_count_the_bins_and_the_engine_is_autograd() -> None:
    engine = engine_of("tag", name="matd3")
    algorithm = {"name": "matd3", "critic_loss": "hl_gauss"}
    settings = {"network": {"policy_hidden": (4,), "critic_hidden": (8, 5)}, "algorithm": algorithm}
    sizes = sizes_of(make_run_spec({"scenario": "simple_tag"}, settings), TEAMS["tag"])
    assert sizes.critic_parameters == sum(map(len, engine.critics.parameters)) == 4 * (83 * 8 + 9 * 5 + 6 * 101)
    assert "algorithm.critic_loss=hl_gauss" in sizes.engine.line


def test_critics_of_the_users_own_are_refused() -> None:
    layer = {"network": {"critic": "a:B"}, "algorithm": {"critic_loss": "hl_gauss"}}
    with pytest.raises(ConfigError, match="critics of your own return one value"):
        make_run_spec({"scenario": "simple_spread"}, layer)
