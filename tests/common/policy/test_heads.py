import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.policy.heads import GreedyHeads, bounded_force, box_range, check_head, ranges, segments
from common.run.run import NetworkSpec
from common.spec import Box, Categorical, joint_spec
from common.worlds import world_spec
from tests.common.head_examples import HEAD_TEAMS, MOVERS, THRUST, WORD, literal_actions, logits_of
from tests.common.strategies import teams

EVERY_TEAM = pytest.mark.parametrize("team", HEAD_TEAMS)


def one_agent(*parts):
    return joint_spec([("a", "t", 1, parts)])


def act(head, parts, logits):
    return GreedyHeads(one_agent(*parts), head)(np.array(logits, np.float32))


# ---- every head ---------------------------------------------------------------------------------------------------


@EVERY_TEAM
@pytest.mark.parametrize("size", [1e-20, 1e-3, 1.0, 20.0])
def test_heads_equal_literal_loops(team, size):
    joint, head = HEAD_TEAMS[team]
    logits = logits_of(joint, 20, size)
    actions = GreedyHeads(joint, head)(logits)
    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions, literal_actions(joint, head, logits), rtol=1e-6, atol=1e-6)


@EVERY_TEAM
def test_a_row_is_acted_alone(team):
    """The seed's force head divided by the norm of the whole batch: what one copy did hung on all others."""
    joint, head = HEAD_TEAMS[team]
    logits = logits_of(joint, 9)
    heads = GreedyHeads(joint, head)
    np.testing.assert_array_equal(heads(logits), np.concatenate([heads(row[None]) for row in logits]))


@EVERY_TEAM
@pytest.mark.parametrize("rows", [0, 1])
def test_no_rows_and_one_row(team, rows):
    joint, head = HEAD_TEAMS[team]
    assert GreedyHeads(joint, head)(logits_of(joint, 1)[:rows]).shape == (rows, joint.action_dim)


@EVERY_TEAM
@pytest.mark.parametrize("size", [1.0, 1e6, 1e30])
def test_actions_stay_in_their_bounds(team, size):
    joint, head = HEAD_TEAMS[team]
    low, high, _ = ranges(joint, head)
    actions = GreedyHeads(joint, head)(logits_of(joint, 200, size))
    ulp = np.spacing(np.maximum(np.abs(low), np.abs(high)))
    assert (actions >= low - ulp).all()
    assert (actions <= high + ulp).all()


@settings(max_examples=40)
@given(teams(), st.integers(0, 2**32 - 1))
def test_any_team_has_the_box_head(joint, seed):
    logits = np.random.default_rng(seed).normal(0.0, 20.0, (4, joint.action_dim)).astype(np.float32)
    actions = GreedyHeads(joint)(logits)
    expected = literal_actions(joint, "box", logits)
    low, high, _ = ranges(joint, "box")
    np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-6 * np.abs([low, high]).max(axis=(0, 1)))


@EVERY_TEAM
def test_segments_lie_side_by_side_over_the_whole_action(team):
    joint, head = HEAD_TEAMS[team]
    found = segments(joint, head)
    edges = [segment.columns.start for segment in found] + [found[-1].columns.stop]
    assert edges[0] == 0
    assert edges[-1] == joint.action_dim
    assert [segment.columns.stop for segment in found] == edges[1:]
    assert [part for segment in found for part in segment.parts] == [p for a in joint.agents for p in a.parts]


def test_neighbours_of_one_kind_are_one_segment():
    assert [(segment.kind, segment.shape) for segment in segments(*HEAD_TEAMS["force"])] == [
        ("thrust", (1, 5)),
        ("box", (1, 3 + 3 + 1)),
        ("force", (3, 2)),
        ("choice", (1, 3)),
        ("thrust", (2, 5)),
        ("choice", (1, 2)),
    ]
    assert [segment.kind for segment in segments(MOVERS, "box")] == ["box"]


# ---- box and choices ----------------------------------------------------------------------------------------------


def test_an_asymmetric_box_is_reached_at_both_ends_and_halved_at_zero():
    box = Box((-2.0, 0.5), (1.0, 0.75))
    ends = act("box", [box], [[-50.0, -50.0], [0.0, 0.0], [50.0, 50.0]])
    np.testing.assert_allclose(ends, [[-2.0, 0.5], [-0.5, 0.625], [1.0, 0.75]])
    middle, half = box_range(box)
    assert (middle.tolist(), half.tolist()) == ([-0.5, 0.625], [1.5, 0.125])


@pytest.mark.parametrize("head", ["box", "soft", "force"])
def test_a_choice_is_the_first_of_the_largest_logits(head):
    actions = act(head, [Categorical(3), Categorical(2)], [[0.0, 2.0, 2.0, -1.0, -1.0]])
    assert actions.tolist() == [[0.0, 1.0, 0.0, 1.0, 0.0]]


# ---- soft ---------------------------------------------------------------------------------------------------------


def test_a_soft_choice_is_a_share_of_each_part():
    actions = act("soft", [THRUST, WORD], [[0.0] * 5 + [0.0, np.log(2.0), np.log(5.0)]])
    np.testing.assert_allclose(actions, [[0.2] * 5 + [0.125, 0.25, 0.625]], rtol=1e-6)


