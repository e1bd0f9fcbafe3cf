"""What every batched world promises about episodes, seeds and mistakes, shown on simple_spread."""

import subprocess
import sys

import numpy as np
import pytest

from common.errors import ConfigError, WorldError
from common.spec import Box, Categorical
from common.transitions import transition_dtype
from common.worlds import make_world, scenarios, world_spec


def spread(copies=4, seed=0, **options):
    world = make_world("simple_spread", copies=copies, seed=seed, **options)
    world.reset()
    return world


def push_right(world):
    actions = np.zeros((world.copies, world.spec.action_dim), np.float32)
    for agent in world.spec.agents:
        actions[:, agent.action_slice.start + 2] = 1.0
    return actions


def test_shapes_and_types_are_those_of_the_transition():
    world = spread(copies=4)
    fields = transition_dtype(world.spec).fields
    step = world.step(push_right(world))
    for name in ("next_obs", "reward", "discount", "present"):
        array = getattr(step, name)
        assert array.shape == (4, *fields[name][0].shape)
        assert array.dtype == np.float32
    assert step.obs.shape == step.next_obs.shape
    assert step.episode_over.shape == (4,)


def test_a_time_limit_keeps_discount_one_and_the_true_final_observation():
    world = spread(copies=3, max_cycles=5)
    for _ in range(4):
        step = world.step(push_right(world))
        assert not step.episode_over.any()
        np.testing.assert_array_equal(step.obs, step.next_obs)
    unlimited = spread(copies=3, max_cycles=100)
    for _ in range(5):
        expected = unlimited.step(push_right(unlimited))
    step = world.step(push_right(world))
    assert step.episode_over.all()
    assert (step.discount == 1.0).all()
    np.testing.assert_array_equal(step.next_obs, expected.next_obs)
    for agent in world.spec.agents:
        own = agent.obs_slice.start
        assert (step.next_obs[:, own] > 1.0).all(), "the final observation moves at speed"
        assert (step.obs[:, own : own + 2] == 0.0).all(), "what to act on next is at rest"


def test_an_episode_after_an_automatic_reset_is_a_whole_episode():
    world = spread(copies=2, max_cycles=3)
    over = [world.step(push_right(world)).episode_over.tolist() for _ in range(9)]
    assert over == [[False] * 2, [False] * 2, [True] * 2] * 3


def test_success_terminates_and_only_the_copies_that_succeeded_start_again():
    world = spread(copies=200, N=1, max_cycles=1000, terminate_on_success=True)
    for _ in range(40):
        step = world.step(push_right(world))
        ended = step.episode_over
        if ended.any():
            break
    assert 0 < ended.sum() < 200
    assert (step.discount[ended] == 0.0).all()
    assert (step.discount[~ended] == 1.0).all()
    np.testing.assert_array_equal(step.obs[~ended], step.next_obs[~ended])
    landmark = step.next_obs[ended, 4:6]
    assert (np.hypot(*landmark.T) < 0.1).all()
    assert (step.obs[ended, :2] == 0.0).all()
    assert (step.obs[ended, 4:6] != landmark).any(axis=1).all()


def test_the_same_world_seed_gives_the_same_sequence_and_another_seed_another():
    def starts(seed):
        world = spread(copies=3, seed=seed, max_cycles=2)
        return np.array([world.step(push_right(world)).obs for _ in range(4)])

    np.testing.assert_array_equal(starts(5), starts(5))
    assert (starts(5) != starts(6)).any()


def test_copies_with_the_same_seed_are_equal_and_do_not_touch_each_other():
    world = make_world("simple_spread", copies=3)
    obs = world.reset([7, 8, 7])
    np.testing.assert_array_equal(obs[0], obs[2])
    assert (obs[0] != obs[1]).any()
    step = world.step(push_right(world))
    np.testing.assert_array_equal(step.obs[0], step.obs[2])


def test_automatic_starts_spread_over_the_whole_square():
    obs = make_world("simple_spread", copies=4000, seed=1, N=1).reset()
    positions = obs[:, 2:4]
    assert np.abs(positions).max() <= 1.0
    np.testing.assert_allclose(positions.mean(axis=0), 0.0, atol=0.05)
    np.testing.assert_allclose(positions.std(axis=0), 1 / np.sqrt(3), atol=0.03)


