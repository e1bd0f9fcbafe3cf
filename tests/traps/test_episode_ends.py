"""Traps 1 to 6: what is learnt of the last step of an episode."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from common.worlds import make_world
from learner_node.stacked.update import StackedUpdate
from tests.traps.hand import STILL, batch_of, collect, critic, learner, policy, put, rows, run_in, team

LIMIT = 4
BOTH = pytest.mark.parametrize("scenario", ["simple", "mpe2:simple"])
"""The batched world, and mpe2 itself behind the adapter for any PettingZoo environment."""


def learner_of_simple(weights: list[float], bias: float = 0.0) -> StackedUpdate:
    """Returns a learner for `simple` whose target critic is `weights . obs + bias`, with a discount of 0.95."""
    found = learner(run_in("simple").joint, discount=0.95)
    put(found, target_critics=[critic([*weights, *[0.0] * 5], bias)])
    return found


@BOTH
def test_01_targets_are_not_taken_from_the_next_episodes_first_observation(scenario: str) -> None:
    """AgileRL 2.9.1's vector worker hands out the reset observation as the last next observation of an episode.

    Of MPE's transitions one in 25 then takes its value from the start of an unrelated episode. Here a particle's
    successor is known from physics: it sees velocity and the way to its landmark, and way' = way - 0.1 * velocity.
    """
    records = collect(run_in(scenario, {"max_cycles": LIMIT}), 3 * LIMIT, copies=5)
    velocity, way = records["obs"][..., :2], records["obs"][..., 2:]
    np.testing.assert_allclose(records["next_obs"][..., 2:], way - 0.1 * velocity, atol=1e-6)

    last, first = records[LIMIT - 1 :: LIMIT][:-1], records[LIMIT::LIMIT]
    assert (first["obs"][..., :2] == 0.0).all(), "another episode has begun, at rest"
    assert (abs(last["next_obs"] - first["obs"]) > 1e-3).any(axis=-1).all(), "and it begins elsewhere"

    flat = records.reshape(-1)
    target = learner_of_simple([0.0, 0.0, 1.0, 0.0]).td_target(batch_of(flat))[0]
    successor = flat["obs"][:, 2].astype(float) - 0.1 * flat["obs"][:, 0]
    np.testing.assert_allclose(target, flat["reward"][:, 0] + 0.95 * successor, atol=1e-6)


class Race(ParallelEnv):
    """Two runners; in step 3 each is truncated, or terminated if it is among `finish`. They see the step's number."""

    metadata: ClassVar[dict[str, Any]] = {"name": "race"}
    possible_agents: ClassVar = ["runner_0", "runner_1"]

    def __init__(self, finish: str = "") -> None:
        self._finish = finish.split()
        self.resets = 0

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Box(0, 9, (1,))

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Box(-1, 1, (1,))

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.resets, self._time, self.agents = self.resets + 1, 0, list(self.possible_agents)
        return self._seen(), {}

    def step(self, actions: Any) -> Any:
        self._time += 1
        over, seen, acted = self._time == 3, self._seen(), self.agents
        self.agents = [] if over else acted
        terminations = {agent: over and agent in self._finish for agent in acted}
        truncations = {agent: over and agent not in self._finish for agent in acted}
        return seen, dict.fromkeys(acted, 1.0), terminations, truncations, {agent: {} for agent in acted}

    def _seen(self) -> dict[str, np.ndarray]:
        return {agent: np.array([self._time], np.float32) for agent in self.agents}

    def close(self) -> None:
        """Frees nothing."""


