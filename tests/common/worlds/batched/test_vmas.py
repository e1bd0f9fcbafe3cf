"""VMAS in one batch: its own numbers, its ends and its options. Needs `pip install 'shoal[vmas]'`."""

import numpy as np
import pytest

from common.errors import ConfigError
from common.spec import Box, Categorical
from common.worlds import make_world, world_spec

vmas = pytest.importorskip("vmas")
pytestmark = pytest.mark.slow


def actions(world, steps=1, seed=0):
    drawn = np.random.default_rng(seed).uniform(-1, 1, (steps, world.copies, world.spec.action_dim))
    return list(drawn.astype(np.float32))


def test_steps_are_those_of_vmas():
    world = make_world("vmas:simple_spread", 3, seed=7)
    env = vmas.make_env("simple_spread", num_envs=3, seed=7, terminated_truncated=True)
    with world._inner._isolated():
        world._inner._env.seed(7)
    env.seed(7)
    np.testing.assert_array_equal(world.reset(), np.concatenate(env.reset(), axis=1))
    for row in actions(world, 5):
        step = world.step(row)
        obs, rewards, *_ = env.step([row[:, agent.action_slice] for agent in world.spec.agents])
        np.testing.assert_array_equal(step.next_obs, np.concatenate(obs, axis=1))
        np.testing.assert_array_equal(step.reward, np.stack(rewards, axis=1))


def test_an_episode_is_truncated_after_its_steps_and_ends_truly_where_vmas_says_so():
    world = make_world("vmas:balance", 32, seed=0, max_steps=50)
    world.reset(range(32))
    steps = [world.step(row) for row in actions(world, 55)]
    ended = [step for step in steps if step.episode_over.any()]
    true_ends = sum(int((step.discount == 0).all(axis=1).sum()) for step in steps)
    assert 0 < true_ends < sum(int(step.episode_over.sum()) for step in steps)
    for step in ended:
        assert (step.obs[step.episode_over] != step.next_obs[step.episode_over]).any(axis=1).all()
        np.testing.assert_array_equal(step.obs[~step.episode_over], step.next_obs[~step.episode_over])


def test_a_seed_gives_the_same_start_in_any_copy_and_worlds_do_not_share_random_numbers():
    first, second = make_world("vmas:balance", 3, seed=0), make_world("vmas:balance", 3, seed=0)
    np.testing.assert_array_equal(first.reset([1, 2, 3]), second.reset([3, 2, 1])[::-1])
    third = make_world("vmas:balance", 3, seed=0)
    np.testing.assert_array_equal(make_world("vmas:balance", 3, seed=0).reset(), third.reset())


def test_a_limit_of_the_run_applies_too():
    world = make_world("vmas:simple", 2, seed=0, max_episode_steps=3)
    world.reset()
    assert [step.episode_over.all() for step in map(world.step, actions(world, 4))] == [False, False, True, False]


def test_actions_are_continuous_or_choices():
    box, one, several = (
        world_spec("vmas:balance", **options).agents[0].parts
        for options in ({}, {"continuous_actions": False}, {"continuous_actions": False, "multidiscrete_actions": True})
    )
    assert box == (Box((-1.0, -1.0), (1.0, 1.0)),)
    assert one == (Categorical(9),)
    assert several == (Categorical(3), Categorical(3))
    for options in ({"continuous_actions": False}, {"continuous_actions": False, "multidiscrete_actions": True}):
        world = make_world("vmas:balance", 2, seed=0, options=options)
        world.reset()
        assert np.isfinite(world.step(np.abs(actions(world)[0])).reward).all()


def test_actions_beyond_the_bounds_are_clipped():
    world = make_world("vmas:simple", 2, seed=0)
    world.reset()
    assert np.isfinite(world.step(np.full((2, world.spec.action_dim), 5.0, np.float32)).reward).all()


def test_an_unknown_scenario_or_option_is_refused():
    with pytest.raises(ConfigError, match="no scenario 'balanse'; did you mean balance"):
        make_world("vmas:balanse", 2)
    with pytest.raises(ConfigError, match=r"does not use an option.*agents_n"):
        make_world("vmas:balance", 2, options={"agents_n": 4})
    assert len(world_spec("vmas:balance", n_agents=4).agents) == 4
