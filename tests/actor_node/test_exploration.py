"""Shapes: C copies, A numbers of the joint action. Statistics are over many copies, with bounds at 5 sigma."""

import numpy as np
import pytest

from actor_node.exploration import Exploration
from common.policy import greedy
from common.run import ExplorationSpec
from common.spec import Box, Categorical, joint_spec
from tests.common.examples import BOXES, CHOICES, MIXED

MANY = 20_000
GAUSSIAN = ExplorationSpec(kind="gaussian")
UNEVEN = joint_spec([("a", "t", 1, (Box((-2.0, 0.5), (1.0, 0.75)),))])
MIDDLE, HALF = np.array([-0.5, 0.625]), np.array([1.5, 0.125])
"""Of UNEVEN's box."""


def explorer(joint, spec=GAUSSIAN, copies=MANY, seed=0):
    return Exploration(joint, spec, copies, np.random.default_rng(seed))


def zeros(joint, copies=MANY):
    return np.zeros((copies, joint.action_dim), np.float32)


def random_logits(joint, copies, seed=1):
    return np.random.default_rng(seed).normal(size=(copies, joint.action_dim)).astype(np.float32)


def ornstein_uhlenbeck(theta):
    return ExplorationSpec(kind="ornstein_uhlenbeck", theta=theta)


# ---- noise on boxes -----------------------------------------------------------------------------------------------


def test_gaussian_noise_has_the_scale_in_units_of_half_the_range():
    noise = (explorer(UNEVEN).act(zeros(UNEVEN), 0.1, 0.0) - MIDDLE) / HALF
    assert noise.mean(axis=0) == pytest.approx(0.0, abs=5 * 0.1 / MANY**0.5)
    assert noise.std(axis=0) == pytest.approx(0.1, rel=5 / (2 * MANY) ** 0.5)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 5 / MANY**0.5, "components are independent"


