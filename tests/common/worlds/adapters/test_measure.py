"""What a second of random actions says about an environment."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from common.spec import Box
from common.worlds import make_world, world_spec
from common.worlds.adapters.measure import MAX_STEPS, measure, random_actions, stated_limit

NAME = "pettingzoo:mpe2.simple_spread_v3"
FAST: Any = itertools.repeat(0.0).__next__
"""A clock that stands still."""


@pytest.mark.parametrize("continuous", [True, False])
def test_a_truncation_is_the_time_limit(continuous: bool) -> None:
    world = make_world(NAME, options={"max_cycles": 7, "continuous_actions": continuous})
    facts = measure(world, FAST)
    assert (facts.steps, facts.time_limit, facts.longest_episode, facts.batched) == (28, 7, 7, False)


def test_a_limit_beyond_the_measured_steps_is_read_from_the_environment() -> None:
    facts = measure(make_world(NAME, options={"max_cycles": 1_000_000}), itertools.count(0.0, 0.4).__next__)
    assert facts.steps == 3
    assert facts.time_limit == 1_000_000
    assert facts.longest_episode == 0
    assert facts.step_s == pytest.approx(0.4)


def test_a_batched_world_is_known_and_has_no_environment_to_ask() -> None:
    facts = measure(make_world("simple_tag"), FAST)
    assert facts.batched
    assert facts.time_limit == 25
    assert facts.steps <= MAX_STEPS


def test_an_attribute_that_fails_or_is_no_count_is_no_limit() -> None:
    class Odd:
        max_cycles = True
        max_steps = "many"

        @property
        def unwrapped(self) -> None:
            raise RuntimeError("no")

    world = make_world(NAME)
    world.wrap(lambda _: Odd())  # type: ignore[attr-defined]
    assert stated_limit(world) == 0


def test_random_actions_are_legal() -> None:
    for name, options in (("simple_world_comm", {}), ("simple_tag", {"continuous_actions": False})):
        spec, rng = world_spec(name, options), np.random.default_rng(0)
        row = random_actions(spec, np.zeros((1, spec.obs_dim), np.float32), rng)[0]
        assert len(row) == spec.action_dim
        for agent in spec.agents:
            own = row[agent.action_slice]
            for part, columns in zip(agent.parts, agent.part_slices, strict=True):
                if isinstance(part, Box):
                    assert (own[columns] >= part.low).all()
                    assert (own[columns] <= part.high).all()
                else:
                    assert sorted(own[columns]) == [0.0] * (part.n - 1) + [1.0]


def test_random_actions_respect_action_masks() -> None:
    facts = measure(make_world("pettingzoo:tests.common.worlds.masked_channels", options={"levels": 2}), FAST)
    assert facts.time_limit == 15
