"""What an environment returns or raises against PettingZoo's contract becomes one error in words, or is a number."""

import re
import sys
from decimal import Decimal
from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest
from gymnasium import spaces
from pettingzoo import ParallelEnv

from common.errors import ConfigError, WorldError
from common.worlds import make_world

NAME = "pettingzoo:ferry_v0"


class Ferry(ParallelEnv):
    """Two boats; `bend` changes one method or attribute of the copy it is made for."""

    space = spaces.Box(-5, 5, (2,))

    def __init__(self, bend=None):
        self.possible_agents = ["boat_0", "boat_1"]
        self.agents = []
        if bend is not None:
            bend(self)

    def observation_space(self, agent):
        return self.space

    def action_space(self, agent):
        return spaces.Discrete(2)

    def see(self):
        return {agent: np.float32([0, 1]) for agent in self.agents}

    def give(self):
        return dict.fromkeys(self.agents, 1.0)

    def end(self):
        return dict.fromkeys(self.agents, False)

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        return self.see(), {}

    def step(self, actions):
        return self.see(), self.give(), self.end(), dict.fromkeys(self.agents, False), {}


@pytest.fixture
def module(monkeypatch):
    found = ModuleType("ferry_v0")
    found.parallel_env = Ferry
    monkeypatch.setitem(sys.modules, "ferry_v0", found)
    return found


def play(steps=2, copies=1, **options):
    world = make_world(NAME, copies, seed=0, options=options)
    world.reset()
    for _ in range(steps):
        step = world.step(np.zeros((copies, world.spec.action_dim), np.float32))
    return step


def given(method, value):
    """Returns a bend by which a method returns something else."""
    return lambda env: setattr(env, method, lambda *_args, **_rest: value)


def boats(value):
    return {"boat_0": value, "boat_1": value}


@pytest.mark.parametrize(
    "value",
    [
        1,
        True,
        np.float64(1),
        np.int8(1),
        np.bool_(True),
        np.array(1.0),
        np.ones((1, 1)),
        [1],
        Fraction(2, 2),
        Decimal(1),
    ],
)
def test_what_is_one_number_is_a_reward(module, value):
    np.testing.assert_array_equal(play(bend=given("give", boats(value))).reward, [[1, 1]])


@pytest.mark.parametrize("value", [[0, 1], (0.0, 1.0), np.array([0, 1]), np.float64([0, 1]), [False, True]])
def test_what_is_an_array_of_numbers_is_an_observation(module, value):
    np.testing.assert_array_equal(play(bend=given("see", boats(value))).obs, [[0, 1, 0, 1]])


@pytest.mark.parametrize("value", [True, 1, np.bool_(True), np.array([True]), np.array(1)])
def test_what_is_true_ends_an_episode(module, value):
    step = play(1, bend=given("end", boats(value)))
    assert step.episode_over.all()
    assert not step.discount.any()


@pytest.mark.parametrize(
    ("bend", "said"),
    [
        (
            given("reset", boats(np.zeros(2))),
            r"reset of copy 1 of 1: reset returned a dict alone, .*before 1\.23: return \(",
        ),
        (given("reset", np.zeros(2)), "reset returned array"),
        (given("reset", ([], {})), r"reset returned \[\] \(list\) as observations, not a dict by agent"),
        (
            given("step", (boats(np.zeros(2)), {}, {}, {})),
            r"copy 1 of 1: step returned 4 values.*before 1\.23",
        ),
        (given("step", None), "step 1 of copy 1 of 1: step returned None"),
        (given("give", boats(None)), "agent boat_0 was given None as reward, which is not a number"),
        (given("give", boats("1")), r"agent boat_0 was given '1' \(str\) as reward, which is not a number"),
        (given("give", boats(1j)), "which is not a number"),
        (given("give", boats(np.ones(3))), "3 numbers. Sum or weight the rewards to one number an agent"),
        (given("give", boats(10**400)), "was given inf as reward"),
        (given("give", {**boats(1.0), "ship": 1.0}), "agent ship has rewards and is not among"),
        (given("end", {}), "has no entry in the terminations, which name no agent; return True or False for it"),
        (given("end", boats(None)), "was given None in the terminations, not True or False"),
        (given("end", boats([True, False])), "in the terminations, not True or False"),
        (given("see", boats(None)), "reset of copy 1 of 1: agent boat_0 was given as observation None"),
        (given("see", boats(["0", "1"])), r"not numbers of shape \(2,\)"),
        (given("see", boats(np.zeros((1, 2)))), r"2 numbers of shape \(1, 2\), not \(2,\)"),
        (given("see", boats([[0], [0, 1]])), r"not numbers of shape \(2,\)"),
        (lambda env: env.__dict__.pop("possible_agents"), "has no list possible_agents"),
        (lambda env: env.possible_agents.append("boat_0"), "possible_agents names boat_0 twice"),
        (lambda env: env.possible_agents.append(["boat"]), "cannot be keys of a dict"),
        (lambda env: env.possible_agents.clear(), "possible_agents is empty"),
        (
            lambda env: setattr(env, "observation_space", {}),
            r"observation_space is a dict; .*a method observation_space\(agent\)",
        ),
    ],
)
def test_what_breaks_the_contract_is_one_line(module, bend, said):
    with pytest.raises(WorldError, match=said) as error:
        play(bend=bend)
    assert str(error.value).startswith(NAME)
    assert "\n" not in str(error.value)
    assert error.value.copy == 0


