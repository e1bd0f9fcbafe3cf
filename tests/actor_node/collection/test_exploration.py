"""Shapes: C copies, A numbers of the joint action. Statistics are over many copies, with bounds at 5 sigma."""

import numpy as np
import pytest

from actor_node.collection.exploration import Exploration, ladder_factors
from common.policy.heads import GreedyHeads, ranges
from common.policy.masks import FORBIDDEN
from common.run.run import ExplorationSpec
from common.spec import Box, Categorical, joint_spec
from tests.common.examples import BOXES, CHOICES, MIXED
from tests.common.head_examples import HEAD_TEAMS, MOVERS, THRUST

MANY = 20_000
GAUSSIAN = ExplorationSpec(kind="gaussian")
EPSILON = ExplorationSpec(choices="epsilon")
UNEVEN = joint_spec([("a", "t", 1, (Box((-2.0, 0.5), (1.0, 0.75)),))])
MIDDLE, HALF = np.array([-0.5, 0.625]), np.array([1.5, 0.125])
"""Of UNEVEN's box."""


def explorer(joint, spec=GAUSSIAN, copies=MANY, seed=0, head="box"):
    return Exploration(joint, spec, copies, np.random.default_rng(seed), head)


def greedy(joint, logits, head="box"):
    return GreedyHeads(joint, head)(logits)


def zeros(joint, copies=MANY):
    return np.zeros((copies, joint.action_dim), np.float32)


def random_logits(joint, copies, seed=1):
    return np.random.default_rng(seed).normal(size=(copies, joint.action_dim)).astype(np.float32)


def parts_of(joint, actions):
    """Yields each part of a team's action with its columns."""
    for agent in joint.agents:
        for part, columns in zip(agent.parts, agent.part_slices, strict=True):
            yield part, actions[:, agent.action_slice][:, columns]


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
    explore.reset(over)
    now = explore.act(zeros(UNEVEN), 0.05, 0.0)[:, 0]
    assert abs(np.corrcoef(last[over], now[over])[0, 1]) < 5 / (MANY / 2) ** 0.5
    assert np.corrcoef(last[~over], now[~over])[0, 1] > 0.9
    assert ((now[over] - MIDDLE[0]) / HALF[0]).std() == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize("team", HEAD_TEAMS)
@pytest.mark.parametrize("spec", [GAUSSIAN, ornstein_uhlenbeck(0.15), EPSILON], ids=["gaussian", "ou", "epsilon"])
@pytest.mark.parametrize("scale", [0.0, 0.3, 50.0])
@pytest.mark.parametrize("random_share", [0.0, 0.2, 1.0])
def test_actions_are_always_ones_that_can_be_executed(team, spec, scale, random_share):
    joint, head = HEAD_TEAMS[team]
    explore, (low, high, _) = explorer(joint, spec, 50, head=head), ranges(joint, head)
    for size in (1.0, 4.0, 30.0):
        actions = explore.act(random_logits(joint, 50) * np.float32(size), scale, random_share)
        assert actions.dtype == np.float32
        assert (actions >= low).all()
        assert (actions <= high).all()
        for part, own in parts_of(joint, actions):
            if isinstance(part, Categorical):
                assert set(np.unique(own)) == {0.0, 1.0}
                assert (own.sum(axis=1) == 1.0).all(), "one choice each"
            elif head == "soft":
                np.testing.assert_allclose(own.sum(axis=1), 1.0, atol=1e-6)
            elif head == "force" and part == THRUST:
                assert (own[:, 0] == 0.0).all()
                np.testing.assert_allclose(own[:, [1, 3]] + own[:, [2, 4]], 1.0, atol=1e-6)


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


