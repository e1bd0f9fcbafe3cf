"""Tests of the global state: what a world returns of it, its checks, and what is refused."""

import numpy as np
import pytest

from common.errors import ConfigError, WorldError
from common.run.open_run import RunOptions, open_run
from common.run.run import Run, make_run_spec
from common.spec import difference
from common.worlds import global_state, make_world, world_spec
from common.worlds.adapters.first_copy import FirstCopy, Watch
from common.worlds.adapters.pettingzoo_world import PettingZooWorld

STATEFUL = "pettingzoo:tests.actor_node.stateful_env"
SIZE = 4


def stepped(kind: str, steps: int):
    world = make_world(STATEFUL, 2, seed=0, options={"kind": kind}, state_dim=SIZE)
    world.reset([5, 6])
    actions = np.full((2, 2), 0.5, np.float32)
    return world, [world.step(actions) for _ in range(steps)]


def test_states_are_those_of_the_environment_before_and_after_each_step():
    world = make_world(STATEFUL, 2, seed=0, state_dim=SIZE)
    assert world.spec.state_dim == SIZE
    world.reset([5, 6])
    rng = np.random.default_rng(6)
    x, goal = rng.uniform(-1, 1, 2), rng.uniform(-1, 1)
    np.testing.assert_allclose(global_state(world)[1], [*x, goal, 0], rtol=1e-6)
    step = world.step(np.array([[0.0, 0.0], [0.5, -1.0]], np.float32))
    moved = np.clip(x + 0.2 * np.array([0.5, -1.0]), -1, 1)
    np.testing.assert_allclose(step.next_state[1], [*moved, goal, 1], rtol=1e-6)
    np.testing.assert_array_equal(global_state(world), step.next_state)


def test_the_next_state_of_a_last_step_is_the_final_one():
    world, steps = stepped("plain", 5)
    assert steps[-1].episode_over.all()
    assert (steps[-1].next_state[:, 3] == 5).all()
    assert (global_state(world)[:, 3] == 0).all()


def test_a_world_without_a_request_has_no_state():
    world = make_world(STATEFUL, 1, seed=0)
    world.reset()
    assert global_state(world) is None
    assert world.step(np.zeros((1, 2), np.float32)).next_state is None


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("grows", r"step 2 of copy 1 of 2: state\(\) returned 5 numbers, not 4 as before"),
        ("nan", r"step 2 of copy 1 of 2: state\(\) returned nan at index 2"),
        ("text", r"reset of copy 1 of 2: state\(\) returned 'everything' \(str\), not a vector of numbers"),
        ("raises", r"reset of copy 1 of 2: AttributeError"),
    ],
)
def test_a_wrong_state_is_named(kind, message):
    with pytest.raises(WorldError, match=message):
        stepped(kind, 3)


def test_the_first_copy_finds_the_size():
    found = FirstCopy(STATEFUL, {}, Watch(), wants_state=True).read()
    assert found.agents.state_dim == SIZE
    assert found.agents.without_state == world_spec(STATEFUL)


@pytest.mark.parametrize("name", [STATEFUL, "pettingzoo:tests.actor_node.informed_env"])
def test_an_environment_without_state_is_refused(name):
    world = make_world(name, 1, seed=0, options={"kind": "none"} if name == STATEFUL else {})
    assert isinstance(world, PettingZooWorld)
    with pytest.raises(ConfigError, match=rf"{name} has no state\(\)"):
        world.find_state_dim()


@pytest.mark.parametrize("name", ["simple_spread", "mpe2:simple_spread"])
def test_a_particle_world_is_refused(name, tmp_path):
    options = RunOptions(set=("algorithm.critic_sees=state",))
    with pytest.raises(ConfigError, match="all observations side by side"):
        open_run(str(tmp_path / "a"), name, options, {}, resume=False, role="learner")


def test_a_resumed_run_keeps_what_its_critics_see(tmp_path):
    path = str(tmp_path / "a")
    directory, run = open_run(
        path, STATEFUL, RunOptions(steps=10, set=("algorithm.critic_sees=both",)), {}, resume=False, role="learner"
    )
    assert run.joint.state_dim == SIZE
    directory.release()
    with pytest.raises(ConfigError, match=r"created with algorithm\.critic_sees = 'both'"):
        open_run(path, "", RunOptions(set=("algorithm.critic_sees=state",)), {}, resume=True, role="learner")


def test_runs_without_a_state_are_encoded_as_before():
    agents = world_spec("simple_spread")
    assert Run("a", make_run_spec({"scenario": "simple_spread"}), agents).data_hash == "9bdb0c7b83d9d299"
    assert "state" in difference(agents, make_world(STATEFUL, 1, seed=0, state_dim=SIZE).spec)
