import math
import re

import msgspec
import pytest
from hypothesis import given, settings

from common.errors import ConfigError
from common.run.players import players
from common.spec import MAX_JOINT_NUMBERS, AgentSpec, AgentsSpec, Box, Categorical, JointSpec, difference, joint_spec
from tests.common.examples import MIXED
from tests.common.strategies import teams


@settings(max_examples=40)
@given(teams())
def test_agents_tile_the_joint_vectors_and_parts_tile_their_agents_action(joint):
    assert [i for agent in joint.agents for i in range(joint.obs_dim)[agent.obs_slice]] == list(range(joint.obs_dim))
    actions = list(range(joint.action_dim))
    assert [i for agent in joint.agents for i in actions[agent.action_slice]] == actions
    for agent in joint.agents:
        own = actions[agent.action_slice]
        assert [i for part in agent.part_slices for i in own[part]] == own
        assert [part.size for part in agent.parts] == [len(own[part]) for part in agent.part_slices]


def test_teams_are_named_in_order_of_appearance():
    assert MIXED.sides == ("blue", "red")


@settings(max_examples=40)
@given(teams())
def test_a_spec_comes_back_from_its_builtins(joint):
    assert msgspec.convert(msgspec.to_builtins(joint), AgentsSpec) == joint


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ((), ()),
        ((0.0,), ()),
        ((0.0,), (1.0, 1.0)),
        ((2.0,), (1.0,)),
        ((-math.inf,), (1.0,)),
        ((0.0,), (math.inf,)),
        ((math.nan,), (1.0,)),
    ],
)
def test_bounds_that_are_no_box_are_refused(low, high):
    with pytest.raises(ValueError, match="a Box"):
        Box(low, high)


def test_a_choice_among_nothing_is_refused():
    with pytest.raises(ValueError, match="a Categorical has 0 choices"):
        Categorical(0)


def test_agents_must_stand_side_by_side():
    first = AgentSpec("a", "t", 3, (Categorical(2),), 0, 0)
    gap = AgentSpec("b", "t", 3, (Categorical(2),), 4, 2)
    with pytest.raises(ValueError, match="agent b does not start where"):
        JointSpec((first, gap))


@pytest.mark.parametrize(
    ("agents", "match"),
    [
        ([], "at least"),
        ([("a", "t", 1, (Categorical(2),))] * 2, "unique names"),
        ([("a", "t", 1, ())], "agent a observes 1 numbers"),
        ([("a", "t", -1, (Categorical(2),))], "agent a observes -1 numbers"),
        ([("a", "t", MAX_JOINT_NUMBERS + 1, (Categorical(2),))], "joint vectors have 1048577 and 2 numbers"),
    ],
)
def test_a_team_that_does_not_fit_a_record_is_a_config_error(agents, match):
    with pytest.raises(ConfigError, match=match):
        joint_spec(agents)


@pytest.mark.parametrize(
    ("agents", "message"),
    [
        ([("b", "s", 3, (Categorical(2),))], r"removed: a; new: b"),
        ([("a", "s", 3, (Categorical(2),)), ("b", "s", 1, (Categorical(2),))], r"\(new: b\)"),
        ([("a", "t", 3, (Categorical(2),))], "agent a was on the side s and is on t"),
        ([("a", "s", 4, (Categorical(2),))], "agent a observed 3 numbers and observes 4"),
        ([("a", "s", 3, (Categorical(4),))], r"agent a acted in Discrete\(2\) and acts in Discrete\(4\)"),
        ([("a", "s", 3, (Box((-1.0, 0.0), (2.0, 2.0)),))], r"acts in Box\(\[-1, 0\], 2, 2\)"),
    ],
)
def test_the_first_difference_between_two_worlds_is_described(agents, message):
    old = joint_spec([("a", "s", 3, (Categorical(2),))])
    assert re.search(message, difference(old, joint_spec(agents)))


def test_only_an_agent_with_a_mask_encodes_it():
    plain, masked = (joint_spec([("a", "t", 5, (Categorical(2), Categorical(3)))], names) for names in ((), {"a"}))
    assert "masked" not in msgspec.to_builtins(plain)["agents"][0]
    assert msgspec.to_builtins(masked)["agents"][0]["masked"] is True
    assert msgspec.convert(msgspec.to_builtins(masked), AgentsSpec) == masked != plain
    assert difference(plain, masked) == "agent a has an action mask now"
    assert difference(masked, plain) == "agent a had an action mask and has none"


def test_mask_columns_pair_the_end_of_the_observation_with_the_choices():
    parts = (Categorical(2), Box((0.0,), (1.0,)), Categorical(1))
    joint = joint_spec([("a", "t", 2, (Categorical(2),)), ("b", "t", 7, parts), ("c", "t", 2, (Categorical(2),))], "bc")
    assert joint.mask_columns == ((6, 2), (7, 3), (8, 5), (9, 6), (10, 7))
    assert joint.agents[1].local_mask_columns == ((4, 0), (5, 1), (6, 3))
    (player,) = players(joint, "joint").agents
    assert player.mask_columns == player.local_mask_columns == joint.mask_columns
    assert players(joint, "maddpg").mask_columns == joint.mask_columns


@pytest.mark.parametrize(("obs_dim", "part"), [(1, Categorical(2)), (5, Box((0.0,), (1.0,)))])
def test_a_mask_that_does_not_fit_its_agent_is_refused(obs_dim, part):
    with pytest.raises(ConfigError, match=f"agent a observes {obs_dim} numbers, which cannot end with an action mask"):
        joint_spec([("a", "t", obs_dim, (part,))], {"a"})