def test_a_step_leaves_the_callers_actions_as_they_were():
    for copies, n in ((1, 1), (3, 2)):
        world = spread(copies=copies, N=n)
        actions = np.full((copies, world.spec.action_dim), 7.0, np.float32)
        world.step(actions)
        assert (actions == 7.0).all()


def test_arrays_given_earlier_are_not_overwritten_later():
    world = spread()
    first = world.step(push_right(world))
    kept = [array.copy() for array in first[:6]]
    for _ in range(30):
        world.step(push_right(world))
    for array, copy in zip(first[:6], kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_two_agents_at_one_point_do_not_push_each_other():
    world = spread(copies=1, N=2)
    world.particles.pos[1] = world.particles.pos[0]
    world.particles.measure()
    step = world.step(np.zeros((1, 10), np.float32))
    assert np.isfinite(step.obs).all()
    assert (world.particles.vel == 0.0).all()
    assert (world.rewards == world.rewards[0]).all()


def test_parts_are_boxes_in_a_continuous_world_and_choices_in_a_discrete_one():
    assert world_spec("simple_spread").agents[0].parts == (Box((0.0,) * 5, (1.0,) * 5),)
    assert world_spec("simple_spread", continuous_actions=False).agents[0].parts == (Categorical(5),)


def test_the_spec_follows_the_options():
    spec = world_spec("simple_spread", N=5)
    assert [agent.name for agent in spec.agents] == [f"agent_{i}" for i in range(5)]
    assert {agent.obs_dim for agent in spec.agents} == {4 + 10 + 8 + 8}
    assert spec.sides == ("agent",)


def test_the_table_tells_options_and_defaults():
    row = next(row for row in scenarios() if row.name == "simple_spread")
    assert row.agents == ("agent_0", "agent_1", "agent_2")
    assert {option.name: option.default for option in row.options}["local_ratio"] == 0.5
    assert row.doc
    assert row.reward


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("simple_spraed", {}, "'simple_spraed'; did you mean simple_spread"),
        ("simple_spread", {"agents": 4}, "no option 'agents'. Its options and their defaults: continuous_actions=True"),
        ("simple_spread", {"N": 0}, "N=0 is not allowed; give a whole number, 1 or more"),
        ("simple_spread", {"N": "3"}, "N='3' is not allowed; give a whole number, 1 or more"),
        ("simple_spread", {"N": True}, "N=True is not allowed"),
        ("simple_spread", {"local_ratio": 1.5}, "local_ratio=1.5 is not allowed; give a number from 0 to 1"),
        ("simple_spread", {"dynamics": "old"}, "dynamics='old' is not allowed; give 'legacy' or 'mpe2'"),
        ("simple_spread", {"max_cycles": -1}, "max_cycles=-1 is not allowed"),
        ("simple_spread", {"copies": 0}, "copies=0"),
    ],
)
def test_a_wrong_name_or_option_is_refused_with_what_is_allowed(name, options, said):
    with pytest.raises(ConfigError) as refusal:
        make_world(name, **options)
    assert said in str(refusal.value)


def test_misuse_is_refused():
    world = make_world("simple_spread", copies=2)
    with pytest.raises(WorldError, match="before the first reset"):
        world.step(np.zeros((2, 15), np.float32))
    with pytest.raises(ValueError, match="3 seeds for 2 copies"):
        world.reset([1, 2, 3])
    world.reset()
    with pytest.raises(ValueError, match=r"\[2, 14\]"):
        world.step(np.zeros((2, 14), np.float32))
    actions = np.zeros((2, 15), np.float32)
    actions[1, 7] = np.nan
    with pytest.raises(WorldError, match="step 1 of copy 2 of 2: agent_1's action is NaN"):
        world.step(actions)


@pytest.mark.slow
def test_a_batched_world_needs_none_of_the_heavy_packages():
    program = (
        "import sys; from common.worlds import make_world; w = make_world('simple_spread', copies=2); w.reset();"
        "heavy = {'torch', 'mpe2', 'pettingzoo', 'pygame', 'gymnasium', 'scipy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
