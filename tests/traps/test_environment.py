"""Traps 10, 13 to 16 and 35: the world that is stepped."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from pettingzoo.utils.env_logger import EnvLogger

from actor_node.rendering.film import render
from common.errors import ConfigError
from common.policy.file import PolicyFile, save_policy
from common.run.directory import RunDirectory, create
from common.run.run import make_run_spec
from common.worlds import SCENARIOS, make_world, world_spec
from tests.common.examples import random_weights
from tests.traps.hand import collect, random_actions, run_in

RIGHT, NOTHING = np.array([[0, 0, 1, 0, 0]], np.float32), np.zeros((1, 5), np.float32)
ALONE = {"N": 1, "max_cycles": 25}
"""simple_spread with one agent, which sees its velocity, its position and the way to its landmark."""


# ---- 10: the order of integration -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "dynamics", "positions"),
    [
        ("simple_spread", "mpe2", (0.0, 0.05, 0.0875)),
        ("mpe2:simple_spread", "mpe2", (0.0, 0.05, 0.0875)),
        ("simple_spread", "legacy", (0.05, 0.0875, 0.115625)),
    ],
)
def test_10_positions_move_by_the_old_velocity_as_since_pettingzoo_970(
    scenario: str, dynamics: str, positions: tuple[float, ...]
) -> None:
    """PettingZoo PR #965 (versions raised in #970, after issue #962) moves bodies before it accelerates them.

    Tables made before May 2023 are of another world: one in which an action counts at once. One full thrust at rest
    gives a velocity of 5 * 0.1, which falls by a quarter a step: 0.5, 0.375, 0.28125.
    """
    world = make_world(scenario, seed=0, dynamics=dynamics, **ALONE)
    start = world.reset()[0, 2]
    seen = [world.step(action).next_obs[0] for action in (RIGHT, NOTHING, NOTHING)]
    np.testing.assert_allclose([obs[0] for obs in seen], [0.5, 0.375, 0.28125], atol=1e-6)
    np.testing.assert_allclose([obs[2] - start for obs in seen], positions, atol=1e-6)


@pytest.mark.parametrize(("dynamics", "counts"), [("mpe2", False), ("legacy", True)])
def test_10_the_last_action_counts_only_in_the_legacy_world(dynamics: str, counts: bool) -> None:
    """What follows from it: in mpe2 nothing an agent does in step 25 of 25 changes what it earns."""
    earned = []
    for last in (RIGHT, NOTHING):
        world = make_world("simple_spread", seed=0, dynamics=dynamics, **ALONE)
        world.reset([7])
        earned.append(sum(world.step(action).reward[0, 0] for action in [RIGHT] * 24 + [last]))
    assert (earned[0] != earned[1]) == counts


# ---- 13: actions out of bounds --------------------------------------------------------------------------------------


def test_13_actions_out_of_bounds_leave_nothing_behind() -> None:
    """PettingZoo writes a warning for each action it clips and appends it to a list that nobody empties.

    An actor that explores beyond [0, 1] for a day grows by it. What reaches mpe2 here is clipped before.
    """
    raw = import_module("mpe2.simple_v3").parallel_env(continuous_actions=True)
    raw.reset(seed=0)
    before = len(EnvLogger.mqueue)
    raw.step({"agent_0": np.float32([0, 0, 1.5, 0, 0])})
    assert len(EnvLogger.mqueue) > before, "mpe2 by itself does keep them"
    EnvLogger.flush()

    world = make_world("mpe2:simple_spread", 2, seed=0)
    world.reset()
    for seed in range(30):
        world.step(random_actions(world, seed) * np.float32(6.0) - np.float32(3.0))
    collect(run_in("mpe2:simple"), 30, copies=2, exploration_scale=2.0)
    assert len(EnvLogger.mqueue) == 0


@pytest.mark.parametrize("scenario", ["simple", "mpe2:simple"])
def test_13_an_action_out_of_bounds_acts_as_the_bound(scenario: str) -> None:
    """Clipped means clipped: not wrapped, not refused, not scaled."""
    velocities = []
    for thrust in (1.0, 3.0):
        world = make_world(scenario, seed=0)
        world.reset([1])
        velocities.append(world.step(np.array([[-5, -thrust, thrust, 0, 0]], np.float32)).next_obs[0, :2].tolist())
    assert velocities[0] == velocities[1] == [0.5, 0.0]


def test_13_what_actors_record_is_within_bounds_and_float32() -> None:
    """The action a critic learns from is the one that was executed, not the one before it was clipped."""
    for random_share in (0.0, 1.0):
        action = collect(run_in("simple_spread"), 30, 8, exploration_scale=2.0, random_share=random_share)["action"]
        assert action.dtype == np.float32
        assert action.min() >= 0.0
        assert action.max() <= 1.0
    assert (action == 0.0).sum() < action.size / 100, "the random ones are not clipped into place"


# ---- 14 to 16: mpe2 itself ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("continuous", [True, False], ids=["continuous", "discrete"])
@pytest.mark.parametrize("scenario", ["simple_spread", "simple_tag", "simple_world_comm", "simple_reference"])
def test_14_the_fast_world_is_mpe2_bit_for_bit(scenario: str, continuous: bool) -> None:
    """mpe2's parallel API observes twice and passes a stack of wrappers each step, so everyone writes a faster one.

    A faster world that is nearly the same makes numbers that nobody can compare. Whole episodes, exactly equal; all
    scenarios and hundreds of seeds stand in tests/common/worlds/particle/test_equal_to_mpe2.py.
    """
    fast, real = (make_world(f"{kind}{scenario}", 2, seed=0, continuous_actions=continuous) for kind in ("", "mpe2:"))
    np.testing.assert_array_equal(fast.reset([3, 4]), real.reset([3, 4]))
    for seed in range(25):
        actions = random_actions(fast, seed)
        one, other = fast.step(actions), real.step(actions)
        for field in ("next_obs", "reward", "discount", "present", "episode_over"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field), f"{field} of step {seed + 1}")


_ACTS_WITHOUT_A_SCREEN = """
import sys
import numpy as np
import actor_node.worker
from common.worlds import make_world
world = make_world("simple_tag", 3, seed=0)
world.reset()
world.step(np.zeros((3, world.spec.action_dim), np.float32))
assert not {"pygame", "mpe2", "pettingzoo"} & set(sys.modules), sorted(sys.modules)
"""


@pytest.mark.slow
def test_15_acting_needs_no_screen_and_no_renderer() -> None:
    """mpe2 up to 1.1.0 starts all of pygame, audio too, for each environment made (MPE2 #53, PR #60).

    It cost some platforms seconds each, for worlds that are never drawn. The worlds that actors step load none of it.
    """
    subprocess.run([sys.executable, "-c", _ACTS_WITHOUT_A_SCREEN], check=True)


@pytest.mark.slow
def test_15_filming_one_world_does_not_end_the_picture_of_another(tmp_path: Path) -> None:
    """mpe2's `env.close()` quits pygame for the whole process, and then no other environment can write its messages.

    Two teams that speak, side by side, then one of them again: in one process and without a display.
    """
    directories = [_trained(tmp_path / name, "simple_speaker_listener") for name in ("one", "two")]
    both = render(directories, tmp_path / "both.gif", episodes=2, steps=2, width=64)
    again = render(directories[:1], tmp_path / "again.gif", episodes=1, steps=2, width=64)
    assert (both.frames, again.frames) == (6, 3)
    assert both.returns[0][0] == again.returns[0][0]


def _trained(path: Path, scenario: str) -> RunDirectory:
    directory, run = create(path, make_run_spec({"scenario": scenario}), world_spec(scenario))
    save_policy(directory.policy_file, PolicyFile(run, 1, 1, random_weights(run)))
    return directory


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_16_every_scenario_runs_in_the_installed_mpe2(scenario: str) -> None:
    """PettingZoo removed `pettingzoo.mpe` (issue #1357; PR #1370 has it say so): what imports it fails to start.

    EPyMARL, xuance and HARL did when looked at. Evaluation here is in `mpe2`, for each scenario there is.
    """
    world = make_world(f"mpe2:{scenario}", seed=0)
    world.reset()
    assert np.isfinite(world.step(random_actions(world)).next_obs).all()


def test_16_the_old_name_is_refused_with_the_way_out() -> None:
    """Who asks for the module that is gone is told what to install."""
    with pytest.raises(ConfigError, match=r"pettingzoo.mpe.simple_spread_v3.*pip install mpe2"):
        make_world("pettingzoo:pettingzoo.mpe.simple_spread_v3")


# ---- 35: how long an episode is -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_35_episodes_last_25_steps_as_mpe2s_do(scenario: str) -> None:
    """BenchMARL's MPE tasks run 100 steps; starry-sky6688/MADDPG #13 learnt simple_spread only after 100 became 25.

    Longer episodes are another task with other returns. The default is mpe2's own, and the literature's.
    """
    world = make_world(scenario, seed=0)
    world.reset()
    assert [bool(world.step(random_actions(world, t)).episode_over[0]) for t in range(25)] == [False] * 24 + [True]
    module = import_module(f"mpe2.{SCENARIOS[scenario].mpe2_module}")
    assert signature(module.raw_env).parameters["max_cycles"].default == 25


def test_35_transitions_of_another_episode_length_are_of_another_task() -> None:
    """What a run's transitions mean is named by its world's options too: none of another length can come among them."""
    hashes = {run_in("simple_spread", {"max_cycles": steps}).data_hash for steps in (25, 100)}
    assert len(hashes) == 2
