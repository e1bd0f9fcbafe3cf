"""The heads of both engines equal the actors', and the gradients written by hand equal autograd's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from actor_node.collection.exploration import Exploration
from common.errors import ConfigError
from common.policy.heads import GreedyHeads, ranges
from common.run.run import ExplorationSpec
from common.spec import Box, Categorical, joint_spec
from learner_node.algorithms.actions import Actions
from learner_node.stacked.heads import Heads
from learner_node.update.draws import gumbel_noise
from tests.common.head_examples import HEAD_TEAMS, MOVERS, THRUST, UNEVEN_PAIR, logits_of
from tests.learner_node.teams import TEAMS

ROWS = 40
SINGLE, DOUBLE = torch.zeros(()), torch.zeros((), dtype=torch.float64)
ALL_TEAMS = {**HEAD_TEAMS, **{f"box {name}": (joint, "box") for name, joint in TEAMS.items()}}
EVERY_TEAM = pytest.mark.parametrize("team", ALL_TEAMS)
EVERY_SIZE = pytest.mark.parametrize("size", [0.0, 1e-12, 1e-5, 1e-3, 1.0, 15.0])


def doubles(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def noise_for(heads: Heads, seed: int = 0) -> Tensor:
    """Returns Gumbel noise as the heads take it `[B, choices]`."""
    return gumbel_noise(ROWS, heads.gumbel_dim, DOUBLE, torch.Generator().manual_seed(seed))


# ---- forward ------------------------------------------------------------------------------------------------------


@EVERY_TEAM
@pytest.mark.parametrize("size", [1e-20, 1e-3, 1.0, 20.0])
def test_torch_heads_equal_numpy_heads(team: str, size: float) -> None:
    joint, head = ALL_TEAMS[team]
    logits = logits_of(joint, 300, size)
    expected = GreedyHeads(joint, head)(logits)
    for heads in (Heads(joint, SINGLE, head=head), Actions(joint, SINGLE, head=head)):
        actions = heads.greedy(torch.from_numpy(logits))
        assert actions.dtype == torch.float32
        np.testing.assert_allclose(actions.numpy(), expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@EVERY_TEAM
@EVERY_SIZE
def test_actions_without_exploration_are_the_same_in_both_engines(team: str, size: float) -> None:
    joint, head = ALL_TEAMS[team]
    logits = doubles(ROWS, joint.action_dim) * size
    expected = Actions(joint, DOUBLE, head=head).greedy(logits)
    torch.testing.assert_close(Heads(joint, DOUBLE, head=head).greedy(logits), expected, rtol=1e-12, atol=1e-14)


@EVERY_TEAM
def test_actions_are_the_same_whatever_the_logits_memory(team: str) -> None:
    """The logits may be columns of something wider, or lie along the batch: but for rounding it is the same."""
    joint, head = ALL_TEAMS[team]
    logits = doubles(ROWS, joint.action_dim)
    wider = doubles(ROWS, joint.action_dim + 3)
    wider[:, 2:-1] = logits
    heads = Heads(joint, DOUBLE, head=head)
    for other in (wider[:, 2:-1], logits.t().contiguous().t()):
        torch.testing.assert_close(heads.greedy(other), heads.greedy(logits), rtol=1e-14, atol=1e-15)
    assert heads.greedy(logits[:0]).shape == (0, joint.action_dim)


@EVERY_TEAM
def test_nothing_is_changed_in_place(team: str) -> None:
    joint, head = ALL_TEAMS[team]
    heads, logits, d_actions = Heads(joint, DOUBLE, head=head), *(doubles(ROWS, joint.action_dim) for _ in range(2))
    noise = noise_for(heads)
    before = [values.clone() for values in (logits, d_actions, noise)]
    heads.greedy(logits)
    heads.backward(heads.sample(logits, noise), d_actions)
    assert all(map(torch.equal, (logits, d_actions, noise), before))


def test_a_choice_is_the_first_of_equals() -> None:
    joint = joint_spec([("a", "t", 1, (Categorical(3), Categorical(3)))])
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0, 1.0, 1.0]])
    heads = Heads(joint, SINGLE)
    assert heads.greedy(logits).tolist() == [[0.0, 1.0, 0.0, 1.0, 0.0, 0.0]]
    assert heads.sample(logits, None).actions.tolist() == [[0.0, 1.0, 0.0, 1.0, 0.0, 0.0]]


# ---- the policy loss: actions and gradients ----------------------------------------------------------------------


@EVERY_TEAM
@EVERY_SIZE
@pytest.mark.parametrize(("gumbel", "temperature"), [("straight_through", 1.0), ("soft", 0.7)])
def test_samples_and_gradients_by_hand_equal_autograds(team: str, size: float, gumbel: str, temperature: float) -> None:
    joint, head = ALL_TEAMS[team]
    heads = Heads(joint, DOUBLE, gumbel, temperature, head)  # type: ignore[arg-type]
    logits = (doubles(ROWS, joint.action_dim) * size).requires_grad_()
    noise = noise_for(heads)
    expected = Actions(joint, DOUBLE, gumbel, temperature, head).differentiable(logits, noise)  # type: ignore[arg-type]
    d_actions = doubles(ROWS, joint.action_dim, seed=1)
    (d_logits,) = torch.autograd.grad(expected, logits, d_actions)
    with torch.inference_mode():
        sample = heads.sample(logits.detach(), noise)
        torch.testing.assert_close(sample.actions, expected.detach(), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(heads.backward(sample, d_actions), d_logits, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("part", [THRUST, UNEVEN_PAIR], ids=["thrust", "force"])
@pytest.mark.parametrize("like", [SINGLE, DOUBLE], ids=["float32", "float64"])
def test_gradients_of_a_force_are_finite_and_continuous_at_zero(part: Box, like: Tensor) -> None:
    joint = joint_spec([("a", "t", 1, (part,))])
    heads = Heads(joint, like, head="force")
    lengths = [0.0, 1e-45, 1e-38, 1e-30, 1e-12, 1e-6, 1e-4]
    logits = torch.zeros(len(lengths), part.size).to(like)
    logits[:, -1] = torch.tensor(lengths).to(like)
    gradients = heads.backward(heads.sample(logits, None), torch.arange(1.0, part.size + 1).to(like).repeat(7, 1))
    assert gradients.isfinite().all()
    torch.testing.assert_close(gradients, gradients[:1].expand_as(gradients), rtol=1e-6, atol=0.0)
    assert (gradients[0] != 0.0).sum() == (4 if part is THRUST else 2)


def test_a_force_turns_even_where_it_cannot_grow() -> None:
    joint = joint_spec([("a", "t", 1, (Box((-1.0, -1.0), (1.0, 1.0)),))])
    heads = Heads(joint, DOUBLE, head="force")
    sample = heads.sample(torch.tensor([[50.0, 0.0]], dtype=torch.float64), None)
    gradient = heads.backward(sample, torch.ones(1, 2, dtype=torch.float64))
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 1 / 50]], dtype=torch.float64))


@pytest.mark.parametrize("team", ["soft", "choices"])
def test_the_policy_loss_draws_what_exploring_actors_execute(team: str) -> None:
    """Same logits, two programs, two random streams: the same distribution of actions."""
    joint, head = HEAD_TEAMS[team]
    rows = 20_000
    logits = np.tile(logits_of(joint, 2)[:1], (rows, 1))
    executed = Exploration(joint, ExplorationSpec(), rows, np.random.default_rng(0), head).act(logits, 0.3, 0.0)
    heads = Heads(joint, SINGLE, head=head)
    noise = gumbel_noise(rows, heads.gumbel_dim, SINGLE, torch.Generator().manual_seed(0))
    noisy = torch.from_numpy(logits.copy())
    heads.add_gumbel(noisy, noise)
    in_targets = Actions(joint, SINGLE, head=head).with_gumbel(torch.from_numpy(logits), noise)
    torch.testing.assert_close(noisy, in_targets)
    for drawn in (heads.sample(torch.from_numpy(logits), noise).actions.numpy(), heads.greedy(noisy).numpy()):
        sigma = (executed.var(axis=0) * 2 / rows) ** 0.5
        assert (np.abs(drawn.mean(axis=0) - executed.mean(axis=0)) < 5 * sigma).all()
        np.testing.assert_allclose(drawn.std(axis=0), executed.std(axis=0), rtol=0.05)


# ---- noise --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("like", [SINGLE, DOUBLE], ids=["float32", "float64"])
def test_gumbel_noise_has_gumbels_distribution(like: Tensor) -> None:
    noise = gumbel_noise(100_000, 4, like, torch.Generator().manual_seed(0))
    assert noise.dtype == like.dtype
    assert noise.isfinite().all()
    for x in (-1.0, 0.0, 1.0, 3.0, 6.0):
        p = float(np.exp(-np.exp(-x)))
        assert float((noise <= x).double().mean()) == pytest.approx(p, abs=5 * (p * (1 - p) / 400_000) ** 0.5)


def test_gumbel_noise_is_finite_at_both_ends_of_what_is_drawn() -> None:
    """What is drawn lies between 1e-30 and the largest float below 1."""
    ends = torch.tensor([1e-30, float(np.nextafter(np.float32(1), np.float32(0)))])
    assert ends.log().neg().log().neg().isfinite().all()


@pytest.mark.parametrize(("team", "choices"), [("box movers", 0), ("soft movers", 15), ("force", 5), ("soft", 24)])
def test_the_heads_say_how_many_gumbel_numbers_they_take(team: str, choices: int) -> None:
    joint, head = HEAD_TEAMS[team]
    assert Heads(joint, SINGLE, head=head).gumbel_dim == choices


@pytest.mark.parametrize("team", HEAD_TEAMS)
def test_the_heads_know_their_bounds(team: str) -> None:
    joint, head = HEAD_TEAMS[team]
    heads = Heads(joint, DOUBLE, head=head)
    for side, expected in zip((heads.low, heads.high, heads.noise_scale), ranges(joint, head), strict=True):
        assert side.dtype == torch.float64
        assert side.tolist() == expected.tolist()


def test_coupled_noise_keeps_a_thrust_a_thrust() -> None:
    heads = Heads(MOVERS, DOUBLE, head="force")
    actions = heads.greedy(doubles(ROWS, MOVERS.action_dim))
    noise = doubles(ROWS, MOVERS.action_dim, seed=1)
    right_up = noise.view(ROWS, 3, 5)[..., 2::2].clone()
    noisy = (actions + heads.couple(noise) * heads.noise_scale).view(ROWS, 3, 5)
    assert (noisy[..., 0] == 0.0).all()
    torch.testing.assert_close(noisy[..., 1::2] + noisy[..., 2::2], torch.ones_like(right_up))
    torch.testing.assert_close(noisy[..., 2::2] - actions.view(ROWS, 3, 5)[..., 2::2], right_up / 2)


def test_coupling_leaves_other_heads_noise_alone() -> None:
    noise = doubles(ROWS, MOVERS.action_dim)
    assert torch.equal(Heads(MOVERS, DOUBLE).couple(noise.clone()), noise)


def test_a_head_that_cannot_make_the_actions_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"network.head = 'soft': part 1 of the action of agent_0 is 3 numbers"):
        Heads(TEAMS["two"], SINGLE, head="soft")
