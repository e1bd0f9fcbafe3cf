"""Traps 7 to 9, 22, 25 and 34: what is rewarded, and what is reported of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from actor_node.evaluation.evaluate import evaluate, play
from common.policy.file import PolicyFile, save_policy
from common.policy.network import Policy
from common.run.directory import RunDirectory, create
from common.run.players import players
from common.run.run import NetworkSpec, make_run_spec
from common.worlds import make_world, world_spec
from tests.common.examples import random_weights
from tests.traps.hand import critic, learner, paper, put, random_actions, rows, team

MANY = 400
"""Copies, so that some agents touch."""


def trained(path: Path, scenario: str, **world: object) -> RunDirectory:
    """Makes the directory of a run with policies that nobody has trained."""
    directory, run = create(path, make_run_spec({"scenario": scenario, "world": world}), world_spec(scenario, **world))
    save_policy(directory.policy_file, PolicyFile(run, 1, 1, random_weights(run) * np.float32(0.2)))
    return directory


def lengths(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors.astype(float), axis=-1)


# ---- 7: evaluation --------------------------------------------------------------------------------------------------


def test_07_evaluation_plays_the_policy_and_no_noise() -> None:
    """EPyMARL's MADDPG ignores `test_mode`: what it reports as test returns is of actions drawn by Gumbel noise.

    Here a policy that prefers `right` only just goes right in every step, whatever generator stands behind the world;
    the particle's way is computed by hand: 0.1 of the old velocity a step, and velocity' = 0.75 velocity + 0.5.
    """
    returns = []
    for generator in (0, 1):
        world = make_world("simple", 3, seed=generator, continuous_actions=False)
        flat = np.zeros((4 + 1) * 128 + (128 + 1) * 128 + (128 + 1) * 5, np.float32)
        flat[-5:] = [0.0, 0.0, 1e-3, 0.0, 0.0]
        returns.append(play(world, Policy(players(world.spec, "maddpg"), NetworkSpec(), flat), 3, 50, int))
    np.testing.assert_array_equal(*returns)
    by_hand = []
    for way in make_world("simple", 3, seed=9).reset(range(50, 53))[:, 2:].astype(float):
        velocity, total = 0.0, 0.0
        for _ in range(25):
            way[0] -= 0.1 * velocity
            velocity = 0.75 * velocity + 0.5
            total -= way @ way
        by_hand.append(total)
    np.testing.assert_allclose(returns[0][:, 0], by_hand, rtol=1e-4)


# ---- 8, 9, 22: simple_spread's three returns ------------------------------------------------------------------------


def spread_of(obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns, of joint observations [copies, 54], what the three landmarks cost and whom each agent touches.

    An agent sees its velocity, its position, the way to three landmarks, the way to two others, and their silence.
    """
    seen = obs.reshape(-1, 3, 18)
    to_landmarks, to_others = (
        lengths(seen[..., 4:10].reshape(-1, 3, 3, 2)),
        lengths(seen[..., 10:14].reshape(-1, 3, 2, 2)),
    )
    return to_landmarks.min(axis=1).sum(axis=1), (to_others < 0.3).sum(axis=2)


