"""Gymnasium and AEC environments as worlds: one agent, agents of Tuple and list spaces, turns."""

import sys
from types import ModuleType

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from common.errors import ConfigError, WorldError
from common.spec import Box, Categorical
from common.worlds import make_world
from common.worlds.adapters.first_copy import FirstCopy, Watch
from common.worlds.adapters.gymnasium_env import idle_action

NAME = "pettingzoo:rowing_v0:make"


class Rowing(gymnasium.Env):
    """Two rowers of other sizes; `changes` replaces attributes, or a method's result."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}  # noqa: RUF012

    def __init__(self, **changes):
        self.observation_space = spaces.Tuple((spaces.Box(-9, 9, (2,)), spaces.Discrete(3)))
        self.action_space = spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.Discrete(4, start=5)))
        self.reward, self.terminated, self.truncated, self.given, self.results = 2.0, False, False, [], {}
        for name, value in changes.items():
            setattr(self, name, value)

    def observe(self):
        return (np.float32([self.time, 0]), self.time % 3)

    def reset(self, seed=None, options=None):
        self.seed, self.time = seed, 0
        return self.results.get("reset", (self.observe(), {}))

    def step(self, action):
        self.time += 1
        self.given.append(action)
        return self.results.get("step", (self.observe(), self.reward, self.terminated, self.truncated, {}))

    def close(self):
        self.closed = True


@pytest.fixture
def made(monkeypatch):
    """Makes a world of an environment; returns both."""
    module = ModuleType("rowing_v0")
    monkeypatch.setitem(sys.modules, "rowing_v0", module)

    def make(env, **rules):
        module.make = lambda: env
        return make_world(NAME, seed=0, **rules)

    return make


def zeros(world):
    return np.zeros((1, world.spec.action_dim), np.float32)


def test_a_tuple_environment_has_an_agent_for_each_entry(made):
    env = Rowing()
    world = made(env)
    assert [(a.name, a.team, a.obs_dim, a.parts) for a in world.spec.agents] == [
        ("agent_0", "agent", 2, (Box((-1.0, -1.0), (1.0, 1.0)),)),
        ("agent_1", "agent", 3, (Categorical(4),)),
    ]
    assert [part.agent for part in world.spaces] == ["agent_0", "agent_1"]
    np.testing.assert_array_equal(world.reset([8]), [[0, 0, 1, 0, 0]])
    assert env.seed == 8
    step = world.step(np.float32([[0.5, -2, 0, 0, 1, 0]]))
    assert type(env.given[0]) is tuple
    np.testing.assert_array_equal(env.given[0][0], np.float32([0.5, -1]))
    assert env.given[0][1] == 7
    np.testing.assert_array_equal(step.next_obs, [[1, 0, 0, 1, 0]])
    np.testing.assert_array_equal(step.reward, [[2, 2]])
    world.close()
    assert env.closed


def test_a_list_environment_is_given_lists(made):
    class Lists(Rowing):
        observation_space = action_space = None

        def __init__(self):
            super().__init__()
            self.observation_space, self.action_space = list(self.observation_space), list(self.action_space)

        def step(self, action):
            observation, *_ = super().step(action)
            return list(observation), [1.0, -3], self.time == 2, False, {}

    env = Lists()
    world = made(env)
    world.reset()
    step = world.step(zeros(world))
    assert type(env.given[0]) is list
    np.testing.assert_array_equal(step.reward, [[1, -3]])
    step = world.step(zeros(world))
    assert step.episode_over[0]
    np.testing.assert_array_equal(step.discount, [[0, 0]])


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_an_agent_that_ends_first_idles_until_the_others_end(made, kind):
    env = Rowing(terminated=kind([False, True]), reward=kind([1.0, 2.0]))
    world = made(env)
    world.reset()
    first = world.step(zeros(world))
    np.testing.assert_array_equal(first.discount, [[1, 0]])
    np.testing.assert_array_equal(first.next_obs, [[1, 0, 0, 1, 0]])
    assert not first.episode_over[0]
    second = world.step(np.float32([[0, 0, 0, 0, 0, 1]]))
    np.testing.assert_array_equal(second.present, [[1, 0]])
    np.testing.assert_array_equal(second.reward, [[1, 0]])
    assert env.given[1][1] == 5
    env.truncated = True
    assert world.step(zeros(world)).episode_over[0]


def test_an_environment_of_one_agent(made):
    env = Rowing(observation_space=spaces.Box(-9, 9, (2,)), action_space=spaces.Box(-2, 2, (1,)))
    env.observe = lambda: np.float32([env.time, 0])
    world = made(env)
    assert [(a.name, a.obs_dim, a.action_dim) for a in world.spec.agents] == [("agent_0", 2, 1)]
    world.reset()
    env.reward, env.truncated = np.float64(-1.5), np.True_
    step = world.step(np.float32([[1.5]]))
    np.testing.assert_array_equal(env.given[0], np.float32([1.5]))
    assert (step.reward[0, 0], step.discount[0, 0], step.episode_over[0]) == (-1.5, 1.0, True)


def test_the_observation_of_one_agent_may_be_a_tuple(made):
    env = Rowing(action_space=spaces.Discrete(2))
    assert [a.obs_dim for a in made(env).spec.agents] == [5]


@pytest.mark.parametrize(
    ("observed", "said"),
    [
        (spaces.Box(-1, 1), "the action space has 2 entries, the observation space is Box"),
        (spaces.Tuple([spaces.Box(-1, 1)]), "the action space has 2 entries, the observation space 1"),
    ],
)
def test_spaces_of_other_lengths_are_refused(made, observed, said):
    with pytest.raises(ConfigError, match=f"{said}.*Wrap the environment in a PettingZoo ParallelEnv"):
        made(Rowing(observation_space=observed))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"results": {"reset": 3}}, r"reset of copy 1 of 1: reset returned 3 \(int\), not \(observation, info\)"),
        ({"results": {"step": (1, 2, 3, 4)}}, r"step returned 4 values, not .*Gym before 0\.26"),
        ({"results": {"step": None}}, r"step returned None, not \(observation, reward, terminated"),
        ({"results": {"step": (3, 0.0, False, False, {})}}, r"the observation is 3 \(int\), not 2 entries"),
        ({"reward": [1, 2, 3]}, r"reward is \[1, 2, 3\] \(list\): 3 entries for 2 agents"),
        ({"terminated": [False]}, ""),
        ({"terminated": [False, None]}, r"agent agent_1 was given None in the terminations, not True or False"),
        ({"reward": np.nan}, "agent agent_0 was given nan as reward"),
    ],
)
def test_what_breaks_the_contract_is_an_error_in_words(made, changes, said):
    def play():
        world = made(Rowing(**changes))
        world.reset()
        world.step(zeros(world))

    if not said:
        play()
        return
    with pytest.raises(WorldError, match=f"^{NAME}: .*{said}"):
        play()


def test_the_idle_action_is_the_nearest_to_zero():
    np.testing.assert_array_equal(idle_action(spaces.Box(np.float32([-1, 2]), np.float32([1, 3]))), [0, 2])
    assert idle_action(spaces.Discrete(3, start=4)) == 4
    np.testing.assert_array_equal(idle_action(spaces.MultiDiscrete([2, 3], start=[1, 5])), [1, 5])
    np.testing.assert_array_equal(idle_action(spaces.MultiBinary(2)), [0, 0])


def test_turns_are_converted():
    pytest.importorskip("pettingzoo.classic.tictactoe.tictactoe")
    for name in ("pettingzoo:classic/tictactoe-v3", "pettingzoo:pettingzoo.classic.tictactoe_v3"):
        world = make_world(name, seed=0)
        world.reset([0])
        actions = np.zeros((1, world.spec.action_dim), np.float32)
        for turn in range(5):
            # player_1 takes squares 0, 1, 2; player_2 takes 3, 4.
            actions[0] = 0
            first, second = (turn // 2, 8) if turn % 2 == 0 else (8, 3 + turn // 2)
            actions[0, [first, 9 + second]] = 1.0
            step = world.step(actions)
        np.testing.assert_array_equal(step.reward, [[1, -1]])
        assert step.episode_over[0]


def test_a_conversion_is_reported_once_by_the_first_copy():
    pytest.importorskip("pettingzoo.classic.tictactoe.tictactoe")
    said = []
    name = "pettingzoo:classic/tictactoe-v3"
    found = FirstCopy(name, {}, Watch(notify=said.append)).read()
    assert [agent.name for agent in found.agents.agents] == ["player_1", "player_2"]
    # On a slow machine, the time that the import takes is reported too.
    (conversion,) = [text for text in said if text.startswith(f"{name}: ")]
    assert conversion.startswith(
        f"{name}: an AEC environment, converted by PettingZoo's turn_based_aec_to_parallel: in each"
    )


def test_illegal_moves_are_neither_printed_nor_kept(caplog):
    pytest.importorskip("pettingzoo.classic.tictactoe.tictactoe")
    from pettingzoo.utils.env_logger import EnvLogger

    world = make_world("pettingzoo:classic/tictactoe-v3", seed=0)
    world.reset([0])
    caplog.clear()
    for _ in range(9):
        world.step(np.zeros((1, world.spec.action_dim), np.float32))
    assert not [line for line in caplog.messages if "Illegal" in line]
    assert len(EnvLogger.mqueue) <= 1


def test_an_aec_environment_that_updates_once_a_cycle_is_stepped_by_all_agents(monkeypatch):
    from pettingzoo.utils import parallel_to_aec

    from tests.common.worlds.adapters.test_pettingzoo_world import Falling

    module = ModuleType("falling_aec_v0")
    module.env = lambda: parallel_to_aec(Falling())
    monkeypatch.setitem(sys.modules, "falling_aec_v0", module)
    world = make_world("pettingzoo:falling_aec_v0", seed=0)
    world.reset()
    assert world.step(np.zeros((1, world.spec.action_dim), np.float32)).present.tolist() == [[1, 1, 1]]
