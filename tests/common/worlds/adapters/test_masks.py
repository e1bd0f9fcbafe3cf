"""Action masks of environments become the last numbers of observations, from which all choices respect them."""

import sys
from types import ModuleType

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from actor_node.collection.exploration import Exploration
from actor_node.evaluation.teams import RandomTeam, SampledPolicy
from common.errors import WorldError
from common.policy.network import Policy
from common.run.run import ExplorationSpec, Run, make_run_spec
from common.spec import Categorical
from common.worlds import make_world, world_spaces
from common.worlds.adapters.pettingzoo_world import _warn_once
from tests.common.examples import random_weights
from tests.common.worlds.masked_channels import CHANNELS, FREE, MaskedChannels

NAME = "pettingzoo:tests.common.worlds.masked_channels"
PLACES = ("observation", "info")


@pytest.fixture
def module(monkeypatch):
    found = ModuleType("masked_v0")
    monkeypatch.setitem(sys.modules, "masked_v0", found)
    return found


def make(module, env):
    """Returns a world of one environment."""
    module.parallel_env = lambda: env
    return make_world("pettingzoo:masked_v0", seed=0)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("levels", [0, 2])
def test_the_mask_is_the_end_of_the_observation(where, levels):
    world = make_world(NAME, copies=3, seed=0, where=where, levels=levels)
    agent = world.spec.agents[0]
    parts = (Categorical(CHANNELS), Categorical(levels)) if levels else (Categorical(CHANNELS),)
    assert (agent.obs_dim, agent.parts, agent.masked) == (2 * CHANNELS + levels, parts, True)
    obs = world.reset()
    for own in (agent.obs_slice for agent in world.spec.agents):
        worth, mask = np.split(obs[:, own], [CHANNELS], axis=1)
        assert ((worth > 0) & (worth < 1)).all()
        assert (mask[:, :CHANNELS].sum(axis=1) == FREE).all()
        assert (mask[:, CHANNELS:] == 1).all()
        assert set(np.unique(mask)) <= {0, 1}
    observation, mask = world_spaces(world)[0].observation
    assert (observation.columns, observation.key) == ((0, CHANNELS), ("observation",))
    assert (mask.columns, mask.key) == ((CHANNELS, agent.obs_dim), ("action_mask",))


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("levels", [0, 2])
@pytest.mark.parametrize("choices", ["gumbel", "epsilon"])
def test_no_way_of_acting_takes_a_forbidden_action(where, levels, choices):
    world = make_world(NAME, copies=4, seed=0, where=where, levels=levels)
    run = Run("a1b2c3d4", make_run_spec({"scenario": NAME, "network": {"policy_hidden": (8,)}}), world.spec)
    flat = random_weights(run)
    policy = Policy(run.players, run.spec.network, flat)
    exploration = Exploration(world.spec, ExplorationSpec(choices=choices), 4, np.random.default_rng(0))
    sampled = SampledPolicy(run.players, run.spec.network, flat, 0)
    ways = [
        lambda obs: exploration.act(policy.logits(obs), 0.5, 1.0),
        lambda obs: exploration.act(policy.logits(obs), 0.5, 0.5),
        lambda obs: exploration.act(policy.logits(obs), 0.5, 0.0),
        policy.act,
        sampled.act,
        RandomTeam(world.spec, 0).act,
    ]
    for act in ways:
        obs = world.reset()
        for _ in range(20):
            obs = world.step(act(obs)).obs


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("mask", [np.zeros(CHANNELS, np.int8), [0] * CHANNELS])
def test_a_mask_that_allows_nothing_allows_everything(where, mask):
    obs = make_world(NAME, where=where, first_mask=mask).reset()
    assert (obs[0, CHANNELS : 2 * CHANNELS] == 1).all()


def test_an_agent_that_has_ended_may_have_no_mask(module):
    env = MaskedChannels("info")
    step = env.step
    env.step = lambda actions: (*step(actions)[:4], {})
    world = make(module, env)
    world.reset()
    assert (world.step(np.zeros((1, 2 * CHANNELS), np.float32)).next_obs[:, CHANNELS : 2 * CHANNELS] == 1).all()


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("mask", [np.ones(5), np.full(CHANNELS, 0.5), np.full(CHANNELS, -1), np.full(CHANNELS, np.nan)])
def test_a_mask_of_a_wrong_size_or_value_is_a_fault_of_the_agent(where, mask):
    world = make_world(NAME, where=where, first_mask=mask)
    with pytest.raises(WorldError, match=r"reset of copy 1 of 1: agent player_0 .*(expected 6|not \(6,\))"):
        world.reset()


