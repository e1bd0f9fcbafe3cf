"""Both engines keep one contract: a run may continue with the other one."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from common.run.run import Run, make_run_spec
from learner_node.algorithms.maddpg import Maddpg
from learner_node.engine import Engine, make_engine
from learner_node.engine_choice import EngineName
from learner_node.persistence.state import Counters, copy_state, restore_state
from learner_node.stacked.update import StackedUpdate
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records

DOUBLE = torch.zeros((), dtype=torch.float64)
EVERY_TEAM = pytest.mark.parametrize("team", ["spread", "tag", "mixed", "masked"])


def engine_of(team: str, name: str) -> Engine:
    settings = {
        "network": {"policy_hidden": (8, 6), "critic_hidden": (7, 5), "tell_apart": True},
        "algorithm": {"name": "matd3", "engine": name, "normalise_observations": True, "normalise_rewards": True},
    }
    return make_engine(Run("r", make_run_spec({"scenario": "simple_spread"}, settings), TEAMS[team]), DOUBLE)


def train(engine: Engine, team: str, seeds: range) -> Engine:
    for seed in seeds:
        fields = as_fields(random_records(TEAMS[team], 16, seed, absences=True), torch.float64)
        engine.update(engine.normalise(as_batch(fields)), 1e-3, 1e-3, update_policies=seed % 2 == 1)
    return engine


def test_the_setting_names_the_engine() -> None:
    assert isinstance(engine_of("spread", "autograd"), Maddpg)
    assert isinstance(engine_of("spread", "stacked"), StackedUpdate)
    assert isinstance(engine_of("spread", "auto"), StackedUpdate)


@EVERY_TEAM
def test_both_engines_start_alike(team: str) -> None:
    one, other = (copy_state(engine_of(team, name), Counters()).tensors for name in get_args(EngineName))
    assert list(one) == list(other)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name])


@EVERY_TEAM
@pytest.mark.parametrize("before", get_args(EngineName))
@pytest.mark.parametrize("after", get_args(EngineName))
def test_a_run_continues_with_either_engine(team: str, before: str, after: str) -> None:
    whole = train(engine_of(team, before), team, range(6))
    state = copy_state(train(engine_of(team, before), team, range(3)), Counters())
    resumed = engine_of(team, after)
    restore_state(resumed, state)
    train(resumed, team, range(3, 6))
    expected, found = (copy_state(engine, Counters()).tensors for engine in (whole, resumed))
    assert list(expected) == list(found)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-9)


@EVERY_TEAM
def test_the_critics_layers_are_the_same_from_both_engines(team: str) -> None:
    autograd, stacked = (train(engine_of(team, name), team, range(2)) for name in get_args(EngineName))
    for critic in range(len(autograd.layout.critics)):
        layers = zip(autograd.critic_layers(critic), stacked.critic_layers(critic), strict=True)
        for one, other in layers:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