def test_gaussian_noise_forgets_at_once():
    explore = explorer(UNEVEN)
    first, second = (explore.act(zeros(UNEVEN), 0.1, 0.0)[:, 0] for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / MANY**0.5


def test_noise_is_added_to_the_policys_own_action():
    logits = random_logits(UNEVEN, MANY)
    noise = explorer(UNEVEN).act(logits * np.float32(0.2), 0.05, 0.0) - greedy(UNEVEN, logits * np.float32(0.2))
    assert noise.std(axis=0) == pytest.approx(0.05 * HALF, rel=0.05)


@pytest.mark.parametrize("theta", [0.15, 0.5, 1.0])
def test_ornstein_uhlenbeck_noise_has_its_variance_and_memory(theta):
    """x_t = (1 - theta) x_(t-1) + scale N(0, 1): variance scale^2 / (1 - (1 - theta)^2), correlation 1 - theta."""
    explore, scale = explorer(UNEVEN, ornstein_uhlenbeck(theta)), 0.05
    for _ in range(40):
        explore.act(zeros(UNEVEN), scale, 0.0)
    first, second = ((explore.act(zeros(UNEVEN), scale, 0.0) - MIDDLE)[:, 0] / HALF[0] for _ in range(2))
    expected = scale / (1 - (1 - theta) ** 2) ** 0.5
    assert second.std() == pytest.approx(expected, rel=0.03)
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(1 - theta, abs=5 / MANY**0.5)


def test_ornstein_uhlenbeck_noise_starts_from_rest():
    first = explorer(UNEVEN, ornstein_uhlenbeck(0.15)).act(zeros(UNEVEN), 0.1, 0.0)
    assert ((first - MIDDLE) / HALF).std(axis=0) == pytest.approx(0.1, rel=0.03)


def test_noise_is_forgotten_in_the_copies_whose_episode_ended():
    explore, over = explorer(UNEVEN, ornstein_uhlenbeck(0.05)), np.arange(MANY) % 2 == 0
    for _ in range(60):
        last = explore.act(zeros(UNEVEN), 0.05, 0.0)[:, 0]
    explore.forget(over)
    now = explore.act(zeros(UNEVEN), 0.05, 0.0)[:, 0]
    assert abs(np.corrcoef(last[over], now[over])[0, 1]) < 5 / (MANY / 2) ** 0.5
    assert np.corrcoef(last[~over], now[~over])[0, 1] > 0.9
    assert ((now[over] - MIDDLE[0]) / HALF[0]).std() == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize("spec", [GAUSSIAN, ornstein_uhlenbeck(0.15)], ids=["gaussian", "ou"])
@pytest.mark.parametrize("scale", [0.0, 0.3, 50.0])
def test_actions_stay_within_their_bounds(spec, scale):
    explore = explorer(MIXED, spec, copies=200)
    for _ in range(20):
        actions = explore.act(random_logits(MIXED, 200) * np.float32(4), scale, 0.1)
        assert actions.dtype == np.float32
        assert np.isfinite(actions).all()
        for agent in MIXED.agents:
            for part, columns in zip(agent.parts, agent.part_slices, strict=True):
                own = actions[:, agent.action_slice][:, columns]
                if isinstance(part, Box):
                    assert (own >= np.float32(part.low)).all()
                    assert (own <= np.float32(part.high)).all()
                else:
                    assert set(np.unique(own)) == {0.0, 1.0}
                    assert (own.sum(axis=1) == 1.0).all(), "one choice each"


def test_without_noise_boxes_do_what_the_policy_says():
    logits = random_logits(BOXES, 8)
    actions = explorer(BOXES, copies=8).act(logits, 0.0, 0.0)
    np.testing.assert_array_equal(actions, greedy(BOXES, logits))


# ---- choices ------------------------------------------------------------------------------------------------------


def softmax(row):
    weights = np.exp(np.float64(row) - np.max(row))
    return weights / weights.sum()


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_choices_are_drawn_from_the_policys_softmax_whatever_the_scale(scale):
    joint = joint_spec([("a", "t", 1, (Categorical(3), Box((-1.0,), (1.0,)), Categorical(2)))])
    row = np.array([0.0, 1.0, -2.0, 0.3, -0.5, 1.0], np.float32)
    actions = explorer(joint).act(np.tile(row, (MANY, 1)), scale, 0.0)
    for columns in (slice(0, 3), slice(4, 6)):
        expected = softmax(row[columns])
        sigma = (expected * (1 - expected) / MANY) ** 0.5
        assert (np.abs(actions[:, columns].mean(axis=0) - expected) < 5 * sigma).all()


def test_parts_are_chosen_independently():
    actions = explorer(CHOICES).act(zeros(CHOICES), 0.0, 0.0)
    assert abs(np.corrcoef(actions[:, 0], actions[:, 3])[0, 1]) < 5 / MANY**0.5


# ---- acting at random ---------------------------------------------------------------------------------------------


def test_warming_up_everything_is_uniform():
    actions = explorer(MIXED).act(random_logits(MIXED, MANY) * np.float32(9), 0.3, 1.0)
    for agent in MIXED.agents:
        for part, columns in zip(agent.parts, agent.part_slices, strict=True):
            own = actions[:, agent.action_slice][:, columns].astype(np.float64)
            if isinstance(part, Box):
                share = (own - np.array(part.low)) / (np.array(part.high) - np.array(part.low))
                for column in share.T:
                    counts = np.histogram(column, bins=10, range=(0.0, 1.0))[0]
                    assert counts.sum() == MANY
                    assert (np.abs(counts / MANY - 0.1) < 5 * (0.09 / MANY) ** 0.5).all()
            else:
                p = 1 / part.n
                assert (own.sum(axis=1) == 1.0).all()
                assert (np.abs(own.mean(axis=0) - p) < 5 * (p * (1 - p) / MANY) ** 0.5).all()


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9])
def test_a_share_of_the_copies_acts_at_random(share):
    logits = random_logits(BOXES, MANY)
    actions = explorer(BOXES).act(logits, 0.0, share)
    differs = (actions != greedy(BOXES, logits)).any(axis=1)
    assert differs.mean() == pytest.approx(share, abs=5 * (share * (1 - share) / MANY) ** 0.5)


def test_a_copy_acts_at_random_with_all_its_agents():
    logits = random_logits(BOXES, MANY)
    differs = explorer(BOXES).act(logits, 0.0, 0.5) != greedy(BOXES, logits)
    assert (differs.all(axis=1) == differs.any(axis=1)).all()


# ---- the rest -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [GAUSSIAN, ornstein_uhlenbeck(0.15)], ids=["gaussian", "ou"])
def test_the_same_generator_gives_the_same_actions(spec):
    histories = []
    for seed in (3, 3, 4):
        explore = explorer(MIXED, spec, copies=5, seed=seed)
        histories.append([explore.act(random_logits(MIXED, 5), 0.2, share) for share in (0.0, 0.5, 1.0)])
    np.testing.assert_array_equal(histories[0], histories[1])
    assert (histories[0][0] != histories[2][0]).any()


def test_the_logits_are_left_alone():
    logits = random_logits(MIXED, 5)
    before = logits.copy()
    explorer(MIXED, copies=5).act(logits, 0.3, 0.5)
    np.testing.assert_array_equal(logits, before)