@pytest.mark.parametrize("scale", [0.0, 0.25, 1.0, 3.0])
def test_epsilon_chooses_the_best_or_with_the_scales_probability_any(scale):
    joint = joint_spec([("a", "t", 1, (Categorical(4), Box((-1.0,), (1.0,)), Categorical(2)))])
    row = np.array([0.0, 1.0, 5.0, 0.3, -0.5, 1.0, 0.9], np.float32)
    actions = explorer(joint, EPSILON).act(np.tile(row, (MANY, 1)), scale, 0.0)
    for columns, best in ((slice(0, 4), 2), (slice(5, 7), 0)):
        n = columns.stop - columns.start
        share = np.full(n, min(scale, 1.0) / n)
        share[best] += 1.0 - min(scale, 1.0)
        bound = 5 * (share * (1 - share) / MANY) ** 0.5
        assert (np.abs(actions[:, columns].mean(axis=0) - share) <= bound).all()


def test_epsilon_sways_each_part_on_its_own():
    logits = np.tile(np.array([1, 0, 0, 1, 0, 0, 0], np.float32), (MANY, 1))
    actions = explorer(CHOICES, EPSILON).act(logits, 0.5, 0.0)
    assert abs(np.corrcoef(actions[:, 0], actions[:, 3])[0, 1]) < 5 / MANY**0.5


def test_parts_are_chosen_independently():
    actions = explorer(CHOICES).act(zeros(CHOICES), 0.0, 0.0)
    assert abs(np.corrcoef(actions[:, 0], actions[:, 3])[0, 1]) < 5 / MANY**0.5


# ---- soft choices and forces --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_soft_choices_are_gumbel_softmax_samples_whatever_the_scale(scale):
    """Their argmax is then a draw from the softmax (Maddison et al. 2017, arXiv 1611.00712, proposition 1)."""
    joint = joint_spec([("a", "t", 1, (Box((0.0,) * 3, (1.0,) * 3),))])
    row = np.array([0.0, 1.0, -2.0], np.float32)
    actions = explorer(joint, head="soft").act(np.tile(row, (MANY, 1)), scale, 0.0)
    best, expected = np.eye(3)[actions.argmax(axis=1)].mean(axis=0), softmax(row)
    assert (np.abs(best - expected) < 5 * (expected * (1 - expected) / MANY) ** 0.5).all()
    ratio = np.log(actions[:, 1] / actions[:, 0]) - 1.0
    assert ratio.mean() == pytest.approx(0.0, abs=5 * 1.82 / MANY**0.5)
    assert ratio.std() == pytest.approx(np.pi / 3**0.5, rel=0.05), "the difference of two Gumbel numbers is logistic"


@pytest.mark.parametrize("spec", [GAUSSIAN, ornstein_uhlenbeck(1.0)], ids=["gaussian", "ou"])
def test_noise_on_a_thrust_has_the_scale_along_each_axis(spec):
    joint = joint_spec([("a", "t", 1, (THRUST,))])
    logits = np.tile(np.array([0.7, 0.2, 0.4, 0.3, 0.0], np.float32), (MANY, 1))
    explored, own = explorer(joint, spec, head="force").act(logits, 0.1, 0.0), greedy(joint, logits, "force")
    noise = (explored - own)[:, [2, 4]] - (explored - own)[:, [1, 3]]
    assert noise.mean(axis=0) == pytest.approx(0.0, abs=5 * 0.1 / MANY**0.5)
    assert noise.std(axis=0) == pytest.approx(0.1, rel=5 / (2 * MANY) ** 0.5)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 5 / MANY**0.5


def test_noise_on_a_thrust_remembers():
    joint = joint_spec([("a", "t", 1, (THRUST,))])
    explore = explorer(joint, ornstein_uhlenbeck(0.1), head="force")
    for _ in range(40):
        explore.act(zeros(joint), 0.05, 0.0)
    first, second = (explore.act(zeros(joint), 0.05, 0.0)[:, 2] for _ in range(2))
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0.9, abs=0.01)


def test_at_random_a_thrust_is_uniform_along_each_axis():
    actions = explorer(MOVERS, head="force").act(random_logits(MOVERS, MANY), 0.3, 1.0)
    for _, own in parts_of(MOVERS, actions):
        force = own[:, [2, 4]] - own[:, [1, 3]]
        for axis in force.T:
            counts = np.histogram(axis, bins=10, range=(-1.0, 1.0))[0]
            assert (np.abs(counts / MANY - 0.1) < 5 * (0.09 / MANY) ** 0.5).all()
        assert abs(np.corrcoef(force.T)[0, 1]) < 5 / MANY**0.5