@pytest.mark.slow
def test_08_returns_are_told_on_every_published_scale(tmp_path: Path) -> None:
    """EPyMARL sums a shared reward over agents and its paper divides by their number (issues #29 and #34).

    openai/maddpg prints three times the paper's figure, PettingZoo's users sum yet another reward (PettingZoo #1304;
    likewise MARLlib #236, on-policy #49 and #112). `S` is the sum over agents of what mpe2 pays; `P`, the papers', is
    what the original environment would have paid one agent in the same steps, computed here from what is seen.
    """
    result = evaluate(trained(tmp_path / "run", "simple_spread"), episodes=4, seed=11)
    assert result.return_mean == pytest.approx(sum(result.return_per_agent.values()))

    # One step longer than an episode: a world that reset itself would no longer show how the last step ended.
    world, stored = make_world("simple_spread", 4, seed=0, max_cycles=26), trained(tmp_path / "again", "simple_spread")
    policy = Policy(stored.run.players, NetworkSpec(), random_weights(stored.run) * np.float32(0.2))
    obs, by_hand = world.reset(range(11, 15)), np.zeros(4)
    for _ in range(25):
        obs = world.step(policy.act(obs)).obs
        cost, touched = spread_of(obs)
        by_hand -= (cost[:, None] + touched + 1).sum(axis=1)
    expected = {"S": result.return_mean, "P": by_hand.mean(), "3P": 3 * by_hand.mean()}
    assert result.published_scales == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_08_scales_are_told_only_where_they_hold(tmp_path: Path) -> None:
    """P = 2 S - 75 is true of three agents and 25 steps: of any other task no such figure is given."""
    assert evaluate(trained(tmp_path / "short", "simple_spread", max_cycles=24), 1, 0).published_scales == {}
    assert evaluate(trained(tmp_path / "two", "simple_spread", N=2), 1, 0).published_scales == {}


@pytest.mark.parametrize("dynamics", ["mpe2", "legacy"])
def test_09_spreads_reward_is_that_of_the_version_it_claims(dynamics: str) -> None:
    """PettingZoo PR #894 took an agent's collision with itself out of simple_spread; `local_ratio` came, the sum went.

    mpe2 pays 0.5 * shared + 0.5 * own touches; the original pays everyone the sum, with one touch each for oneself.
    """
    world = make_world("simple_spread", MANY, seed=0, dynamics=dynamics)
    world.reset()
    step = world.step(random_actions(world))
    cost, touched = spread_of(step.next_obs)
    assert 0 < (touched.sum(axis=1) > 0).sum() < MANY, "some touch, some do not"
    expected = -0.5 * cost[:, None] - 0.5 * touched
    if dynamics == "legacy":
        expected = np.repeat(-(3 * cost + (touched + 1).sum(axis=1))[:, None], 3, axis=1)
    np.testing.assert_allclose(step.reward, expected, atol=1e-4)


@pytest.mark.parametrize(("dynamics", "power"), [("mpe2", 1), ("legacy", 2)])
def test_09_the_adversary_pays_its_distance_and_once_paid_its_square(dynamics: str, power: int) -> None:
    """simple_adversary: the adversary's -distance^2 became -distance; the good agents' reward stayed as it was.

    A good agent sees the way to the goal first, and the way to the adversary behind those to two landmarks.
    """
    world = make_world("simple_adversary", MANY, seed=0, dynamics=dynamics)
    world.reset()
    step = world.step(random_actions(world))
    one, other = step.next_obs[:, 8:18], step.next_obs[:, 18:28]
    adversary = lengths(one[:, :2] - one[:, 6:8])
    good = adversary - np.minimum(lengths(one[:, :2]), lengths(other[:, :2]))
    np.testing.assert_allclose(step.reward, np.stack([-(adversary**power), good, good], axis=1), atol=1e-4)


@pytest.mark.parametrize("scenario", ["simple_spread", "simple_speaker_listener", "simple_reference"])
def test_22_the_legacy_cooperative_worlds_pay_everyone_the_same_sum(scenario: str) -> None:
    """Until July 2018 the original environment did not share rewards where it should have (openai/maddpg #12).

    In the world that published tables were made in, agents of a cooperative scenario all get the sum of all rewards.
    """
    world = make_world(scenario, MANY, seed=0, dynamics="legacy")
    world.reset()
    step = world.step(random_actions(world))
    np.testing.assert_array_equal(step.reward, np.repeat(step.reward[:, :1], len(world.spec.agents), axis=1))
    if scenario == "simple_speaker_listener":
        color, ways = step.next_obs[:, :3], step.next_obs[:, 5:11].reshape(-1, 3, 2)
        goal = np.take_along_axis(ways, color.argmax(axis=1)[:, None, None], 1)[:, 0]
        np.testing.assert_allclose(step.reward[:, 0], -2 * lengths(goal) ** 2, rtol=1e-4)