@pytest.mark.parametrize("mask", ["often", {"a": 1}, object()])
def test_a_mask_of_a_strange_kind_is_a_fault_of_the_agent(mask):
    world = make_world(NAME, where="info", first_mask=mask)
    with pytest.raises(WorldError, match=r"player_0 has the action mask .*, expected 6 numbers, 1 \(allowed\) or 0"):
        world.reset()


def test_a_mask_space_of_a_wrong_size_is_a_fault(module):
    env = MaskedChannels()
    env._seen = spaces.Dict(observation=spaces.Box(0, 1, (2,)), action_mask=spaces.MultiBinary(5))
    with pytest.raises(WorldError, match=r"agent player_0 observes the action mask .* of 5 numbers, expected 6"):
        make(module, env)


def test_masks_may_come_as_one_array_a_choice(module):
    env = MaskedChannels("info", first_mask=(np.int8([0, 0, 1, 0, 0, 1]), np.int8([1, 0])), levels=2)
    obs = make(module, env).reset()
    np.testing.assert_array_equal(obs[0, CHANNELS : 2 * CHANNELS + 2], [0, 0, 1, 0, 0, 1, 1, 0])


def test_an_observation_may_be_a_mask_alone(module):
    env = MaskedChannels()
    env._seen = spaces.Dict(action_mask=spaces.MultiBinary(CHANNELS))
    observe = env._observe
    env._observe = lambda: ({a: {"action_mask": o["action_mask"]} for a, o in observe()[0].items()}, {})
    world = make(module, env)
    assert world.spec.agents[0].obs_dim == CHANNELS
    assert world.reset()[0].sum() == 2 * FREE


def test_masks_of_continuous_actions_are_ordinary_numbers(module):
    env = MaskedChannels()
    env._acted = spaces.Box(-1, 1, (2,))
    world = make(module, env)
    assert (world.spec.agents[0].obs_dim, world.spec.agents[0].masked) == (2 * CHANNELS, False)


def test_the_first_copy_alone_is_reset_to_look_for_masks_in_infos(module):
    envs = [MaskedChannels("info"), MaskedChannels("info")]
    made = iter(envs)
    module.parallel_env = lambda: next(made)
    make_world("pettingzoo:masked_v0", copies=2, seed=5).reset()
    seeds = [int(seed) for seed in np.random.default_rng(5).integers(2**31, size=2)]
    assert [env.resets for env in envs] == [[0, seeds[0]], [seeds[1]]]
    env = MaskedChannels()
    make(module, env)
    assert env.resets == []


def test_an_agent_that_joins_later_has_masks_like_the_others(module):
    env = MaskedChannels("info")
    reset = env.reset

    def late(seed=None, options=None):
        seen, infos = reset(seed, options)
        env.agents = ["player_0"]
        return {"player_0": seen["player_0"]}, {"player_0": infos["player_0"]}

    env.reset = late
    world = make(module, env)
    assert [agent.masked for agent in world.spec.agents] == [True, True]


def test_masks_that_appear_after_the_reset_are_not_used_and_named(module, caplog):
    env = MaskedChannels("info")
    reset = env.reset
    env.reset = lambda seed=None, options=None: (reset(seed, options)[0], {})
    _warn_once.cache_clear()
    world = make(module, env)
    world.reset()
    assert not caplog.records
    env._free = {agent: np.ones(CHANNELS, bool) for agent in env.possible_agents}
    world.step(np.zeros((1, 2 * CHANNELS), np.float32))
    assert [record.getMessage() for record in caplog.records if "Return it from reset on" in record.getMessage()]


class Crossing(gymnasium.Env):
    """Two cars that choose one of three lanes; its info has one mask for each car."""

    observation_space = spaces.Tuple([spaces.Box(0, 1, (2,)), spaces.Box(0, 1, (2,))])
    action_space = spaces.Tuple([spaces.Discrete(3), spaces.Discrete(3)])

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {"action_mask": [[1, 0, 1], [0, 1, 0]]}


def test_each_agent_of_a_gymnasium_team_has_its_own_mask(module):
    world = make(module, Crossing())
    obs = world.reset()
    assert [agent.masked for agent in world.spec.agents] == [True, True]
    np.testing.assert_array_equal(obs[0, [2, 3, 4, 7, 8, 9]], [1, 0, 1, 0, 1, 0])
