"""Limits on episodes and copies that wait for a reset, alike in the batched worlds, in mpe2 and in the adapter."""

import numpy as np
import pytest

from common.errors import ConfigError
from common.worlds import make_world, world_spec

NAMES = ("simple_spread", "mpe2:simple_spread", "pettingzoo:mpe2.simple_spread_v3")


def zeros(world):
    return np.zeros((world.copies, world.spec.action_dim), np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_truncates_episodes(name):
    world = make_world(name, 2, seed=0, options={"continuous_actions": True}, max_episode_steps=3)
    world.reset()
    steps = [world.step(zeros(world)) for _ in range(7)]
    assert [bool(step.episode_over.all()) for step in steps] == [False, False, True, False, False, True, False]
    assert all((step.discount == 1.0).all() and (step.present == 1.0).all() for step in steps)


@pytest.mark.parametrize("name", NAMES[1:])
def test_first_episodes_of_separate_environments_may_be_shorter(name):
    options = {"continuous_actions": True, "max_cycles": 4}
    world = make_world(name, 3, seed=0, options=options, first_episode_steps=(1, 3, 0))
    world.reset()
    ends = np.array([world.step(zeros(world)).episode_over for _ in range(9)])
    assert [list(np.flatnonzero(copy) + 1) for copy in ends.T] == [[1, 5, 9], [3, 7], [4, 8]]


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_that_ended_waits_for_its_reset(name):
    world = make_world(name, 2, seed=0, options={"continuous_actions": True, "max_cycles": 2}, restart_ended=False)
    world.reset()
    first, last, after = (world.step(zeros(world)) for _ in range(3))
    assert all(rows.all() for rows in (first.present, last.present, last.episode_over))
    assert not any(rows.any() for rows in (after.present, after.reward, after.episode_over))
    world.reset()
    assert world.step(zeros(world)).present.all()


@pytest.mark.parametrize("name", NAMES)
def test_every_copy_is_reported_when_it_is_made(name):
    made = []
    make_world(name, 3, seed=0, on_made=made.append)
    assert made == [0, 1, 2]


@pytest.mark.parametrize("option", ["seed", "copies", "name", "options", "on_made", "max_episode_steps"])
def test_options_called_like_our_parameters_are_unknown_options_of_a_scenario(option):
    with pytest.raises(ConfigError, match=f"no option '{option}'"):
        world_spec("simple_spread", {option: 3})