def test_at_random_a_soft_choice_is_what_equal_logits_execute():
    at_random = explorer(MOVERS, head="soft").act(random_logits(MOVERS, MANY) * np.float32(9), 0.3, 1.0)
    equal = explorer(MOVERS, head="soft", seed=1).act(zeros(MOVERS), 0.3, 0.0)
    assert at_random.mean(axis=0) == pytest.approx(0.2, abs=5 * 0.25 / MANY**0.5)
    for q in (0.1, 0.5, 0.9):
        np.testing.assert_allclose(np.quantile(at_random, q, axis=0), np.quantile(equal, q, axis=0), rtol=0.1)


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


# ---- the ladder -----------------------------------------------------------------------------------------------------


def test_copies_of_a_node_stand_on_a_ladder_of_geometric_steps_in_turns_over_its_workers():
    assert ladder_factors(0.01, 0, 1, 5) == pytest.approx([1.0, 0.1**0.5, 0.1, 0.1**1.5, 0.01])
    assert ladder_factors(0.001, 0, 2, 2) == pytest.approx([1.0, 0.01])
    assert ladder_factors(0.001, 1, 2, 2) == pytest.approx([0.1, 0.001])
    assert ladder_factors(1.0, 2, 3, 4).tolist() == [1.0] * 4
    assert ladder_factors(0.01, 0, 1, 1).tolist() == [1.0]


def test_ape_x_is_a_ladder_of_epsilon_to_the_alpha():
    """epsilon_i = epsilon^(1 + alpha i / (N - 1)) with epsilon 0.4 and alpha 7 (Horgan et al. 2018)."""
    epsilons = [0.4 * ladder_factors(0.4**7, i, 8, 1)[0] for i in range(8)]
    assert epsilons == pytest.approx([0.4 ** (1 + 7 * i / 7) for i in range(8)])


@pytest.mark.parametrize("spec", [GAUSSIAN, ornstein_uhlenbeck(0.15)], ids=["gaussian", "ou"])
def test_each_copy_has_its_factor_of_the_noise(spec):
    factors = np.array([1.0, 0.1, 0.0] * 100)
    rng = np.random.default_rng(0)
    noise = Exploration(UNEVEN, spec, 300, rng, scale_factors=factors).act(zeros(UNEVEN, 300), 0.1, 0.0) - MIDDLE
    first, second, third = (np.abs(noise[at::3] / HALF).mean() for at in range(3))
    assert second / first == pytest.approx(0.1, rel=0.3)
    assert third == 0.0


def test_each_copy_has_its_factor_of_epsilon():
    logits = np.tile(np.eye(1, CHOICES.action_dim, dtype=np.float32), (MANY, 1))
    factors = np.where(np.arange(MANY) % 2, 1.0, 0.0)
    explore = Exploration(CHOICES, EPSILON, MANY, np.random.default_rng(0), scale_factors=factors)
    differs = (explore.act(logits, 0.5, 0.0) != greedy(CHOICES, logits)).any(axis=1)
    assert not differs[::2].any()
    assert differs[1::2].mean() > 0.3


# ---- the rest -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [GAUSSIAN, ornstein_uhlenbeck(0.15), EPSILON], ids=["gaussian", "ou", "epsilon"])
@pytest.mark.parametrize("team", HEAD_TEAMS)
def test_the_same_generator_gives_the_same_actions(spec, team):
    joint, head = HEAD_TEAMS[team]
    histories = []
    for seed in (3, 3, 4):
        explore = explorer(joint, spec, copies=5, seed=seed, head=head)
        histories.append([explore.act(random_logits(joint, 5), 0.9, share) for share in (0.0, 0.5, 1.0)])
    np.testing.assert_array_equal(histories[0], histories[1])
    assert (histories[0][0] != histories[2][0]).any()


@pytest.mark.parametrize("team", HEAD_TEAMS)
def test_the_logits_are_left_alone(team):
    joint, head = HEAD_TEAMS[team]
    logits = random_logits(joint, 5)
    before = logits.copy()
    explorer(joint, copies=5, head=head).act(logits, 0.3, 0.5)
    np.testing.assert_array_equal(logits, before)