@pytest.mark.parametrize("finish", ["", "runner_0", "runner_0 runner_1"], ids=["truncated", "mixed", "terminated"])
def test_02_an_episode_is_over_however_each_of_its_agents_ended(finish: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """AgileRL 2.9.1's wrapper asks `all(terminations or truncations)`: a list that is not empty hides the second one.

    An episode that only time ended, as all of MPE's, is then never noticed and the environment never reset.
    """
    module, envs = ModuleType("race_v0"), []
    module.parallel_env = lambda **options: envs.append(Race(**options)) or envs[-1]  # type: ignore[attr-defined, func-returns-value]
    monkeypatch.setitem(sys.modules, "race_v0", module)
    world = make_world("pettingzoo:race_v0", seed=0, finish=finish)
    world.reset()
    steps = [world.step(np.zeros((1, 2), np.float32)) for _ in range(7)]
    assert [bool(step.episode_over[0]) for step in steps] == [False, False, True] * 2 + [False]
    assert envs[0].resets == 3
    assert [step.next_obs[0, 0] for step in steps] == [1, 2, 3, 1, 2, 3, 1]
    assert [step.obs[0, 0] for step in steps] == [1, 2, 0, 1, 2, 0, 1]
    ended = [0.0 if agent in finish else 1.0 for agent in Race.possible_agents]
    assert steps[2].discount[0].tolist() == ended
    assert steps[3].discount[0].tolist() == [1.0, 1.0]


@BOTH
def test_03_a_time_limit_is_no_end_of_the_task(scenario: str) -> None:
    """marlbenchmark/off-policy calls an episode done at its time limit and learns that nothing comes after it.

    PettingZoo #1126 finds the same in PettingZoo's CleanRL tutorials. A discount of 0 is for true ends alone.
    """
    records = collect(run_in(scenario, {"max_cycles": LIMIT}), 3 * LIMIT, copies=5)
    assert (records["discount"] == 1.0).all()


def test_03_a_true_end_is_one() -> None:
    """The other half of the trap: with `discount = 1` everywhere, an agent would go on to earn after its end.

    At rest, nothing moves in the first step: it ends where the landmark lies within 0.1, and nowhere else.
    """
    world = make_world("simple_spread", 2_000, seed=0, N=1, terminate_on_success=True)
    way = world.reset()[:, 4:6].astype(float)
    step = world.step(np.full((2_000, 5), 0.5, np.float32))
    covered = np.hypot(way[:, 0], way[:, 1]) < 0.1
    assert 0 < covered.sum() < 100
    np.testing.assert_array_equal(step.discount[:, 0], np.where(covered, 0.0, 1.0))
    np.testing.assert_array_equal(step.episode_over, covered)


def test_04_an_episode_that_is_cut_off_is_worth_what_the_endless_task_is() -> None:
    """openai/maddpg keeps bootstrapping at the time limit (MPE never says done there); ports that add a mask lose it.

    A task that pays 1 a step for ever is worth 20 at a discount of 0.95: every row, the last of an episode too, must
    say so again, or the values of 25-step episodes sink towards what 25 steps pay.
    """
    records = collect(run_in("simple", {"max_cycles": LIMIT}), 3 * LIMIT, copies=2).reshape(-1)
    records["reward"] = 1.0
    target = learner_of_simple([0.0] * 4, bias=20.0).td_target(batch_of(records))
    np.testing.assert_allclose(target, 20.0, rtol=1e-9)


def test_05_targets_come_from_the_target_networks() -> None:
    """In revisiting-maddpg's PyTorch code `update_critic` asks the critic for its own target, not the target network.

    Here the networks and their targets disagree in everything; y = 1 + 0.5 * (8 + 2 tanh(3 - 1)) by the targets.
    """
    found = learner(team("a"), discount=0.5, target_rate=0.01)
    put(found, critics=[critic([0.0, -7.0], -3.0)], target_critics=[critic([0.0, 2.0], 8.0)])
    put(found, policies=[policy([-1.0])], target_policies=[policy([1.0], biases=[-1.0])])
    batch = rows(found.agents, next_obs=3.0, reward=1.0)
    assert found.td_target(batch).item() == pytest.approx(1 + 0.5 * (8 + 2 * np.tanh(2.0)), abs=1e-9)

    found.update(batch, STILL, STILL)
    weight, bias, logit = 0.99 * 2.0 - 0.01 * 7.0, 0.99 * 8.0 - 0.01 * 3.0, 0.98 * 3.0 - 0.99
    followed = 1 + 0.5 * (bias + weight * np.tanh(logit))
    assert found.td_target(batch).item() == pytest.approx(followed, abs=1e-9), "and follow at the target rate"


def test_06_the_last_transition_of_an_episode_counts_in_both_losses() -> None:
    """EPyMARL 2.0's MADDPG learner weighs its losses by `1 - terminated`, where a time limit counts as terminated.

    An episode's last transition is then never learnt from. Three rows here: within an episode, cut off, truly ended.
    """
    found = learner(team("a"), discount=0.5, action_regularisation=0.0)
    put(found, critics=[critic([1.0, 0.0])], target_critics=[critic([0.0, 0.0], 4.0)])
    batch = rows(found.agents, obs=[[1], [2], [6]], reward=[[1], [3], [7]], discount=[[1], [1], [0]], count=3)
    torch.testing.assert_close(found.td_target(batch), torch.tensor([[3.0, 5.0, 7.0]], dtype=torch.float64))
    measured = found.update(batch, STILL, STILL)
    assert measured.critic_loss.item() == pytest.approx(((1 - 3) ** 2 + (2 - 5) ** 2 + (6 - 7) ** 2) / 3)
    assert measured.q_mean.item() == pytest.approx((1 + 2 + 6) / 3)
    assert measured.policy_loss.item() == pytest.approx(-(1 + 2 + 6) / 3)