@pytest.mark.parametrize(("spirit", "expected"), [(0.0, [1.0, 3.0, 100.0]), (1.0, [2.0, 2.0, 100.0])])
def test_22_whether_a_team_learns_from_its_shared_reward_is_a_setting(spirit: float, expected: list[float]) -> None:
    """Whether rewards are shared changes what is learnt: here it is `team_spirit`, within a side and never across."""
    found = learner(team("a", "a", "b"), team_spirit=spirit)
    put(found, target_critics=[critic([0.0] * 6)] * 3)
    assert found.td_target(rows(found.agents, reward=[1.0, 3.0, 100.0]))[:, 0].tolist() == pytest.approx(expected)
    assert paper().algorithm.team_spirit == 0.0, "as the scenario gives it"


# ---- 25: speaker and listener ---------------------------------------------------------------------------------------


def towards(target: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Returns the five numbers that push towards a target and brake."""
    push = np.clip(4.0 * target - 2.0 * velocity, -1.0, 1.0)
    back_and_forth = [
        np.zeros(len(push)),
        *(np.maximum(sign * push[:, axis], 0.0) for axis in (0, 1) for sign in (-1, 1)),
    ]
    return np.stack(back_and_forth, axis=1).astype(np.float32)


def listener_return(goes_to: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
    """Returns the mean return of a speaker that names the goal, and a listener that goes where it is told."""
    world = make_world("simple_speaker_listener", 1_000, seed=0)
    obs, total = world.reset(), 0.0
    for _ in range(25):
        color, velocity, ways, heard = np.split(obs, [3, 5, 11], axis=1)
        said = np.eye(3, dtype=np.float32)[color.argmax(axis=1)]
        goal = goes_to(ways.reshape(-1, 3, 2), heard)
        step = world.step(np.concatenate([said, towards(goal, velocity)], axis=1))
        obs, total = step.obs, total + step.reward.sum(axis=1).mean()
    return float(total)


def test_25_the_listener_hears_the_speaker() -> None:
    """MADDPG is known to settle where speech is ignored and the listener waits amid the landmarks (xuance #1).

    The same shows where a world's words do not arrive. Two scripts tell the two apart, and where a training stands:
    a deaf listener that goes to the middle returns about -30 (summed over both agents), one that listens about -13.
    """
    deaf = listener_return(lambda ways, heard: ways.mean(axis=1))
    listens = listener_return(
        lambda ways, heard: np.where(
            heard.any(axis=1)[:, None], (ways * heard[..., None]).sum(axis=1), ways.mean(axis=1)
        )
    )
    assert deaf == pytest.approx(-30.0, abs=2.5)
    assert listens == pytest.approx(-12.8, abs=1.5)


# ---- 34: predators --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_34_every_predator_is_paid_for_every_catch_and_returns_say_so(tmp_path: Path) -> None:
    """simple_tag pays 10 to each predator for each catch of any: three predators' sum counts a catch three times.

    Published figures are one predator's. Rewards follow the scenario, by hand from what the prey sees; and an
    evaluation tells each agent's return beside their sum.
    """
    world = make_world("simple_tag", 4 * MANY, seed=0)
    world.reset()
    step = world.step(random_actions(world))
    prey = step.next_obs[:, 48:62]
    catches = (lengths(prey[:, 8:14].reshape(-1, 3, 2)) < 0.075 + 0.05).sum(axis=1)
    assert len(np.unique(catches)) > 1
    np.testing.assert_allclose(step.reward[:, :3], np.repeat(10.0 * catches[:, None], 3, axis=1))

    result = evaluate(trained(tmp_path / "run", "simple_tag"), episodes=2, seed=0)
    one, *others = (result.return_per_agent[f"adversary_{i}"] for i in range(3))
    assert others == pytest.approx([one, one])
    assert result.return_mean == pytest.approx(3 * one + result.return_per_agent["agent_0"])