def test_only_differences_of_logits_make_a_soft_choice():
    logits = logits_of(MOVERS, 10)
    heads = GreedyHeads(MOVERS, "soft")
    np.testing.assert_allclose(heads(logits + np.float32(8)), heads(logits), rtol=1e-5)


# ---- force --------------------------------------------------------------------------------------------------------


def thrusts(logits):
    actions = act("force", [THRUST], logits)
    return actions[:, [2, 4]] - actions[:, [1, 3]]


def test_a_thrust_points_where_its_logits_do_and_is_never_longer_than_full():
    logits = logits_of(one_agent(THRUST), 500, 3.0)[:-1]
    h = (logits[:, [2, 4]] - logits[:, [1, 3]]).astype(np.float64)
    force, norm = thrusts(logits), np.linalg.norm(h, axis=1)
    np.testing.assert_allclose(np.linalg.norm(force, axis=1), np.tanh(norm), rtol=1e-5)
    np.testing.assert_allclose(force / np.tanh(norm)[:, None], h / norm[:, None], atol=1e-5)


def test_full_thrust_is_reached_along_the_axes_and_shared_on_the_diagonal():
    force = thrusts([[9, 0, 60, 0, 0], [-9, 60, 0, 0, 0], [0, 0, 0, 0, 60], [0, 0, 60, 60, 0]])
    np.testing.assert_allclose(force, [[1, 0], [-1, 0], [0, 1], [0.5**0.5, -(0.5**0.5)]], atol=1e-6)


def test_a_thrust_wastes_nothing_on_staying():
    actions = act("force", [THRUST], logits_of(one_agent(THRUST), 50))
    assert (actions[:, 0] == 0.0).all()
    np.testing.assert_allclose(actions[:, [1, 3]] + actions[:, [2, 4]], 1.0, atol=1e-7)


def test_without_a_direction_there_is_no_force():
    np.testing.assert_array_equal(act("force", [THRUST], [[3.0, 1.0, 1.0, 2.0, 2.0]]), [[0.0, 0.5, 0.5, 0.5, 0.5]])
    assert bounded_force(np.zeros((3, 2), np.float32)).tolist() == [[0.0, 0.0]] * 3
    tiny = np.array([[3e-42, 0.0], [3e-35, -4e-35]], np.float32)
    np.testing.assert_allclose(bounded_force(tiny), tiny, rtol=1e-6)


# ---- ranges -------------------------------------------------------------------------------------------------------


def test_noise_reaches_what_may_be_moved_on_its_own():
    parts = [Categorical(2), THRUST, Box((-2.0, 0.5), (1.0, 0.75))]
    low, high, reach = ranges(one_agent(*parts), "force")
    assert low.tolist() == [0.0] * 7 + [-2.0, 0.5]
    assert high.tolist() == [1.0] * 7 + [1.0, 0.75]
    assert reach.tolist() == [0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 1.5, 0.125]
    assert ranges(one_agent(THRUST), "soft").half_range.tolist() == [0.0] * 5
    assert ranges(one_agent(THRUST), "box").half_range.tolist() == [0.5] * 5


# ---- what cannot be ----------------------------------------------------------------------------------------------


def check(joint, head):
    check_head(joint, NetworkSpec(head=head))


@EVERY_TEAM
def test_what_can_be_made_is_accepted(team):
    check(*HEAD_TEAMS[team])


@pytest.mark.parametrize(
    ("head", "parts", "message"),
    [
        ("soft", (THRUST, Box((-1.0, 0.0), (1.0, 1.0))), "part 2 of the action of a is 2 numbers from -1 to 1"),
        ("soft", (Box((0.0,), (1.0,)),), "part 1 of the action of a is 1 number from 0 to 1, not two or more"),
        ("soft", (Box((0.0, 0.0), (1.0, 2.0)),), "2 numbers from 0 to 2"),
        ("force", (THRUST, Box((-1.0,), (1.0,))), "part 2 of the action of a is 1 number from -1 to 1, not a force"),
        ("force", (Box((-1.0,) * 5, (1.0,) * 5),), "5 numbers from -1 to 1, not a force"),
        ("force", (WORD,), "no agent of this world acts by a force"),
        ("force", (Categorical(5),), "no agent of this world acts by a force"),
    ],
)
def test_what_cannot_be_made_is_named_with_the_way_out(head, parts, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check(one_agent(*parts), head)
    assert f"network.head = {head!r}" in str(caught.value)
    assert "--set network.head=box" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("continuous", [True, False], ids=["continuous", "discrete"])
@pytest.mark.parametrize(
    "scenario", ["simple_spread", "simple_tag", "simple_reference", "simple_speaker_listener", "simple_world_comm"]
)
def test_particle_worlds_take_every_head_they_have_parts_for(scenario, continuous):
    joint = world_spec(scenario, continuous_actions=continuous)
    check(joint, "box")
    check(joint, "soft")
    if continuous:
        check(joint, "force")
        moves = sum(part == THRUST for agent in joint.agents for part in agent.parts)
        assert moves == sum(len(s.parts) for s in segments(joint, "force") if s.kind == "thrust")
    else:
        with pytest.raises(ConfigError, match="no agent of this world acts by a force"):
            check(joint, "force")