# ---- action masks -------------------------------------------------------------------------------------------------

MASKED = joint_spec([("a", "t", 9, (Categorical(4), Categorical(3))), ("b", "t", 1, (Box((-1.0,), (1.0,)),))], {"a"})


def lowered(logits, forbidden):
    logits = logits.copy()
    logits[:, forbidden] -= np.float32(FORBIDDEN)
    return logits


@pytest.mark.parametrize("spec", [GAUSSIAN, EPSILON])
@pytest.mark.parametrize(("scale", "random_share"), [(1.0, 1.0), (1.0, 0.0), (0.5, 0.3)])
def test_forbidden_choices_are_never_taken(spec, scale, random_share):
    logits = lowered(random_logits(MASKED, MANY) * np.float32(5), [0, 2, 6])
    actions = explorer(MASKED, spec).act(logits, scale, random_share)
    assert (actions[:, [0, 2, 6]] == 0.0).all()
    assert (actions[:, :4].sum(axis=1) == 1.0).all()
    assert (actions[:, 4:7].sum(axis=1) == 1.0).all()


@pytest.mark.parametrize(("spec", "scale", "random_share"), [(GAUSSIAN, 0.0, 1.0), (EPSILON, 1.0, 0.0)])
@pytest.mark.parametrize("forbidden", [[0, 2, 6], [1, 4], [0, 1, 2, 3]])
def test_at_random_all_allowed_choices_are_equally_likely(spec, scale, random_share, forbidden):
    """A part of which nothing is allowed is of an agent that does not act: there any choice will do."""
    actions = explorer(MASKED, spec).act(lowered(random_logits(MASKED, MANY), forbidden), scale, random_share)
    for columns in (range(4), range(4, 7)):
        free = [column for column in columns if column not in forbidden] or list(columns)
        np.testing.assert_allclose(actions[:, free].mean(axis=0), 1 / len(free), atol=5 * np.sqrt(0.25 / MANY))


def test_masks_that_allow_everything_change_no_greedy_or_sampled_action():
    logits = random_logits(MASKED, 500)
    unmasked = joint_spec([(a.name, a.team, a.obs_dim, a.parts) for a in MASKED.agents])
    ours, others = (explorer(joint, copies=500).act(logits, 0.3, 0.0) for joint in (MASKED, unmasked))
    np.testing.assert_array_equal(ours, others)


# ---- stochastic policies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 0.7])
def test_stochastic_policies_explore_with_their_own_deviation(scale):
    """The first agent's numbers are drawn by its policy, at any scale; the second agent's have noise."""
    explore = Exploration(BOXES, GAUSSIAN, MANY, np.random.default_rng(0), gaussian_columns=(0, 1))
    logits = np.tile(np.array([0.3, -0.2, 0.0, 0.0], np.float32), (MANY, 1))
    actions = explore.act(logits, scale, 0.0, np.tile(np.array([0.5, 0.1], np.float32), (MANY, 1)))
    u = np.arctanh((actions[:, :2].astype(np.float64) - [-0.5, 2.0]) / [1.5, 2.0])
    assert u.mean(axis=0) == pytest.approx([0.3, -0.2], abs=5 * 0.5 / MANY**0.5)
    assert u.std(axis=0) == pytest.approx([0.5, 0.1], rel=5 / (2 * MANY) ** 0.5)
    assert (actions[:, 2:].std(axis=0) > 0).tolist() == [scale > 0] * 2


def test_the_warm_up_of_stochastic_policies_is_uniform():
    explore = Exploration(BOXES, GAUSSIAN, MANY, np.random.default_rng(0), gaussian_columns=(0, 1, 2, 3))
    actions = explore.act(zeros(BOXES), 0.3, 1.0, np.full((MANY, 4), 0.01, np.float32))
    assert actions.mean(axis=0) == pytest.approx([-0.5, 2.0] * 2, abs=5 * 4 / (12 * MANY) ** 0.5)
    assert actions.std(axis=0) == pytest.approx([3 / 12**0.5, 4 / 12**0.5] * 2, rel=0.03)
