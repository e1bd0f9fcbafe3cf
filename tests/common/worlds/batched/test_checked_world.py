"""Users' own vectorised worlds: what Shoal makes of them, and what it says of a broken one."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from common.errors import ConfigError, WorldError
from common.spec import Categorical, joint_spec
from common.worlds import find_state_dim, global_state, make_world, world_spec
from tests.common.worlds.batched.line_world import LineWorld

NAME = "batched:tests.common.worlds.batched.line_world"


def make(copies=3, **options):
    return make_world(NAME, copies, seed=0, **options)


def broken(fault, steps=2, **options):
    """Returns the error of a world whose step is changed by `fault(world, step)`."""
    world = make(options={"fault": fault}, **options)
    world.reset()

    def play():
        for _ in range(steps):
            world.step(np.zeros((3, 2), np.float32))

    with pytest.raises(WorldError) as error:
        play()
    return str(error.value)


def test_a_module_named_alone_or_with_an_attribute_makes_the_world():
    assert make().spec == world_spec(f"{NAME}:LineWorld")
    assert [agent.name for agent in make().spec.agents] == ["walker_0", "walker_1"]


def test_arrays_have_the_types_of_every_world_and_are_copies():
    world = make()
    inner = world._inner
    obs = world.reset()
    actions = np.ones((3, 2), np.float32)
    step = world.step(actions)
    assert {array.dtype for array in (obs, step.obs, step.reward, step.discount, step.present)} == {np.dtype("f4")}
    assert step.episode_over.dtype == bool
    inner.given[0][:] = 7.0
    assert (actions == 1.0).all()


def test_copy_c_starts_from_seed_c():
    world = make()
    forward, backward = world.reset([1, 2, 3]), world.reset([3, 2, 1])
    np.testing.assert_array_equal(forward, backward[::-1])
    with pytest.raises(ValueError, match="2 seeds for 3 copies"):
        world.reset([1, 2])


def test_without_restarts_an_ended_copy_is_absent_until_the_reset():
    world = make(restart_ended=False, options={"max_steps": 2, "reach": 0.0})
    world.reset([1, 2, 3])
    steps = [world.step(np.zeros((3, 2), np.float32)) for _ in range(4)]
    assert [step.episode_over.tolist() for step in steps] == [[False] * 3, [True] * 3, [False] * 3, [False] * 3]
    assert [step.present.sum() for step in steps] == [6, 6, 0, 0]
    assert steps[2].reward.any() == steps[3].reward.any() == False  # noqa: E712
    world.reset()
    assert world.step(np.zeros((3, 2), np.float32)).present.all()


def test_a_limit_of_the_run_truncates_and_starts_the_next_episode():
    world = make(max_episode_steps=3, options={"max_steps": 100, "reach": 0.0})
    world.reset([1, 2, 3])
    steps = [world.step(np.zeros((3, 2), np.float32)) for _ in range(6)]
    assert [bool(step.episode_over.all()) for step in steps] == [False, False, True] * 2
    assert all(step.discount.all() for step in steps)
    assert (steps[2].obs != steps[2].next_obs).any(axis=1).all()
    np.testing.assert_array_equal(steps[3].next_obs, steps[2].obs)


def test_a_limit_of_the_run_needs_a_reset_of_single_copies(monkeypatch):
    monkeypatch.delattr(LineWorld, "reset_copies")
    with pytest.raises(ConfigError, match=r"has no reset_copies.*--max-episode-steps"):
        make(max_episode_steps=3)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (lambda w, s: None, "step 1: step returned None, not a Step"),
        (lambda w, s: s[:5], "step 1: step returned 5 values, not a Step (obs, reward, discount"),
        (lambda w, s: s._replace(obs=s.obs[:2]), "obs has the shape [2, 4], not [copies, sum obs] = [3, 4]"),
        (lambda w, s: s._replace(reward=s.reward[:, 0]), "reward has the shape [3], not [copies, agents] = [3, 2]"),
        (lambda w, s: s._replace(reward="much"), "reward is 'much' (str)"),
        (lambda w, s: s._replace(episode_over=[2, 0, 0]), "episode_over is [2, 0, 0] (list), not True or False"),
        (lambda w, s: s._replace(present=s.present * 3), "copy 1 of 3: agent walker_0 was given 3.0 as present, not 0"),
        (lambda w, s: s._replace(discount=s.discount - 2), "was given -1.0 as discount, not from 0 to 1"),
        (lambda w, s: s._replace(metrics=[1]), "metrics is [1] (list), not a dict"),
    ],
)
def test_a_broken_step_is_described(fault, text):
    error = broken(fault)
    assert text in error
    assert error.startswith(f"{NAME}: step 1")


def test_a_number_that_is_not_finite_is_found_with_its_copy_and_agent():
    def fault(world, step):
        step.next_obs[1, 2] = np.nan
        return step

    assert "step 1 of copy 2 of 3: agent walker_1 was given nan as observation (next_obs)" in broken(fault)
    assert "agent walker_0 was given inf as reward" in broken(lambda w, s: s._replace(reward=s.reward + np.inf))


def test_an_agent_that_acts_after_its_end_is_found():
    def fault(world, step):
        return step._replace(discount=step.discount * [0.0, 1.0])

    assert "step 2 of copy 1 of 3: agent walker_0 has ended in this episode and is present again" in broken(fault)


def test_an_exception_names_the_step_and_the_users_line():
    def fault(world, step):
        raise RuntimeError("no fuel")

    error = broken(fault)
    assert error.startswith(f"{NAME}: step 1: RuntimeError: no fuel")
    assert "test_checked_world.py" in error


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("batched:no.such.module", {}, r"cannot import no.such.module.*PYTHONPATH"),
        ("batched:not a module", {}, "does not name a module. Write batched:package.module"),
        (f"{NAME}:missing", {}, r"has no missing. Define missing\(copies, seed\)"),
        (f"{NAME}:np", {}, "np is module. Name a function"),
        (NAME, {"reech": 1}, "has no option 'reech'; did you mean reach"),
        (NAME, {"xyz": 1}, "has no option 'xyz'; .*max_steps, reach, fault$"),
        (NAME, {"copies": 1}, "Shoal passes 'copies' itself"),
    ],
)
def test_a_wrong_name_or_option_is_refused(name, options, text):
    with pytest.raises(ConfigError, match=text):
        make_world(name, 2, options=options)


@pytest.mark.parametrize(
    ("made", "error", "text"),
    [
        (lambda copies: LineWorld(copies, 0), ConfigError, "does not take seed"),
        (lambda copies, seed: None, WorldError, "make returned None"),
        (lambda copies, seed: SimpleNamespace(reset=1), WorldError, r"has no method reset\(seeds\)"),
        (lambda copies, seed: SimpleNamespace(reset=len, step=len), WorldError, "has no spec; make one by"),
        (lambda copies, seed: SimpleNamespace(reset=len, step=len, spec=3), WorldError, r"spec is 3 \(int\)"),
        (lambda copies, seed: LineWorld(1, seed), WorldError, "asked for 2 copies and made 1"),
        (lambda copies, seed: 1 / 0, WorldError, "making 2 copies: ZeroDivisionError"),
    ],
)
def test_what_make_returns_is_checked(monkeypatch, made, error, text):
    module = ModuleType("their_world")
    module.make = made
    monkeypatch.setitem(sys.modules, "their_world", module)
    with pytest.raises(error, match=text):
        make_world("batched:their_world", 2)


def test_a_world_that_is_refused_is_closed(monkeypatch):
    worlds = []
    module = ModuleType("their_world")
    module.make = lambda copies, seed: worlds.append(LineWorld(1, seed)) or worlds[-1]
    monkeypatch.setitem(sys.modules, "their_world", module)
    with pytest.raises(WorldError):
        make_world("batched:their_world", 2)
    assert worlds[0].closed


# ---- the global state ------------------------------------------------------------------------------------------------

STATEFUL = "batched:tests.common.worlds.batched.stateful_world"


def test_states_are_those_of_the_users_world():
    world = make_world(STATEFUL, 3, seed=0, state_dim=3, options={"max_steps": 2, "reach": 0.0})
    world.reset([1, 2, 3])
    assert (world.spec.state_dim, find_state_dim(world)) == (3, 3)
    first = global_state(world)
    np.testing.assert_allclose(first[:, 0], world._inner.position[:, 0], rtol=1e-6)
    steps = [world.step(np.zeros((3, 2), np.float32)) for _ in range(2)]
    assert steps[1].next_state[:, 2].tolist() == [2, 2, 2]
    assert global_state(world)[:, 2].tolist() == [0, 0, 0]
    assert steps[0].next_state.dtype == np.dtype("f4")


def test_a_state_that_is_not_requested_is_left_out():
    world = make_world(STATEFUL, 3, seed=0)
    world.reset()
    assert world.spec.state_dim == 0
    assert world.step(np.zeros((3, 2), np.float32)).next_state is None


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan", "step 1 of copy 2 of 3: next_state has nan at index 2"),
        ("wide", r"next_state has the shape \[3, 6\], not \[copies, state\] = \[3, 3\]"),
        ("missing", "next_state is None"),
    ],
)
def test_a_wrong_next_state_is_named(fault, message):
    world = make_world(STATEFUL, 3, seed=0, state_dim=3, options={"fault": fault})
    world.reset()
    with pytest.raises(WorldError, match=message):
        world.step(np.zeros((3, 2), np.float32))


def test_a_vectorised_world_without_a_state_is_refused():
    with pytest.raises(ConfigError, match=r"has no global state. Give its spec a state_dim"):
        find_state_dim(make())


@pytest.mark.parametrize(("mask", "is_right"), [(1.0, True), (0.0, True), (0.5, False)])
def test_action_masks_are_zeros_and_ones(monkeypatch, mask, is_right):
    class Masked(LineWorld):
        def __init__(self, copies, seed):
            super().__init__(copies, seed)
            self.spec = joint_spec([(f"walker_{i}", "walker", 2, (Categorical(1),)) for i in range(2)], {"walker_1"})

        def observe(self):
            rows = super().observe()
            rows[:, 3] = 1.0
            rows[1, 3] = mask
            return rows

    module = ModuleType("masked_line")
    module.make = Masked
    monkeypatch.setitem(sys.modules, "masked_line", module)
    world = make_world("batched:masked_line", 3, seed=0)
    if is_right:
        world.reset()
        return
    with pytest.raises(WorldError, match=r"copy 2 of 3: agent walker_1 was given 0.5 in its action mask"):
        world.reset()
