"""The adapter for any ParallelEnv, shown on a small environment whose agents die at different times."""

import sys
from itertools import pairwise
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
from gymnasium import spaces
from pettingzoo import ParallelEnv

from common.errors import ConfigError, WorldError
from common.spec import Box, Categorical
from common.worlds import make_world, world_spec
from common.worlds.adapters.spaces import action_codec


class Falling(ParallelEnv):
    """hawk_0 dies at step 2, mouse_0 is cut off at step 4, mouse_1 dies at step 3."""

    metadata: ClassVar = {"name": "falling"}
    possible_agents: ClassVar = ["hawk_0", "mouse_0", "mouse_1"]
    lifetimes: ClassVar = {"hawk_0": 2, "mouse_0": 4, "mouse_1": 3}
    cut_off: ClassVar = {"mouse_0"}

    def __init__(self, fault=None):
        self.fault = fault
        self.given = []

    def observation_space(self, agent):
        return spaces.Discrete(3) if agent == "mouse_1" else spaces.Box(-9, 9, (2, 2) if agent == "hawk_0" else (3,))

    def action_space(self, agent):
        return {
            "hawk_0": spaces.Box(np.float32([-1, -2]), np.float32([1, 2])),
            "mouse_0": spaces.Discrete(4, start=10),
            "mouse_1": spaces.MultiDiscrete([2, 3]),
        }[agent]

    def observe(self, agent):
        if agent == "mouse_1":
            return self.time % 3
        return np.full(self.observation_space(agent).shape, self.time, np.float64)

    def reset(self, seed=None, options=None):
        self.seed, self.time, self.agents = seed, 0, list(self.possible_agents)
        return {agent: self.observe(agent) for agent in self.agents}, {}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        self.given.append(actions)
        self.time += 1
        acted = list(self.agents)
        ended = {agent: self.time >= self.lifetimes[agent] for agent in acted}
        self.agents = [agent for agent in acted if not ended[agent]]
        observations = {agent: self.observe(agent) for agent in acted}
        rewards = {agent: self.time + 10.0 * i for i, agent in enumerate(acted)}
        terminations = {agent: ended[agent] and agent not in self.cut_off for agent in acted}
        truncations = {agent: ended[agent] and agent in self.cut_off for agent in acted}
        if self.fault is not None:
            self.fault(self, observations, rewards)
        return observations, rewards, terminations, truncations, {agent: {"time": self.time} for agent in acted}

    def close(self):
        self.closed = True


@pytest.fixture
def module(monkeypatch):
    module = ModuleType("falling_v0")
    module.parallel_env = Falling
    monkeypatch.setitem(sys.modules, "falling_v0", module)
    return module


def make(copies=1, **options):
    return make_world("pettingzoo:falling_v0", copies=copies, seed=3, **options)


def some_actions(world):
    return np.zeros((world.copies, world.spec.action_dim), np.float32)


def test_the_spec_tells_sizes_parts_and_teams(module):
    spec = world_spec("pettingzoo:falling_v0")
    assert [(a.name, a.team, a.obs_dim) for a in spec.agents] == [
        ("hawk_0", "hawk", 4),
        ("mouse_0", "mouse", 3),
        ("mouse_1", "mouse", 3),
    ]
    assert spec.agents[0].parts == (Box((-1.0, -2.0), (1.0, 2.0)),)
    assert spec.agents[1].parts == (Categorical(4),)
    assert spec.agents[2].parts == (Categorical(2), Categorical(3))
    assert spec.action_dim == 2 + 4 + 5


def test_agents_that_end_early_are_absent_from_then_on(module):
    world = make()
    obs = world.reset([1])
    np.testing.assert_array_equal(obs, [[0] * 4 + [0] * 3 + [1, 0, 0]])
    steps = [world.step(some_actions(world)) for _ in range(4)]
    assert [s.present[0].tolist() for s in steps] == [[1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 1, 0]]
    assert [s.discount[0].tolist() for s in steps] == [[1, 1, 1], [0, 1, 1], [0, 1, 0], [0, 1, 0]]
    assert [s.reward[0].tolist() for s in steps] == [[1, 11, 21], [2, 12, 22], [0, 3, 13], [0, 4, 0]]
    assert [s.episode_over[0] for s in steps] == [False, False, False, True]
    np.testing.assert_array_equal(steps[1].next_obs, [[2] * 4 + [2] * 3 + [0, 0, 1]])
    np.testing.assert_array_equal(steps[1].obs, [[0] * 4 + [2] * 3 + [0, 0, 1]])
    np.testing.assert_array_equal(steps[2].next_obs, [[0] * 4 + [3] * 3 + [1, 0, 0]])
    np.testing.assert_array_equal(steps[3].next_obs, [[0] * 4 + [4] * 3 + [0, 0, 0]])
    np.testing.assert_array_equal(steps[3].obs, obs)
    assert world.infos[0] == {"mouse_0": {"time": 4}}