@pytest.mark.parametrize(
    ("space", "value", "said"),
    [
        (spaces.Dict(a=spaces.Discrete(2), b=spaces.Discrete(2)), {"a": 0}, "a dict without 'b'"),
        (spaces.Dict(a=spaces.Discrete(2)), {"a": 0, "c": 1}, "a dict with 'c', which its space does not name"),
        (spaces.Dict(a=spaces.Discrete(2)), 1, r"1 \(int\), not a dict with 'a'"),
        (spaces.Dict(a=spaces.Box(0, 1, (2,))), {"a": [1]}, r"at 'a' 1 numbers of shape \(1,\), not \(2,\)"),
        (spaces.Tuple([spaces.Discrete(2)]), (), "not 1 parts"),
        (spaces.Discrete(3, start=1), 0, r"0 \(int\), which is not in Discrete\(3, start=1\)"),
        (spaces.Discrete(3), 1.5, r"which is not in Discrete\(3\)"),
        (spaces.MultiDiscrete([2, 3]), [1, 3], "which is not in MultiDiscrete"),
        (spaces.MultiBinary(2), [0, 2], "which is not in MultiBinary"),
    ],
)
def test_observations_that_their_space_does_not_hold_end_whenever_they_come(module, space, value, said):
    def late(env):
        env.space = space
        seen = dict.fromkeys(env.possible_agents, space.sample())
        env.see = lambda: boats(value) if len(resets) > 3 else seen
        env.reset = lambda seed: resets.append(seed) or Ferry.reset(env)
        env.end = lambda: boats(True)

    resets = []
    with pytest.raises(WorldError, match=f"reset of copy 1 of 1: agent boat_0 was given as observation .*{said}"):
        play(5, bend=late)
    assert len(resets) == 4


def test_a_long_name_of_an_agent_is_shortened_in_messages(module):
    def rename(env):
        env.possible_agents = ["boat" * 1_000, "boat_1"]
        env.see = lambda: {env.possible_agents[0]: np.zeros(9), "boat_1": np.zeros(2)}

    with pytest.raises(WorldError, match=r"agent (boat)+b?o?a?\.\.\. was given as observation 9 numbers") as error:
        play(bend=rename)
    assert len(str(error.value)) < 400


def test_observations_beyond_the_bounds_are_warn_onceed_once(module, caplog):
    play(5, copies=2, bend=given("see", boats([9.0, 9.0])))
    remarks = [record.getMessage() for record in caplog.records]
    assert [text for text in remarks if "agent boat_0 leave the bounds" in text] == remarks[:1]


def test_spaces_that_differ_between_copies_or_change_are_an_error(module):
    made = []

    def other(env):
        made.append(env)
        env.space = spaces.Box(-5, 5, (len(made),))

    with pytest.raises(WorldError, match=r"copy 2 of 2: observation_space of agent boat_0 is .*copies must be alike"):
        play(copies=2, bend=other)

    def grow(env):
        env.reset = lambda seed: setattr(env, "space", spaces.Box(-5, 5, (3,))) or Ferry.reset(env)

    with pytest.raises(WorldError, match=r"agent boat_0 observes .*when it was made"):
        play(bend=grow)


def fail(*_args, **_rest):
    raise RuntimeError("the sea is closed\nsecond line")


@pytest.mark.parametrize(
    ("method", "where"),
    [("reset", "reset of copy 1 of 1"), ("step", "step 1 of copy 1 of 1"), (None, "making copy 1 of 1")],
)
def test_an_exception_of_the_environment_is_shown_with_its_own_frames(module, method, where):
    with pytest.raises(WorldError) as error:
        play(bend=fail if method is None else lambda env: setattr(env, method, fail))
    first, second, *frames = str(error.value).splitlines()
    assert first == f"{NAME}: {where}: RuntimeError: the sea is closed"
    assert second == "  second line"
    assert frames[-2].startswith(f"  {__file__}:")
    assert frames[-1].strip() == r'raise RuntimeError("the sea is closed\nsecond line")'
    assert not re.search(r"common/worlds/adapters/(pettingzoo|construction)\.py", str(error.value))


def test_an_exit_of_the_environment_is_a_fault_and_an_interrupt_is_not(module):
    with pytest.raises(WorldError, match=r"step 1 of copy 1 of 1: the environment called exit\(3\)"):
        play(bend=lambda env: setattr(env, "step", lambda _: sys.exit(3)))

    def interrupt(_actions):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(bend=lambda env: setattr(env, "step", interrupt))


def test_options_that_no_constructor_takes_are_the_users_mistake_and_what_it_raises_is_its_own(module):
    with pytest.raises(ConfigError, match=r"has no option 'bent'; did you mean bend\?"):
        play(bent=3)

    def pass_on(**options):
        return Ferry(**options)

    module.parallel_env = pass_on
    with pytest.raises(ConfigError, match=r"has no option 'bent'; did you mean bend\?"):
        play(bent=3)
    module.parallel_env = lambda size: Ferry()
    with pytest.raises(ConfigError, match="missing a required argument: 'size'"):
        play()
    module.parallel_env = lambda: len(None)
    with pytest.raises(WorldError, match=r"making copy 1 of 1: TypeError: object of type 'NoneType' has no len\(\)"):
        play()


def test_options_may_be_called_like_our_own_parameters(module):
    took = {}
    module.parallel_env = lambda **options: took.update(options) or Ferry()
    options = {"seed": 3, "copies": 2, "name": "x", "options": [1, None, {"a": [2]}], "on_made": 1}
    make_world(NAME, 1, seed=0, options=options)
    assert took == options


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ferry_v0.py", "write pettingzoo:ferry_v0$"),
        ("sisl/pursuit-v4", r"registry has no 'sisl/pursuit-v4'; did you mean sisl/pursuit-v5\?$"),
        ("sisl/pursuit", r"did you mean sisl/pursuit-v5\?$"),
        ("sisl/prusuit-v5", r"did you mean sisl/pursuit-v5\?$"),
        ("Pendulum-v1", r"named gymnasium:Pendulum-v1\.$"),
        ("no_such_package:team/env-v0", "cannot import no_such_package"),
        ("a b", "is not the name of an environment"),
        ("ferry_v0.Boat", "ferry_v0 has no Boat"),
        ("ferry_v0:Boat", "ferry_v0 has no Boat"),
        ("ferry_v0:parallel_env.inner", "ferry_v0.parallel_env has no inner"),
    ],
)
def test_other_names_say_what_to_write(module, name, said):
    with pytest.raises(ConfigError, match=said):
        make_world(f"pettingzoo:{name}")


def test_a_class_or_an_attribute_of_a_module_can_be_named(module, monkeypatch):
    module.Ferry, module.alias_v1 = Ferry, ModuleType("elsewhere")
    module.alias_v1.parallel_env = Ferry
    for name in ("ferry_v0.Ferry", "ferry_v0:Ferry", "ferry_v0.alias_v1", "ferry_v0:alias_v1"):
        assert len(make_world(f"pettingzoo:{name}", options={"bend": None}).spec.agents) == 2
    del module.parallel_env
    monkeypatch.setattr(Ferry, "__module__", "ferry_v0")
    with pytest.raises(ConfigError, match=r"Write pettingzoo:ferry_v0\.Ferry\.$"):
        play()


def test_close_closes_every_copy_and_then_raises_the_first_failure(module):
    closed = []

    class Leaky(Ferry):
        def close(self):
            closed.append(self)
            raise OSError(f"socket {len(closed)}")

    module.parallel_env = Leaky
    world = make_world(NAME, 3, seed=0)
    with pytest.raises(WorldError, match="closing copy 1 of 3: OSError: socket 1"):
        world.close()
    assert len(closed) == 3


@pytest.mark.parametrize("odd", ["constructor", "spaces"])
def test_copies_that_were_made_are_closed_when_making_fails_and_after_the_failure_was_told(module, odd):
    happened, made = [], []

    class Third(Ferry):
        def __init__(self):
            super().__init__()
            made.append(self)
            if len(made) == 3 and odd == "constructor":
                raise OSError("no licence")
            if len(made) == 3:
                self.space = spaces.Box(-1, 1, (7,))

        def close(self):
            happened.append("closed")
            raise OSError("of no interest")

    module.parallel_env = Third
    with pytest.raises(WorldError, match="no licence" if odd == "constructor" else "all copies must be alike"):
        make_world(NAME, 3, seed=0, on_fault=lambda error: happened.append(type(error)))
    assert happened == [WorldError, *["closed"] * (2 if odd == "constructor" else 3)]