def test_after_an_automatic_reset_everyone_is_back(module):
    world = make()
    world.reset()
    for _ in range(4):
        world.step(some_actions(world))
    step = world.step(some_actions(world))
    assert step.present.tolist() == [[1, 1, 1]]
    assert step.discount.tolist() == [[1, 1, 1]]


def test_actions_reach_the_environment_in_its_own_form(module):
    envs = []
    module.parallel_env = lambda: envs.append(Falling()) or envs[-1]
    world = make(copies=2)
    world.reset([4, 5])
    assert [env.seed for env in envs] == [4, 5]
    actions = some_actions(world)
    actions[0, :2] = [5.0, -1.5]
    actions[0, 2:6] = [0.1, 0.2, 0.9, 0.3]
    actions[0, 6:11] = [0, 1, 0, 0, 1]
    world.step(actions)
    given = envs[0].given[0]
    np.testing.assert_array_equal(given["hawk_0"], np.float32([1.0, -1.5]))
    assert given["mouse_0"] == 12
    assert given["mouse_1"].tolist() == [1, 2]
    for agent, action in given.items():
        assert envs[0].action_space(agent).contains(action)
    assert envs[1].given[0]["mouse_0"] == 10
    world.close()
    assert all(env.closed for env in envs)


def test_the_same_world_seed_draws_the_same_episode_seeds(module):
    envs = []
    module.parallel_env = lambda: envs.append(Falling()) or envs[-1]
    make(copies=2).reset()
    make(copies=2).reset()
    assert [e.seed for e in envs[:2]] == [e.seed for e in envs[2:]]
    assert envs[0].seed != envs[1].seed


def come_back(env, observations, rewards):
    if env.time == 3:
        env.agents.append("hawk_0")


def vanish(env, observations, rewards):
    if env.time == 1:
        env.agents.remove("mouse_0")


def nan_observation(env, observations, rewards):
    if env.time == 2:
        observations["mouse_0"][1] = np.nan


def infinite_reward(env, observations, rewards):
    rewards["mouse_1"] = np.inf


def no_reward(env, observations, rewards):
    del rewards["hawk_0"]


def no_observation(env, observations, rewards):
    del observations["mouse_0"]


FIRST = "step 1 of copy 1 of 1:"


def longer_observation(env, observations, rewards):
    observations["mouse_0"] = np.zeros(4)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            come_back,
            "step 3 of copy 1 of 1: agent hawk_0 has ended in this episode and is among the acting agents again",
        ),
        (vanish, "step 1 of copy 1 of 1: agent mouse_0 vanished without a termination or truncation"),
        (nan_observation, "step 2 of copy 1 of 1: agent mouse_0 was given nan as observation"),
        (infinite_reward, "step 1 of copy 1 of 1: agent mouse_1 was given inf as reward"),
        (no_reward, "step 1 of copy 1 of 1: agent hawk_0 acted and was given no reward"),
        (no_observation, "step 1 of copy 1 of 1: agent mouse_0 was given no observation"),
        (longer_observation, f"{FIRST} agent mouse_0 was given as observation 4 numbers of shape (4,), not (3,)"),
    ],
)
def test_a_broken_environment_is_an_error_that_names_world_agent_and_step(module, fault, said):
    world = make(fault=fault)
    world.reset()
    with pytest.raises(WorldError) as error:  # noqa: PT012
        for _ in range(4):
            world.step(some_actions(world))
    assert str(error.value) == f"pettingzoo:falling_v0: {said}"


def test_what_cannot_be_acted_in_or_made_is_refused(module):
    class Unbounded(Falling):
        def action_space(self, agent):
            return spaces.Box(-np.inf, np.inf, (2,))

    class Spoken(Falling):
        def action_space(self, agent):
            return spaces.Text(3)

    class Mixed(Falling):
        def action_space(self, agent):
            return spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (2,))))

    for env, said in (
        (Unbounded, "no finite bounds"),
        (Spoken, "Shoal supports Box of floats, Discrete"),
        (Mixed, "for mixed actions, give the Box one number for each choice and take the argmax"),
    ):
        module.parallel_env = env
        with pytest.raises(ConfigError, match=f"agent hawk_0 acts in .*{said}"):
            make()
    module.parallel_env = Falling
    with pytest.raises(ConfigError, match="has no option 'colour'; known: fault"):
        make(colour="red")
    del module.parallel_env
    with pytest.raises(ConfigError, match=r"has no parallel_env\(\)"):
        make()
    for missing in ("no_such_module", "no_such_package.module", "tests.no_such_module"):
        with pytest.raises(
            ConfigError, match=f"cannot import {missing}.* directory of its file: export PYTHONPATH=.PWD$"
        ):
            make_world(f"pettingzoo:{missing}")


def test_a_module_that_lacks_another_is_told_apart_from_one_that_is_not_found(tmp_path, monkeypatch):
    (tmp_path / "lacking.py").write_text("import no_such_engine\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"No module named 'no_such_engine'; install what lacking needs$"):
        make_world("pettingzoo:lacking")


def test_steps_before_a_reset_and_wrong_shapes_are_refused(module):
    world = make()
    with pytest.raises(WorldError, match="before the first reset"):
        world.step(some_actions(world))
    with pytest.raises(ValueError, match=r"\[1, 3\]"):
        world.step(np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="2 seeds for 1 copies"):
        world.reset([1, 2])


@pytest.mark.slow
@pytest.mark.parametrize("continuous", [True, False])
def test_mpe2_through_the_adapter_equals_the_batched_world(continuous):
    options = {"N": 2, "continuous_actions": continuous, "max_cycles": 6}
    ours = make_world("simple_spread", copies=3, **options)
    theirs = make_world("pettingzoo:mpe2.simple_spread_v3", copies=3, **options)
    np.testing.assert_array_equal(ours.reset([1, 2, 3]), theirs.reset([1, 2, 3]))
    rng = np.random.default_rng(0)
    for _ in range(6):
        actions = rng.uniform(-1, 2, (3, 10)).astype(np.float32)
        a, b = ours.step(actions), theirs.step(actions)
        np.testing.assert_array_equal(a.next_obs, b.next_obs)
        for name in ("reward", "discount", "present", "episode_over"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.episode_over.all()


def play(world, steps):
    world.reset()
    rng = np.random.default_rng(0)
    for _ in range(steps):
        yield world.step(rng.uniform(0, 1, (world.copies, world.spec.action_dim)).astype(np.float32))


@pytest.mark.slow
def test_pursuit_runs_to_its_time_limit():
    world = make_world("pettingzoo:pettingzoo.sisl.pursuit_v5", copies=1, seed=0, max_cycles=10, n_pursuers=3)
    assert world.spec.sides == ("pursuer",)
    steps = list(play(world, 10))
    assert [bool(step.episode_over[0]) for step in steps] == [False] * 9 + [True]
    assert (steps[-1].discount == 1.0).all()
    world.close()


@pytest.mark.slow
def test_agents_of_knights_archers_zombies_die_before_the_others():
    world = make_world("pettingzoo:pettingzoo.butterfly.knights_archers_zombies_v11", copies=2, seed=0)
    assert world.spec.sides == ("archer", "knight")
    steps = list(play(world, 250))
    present = np.array([step.present for step in steps])
    assert 0.0 < present.mean() < 1.0
    for before, step in pairwise(steps):
        dead = (before.discount == 0.0) & ~before.episode_over[:, None]
        assert (step.present[dead] == 0.0).all()
        assert (step.reward[dead] == 0.0).all()
    assert any(step.episode_over.any() for step in steps)
    world.close()


def test_a_box_is_clipped_in_its_own_type_and_each_copy_owns_its_action():
    _, decode = action_codec(spaces.Box(-0.4, 0.4, (2,), np.float64), "")
    first, second = decode(np.float32([[-0.4, 9.0], [0.1, -9.0]]))
    assert first.tolist() == [-0.4, 0.4], "float32's -0.4 is below the bound"
    first[:] = 0.0
    assert second.tolist() == [float(np.float32(0.1)), -0.4]


def test_an_action_without_dimensions_is_an_array():
    _, decode = action_codec(spaces.Box(-1.0, 1.0, ()), "")
    (action,) = decode(np.float32([[5.0]]))
    assert isinstance(action, np.ndarray)
    assert (action.shape, float(action)) == ((), 1.0)
