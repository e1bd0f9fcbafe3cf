"""Plays episodes in the installed mpe2 itself, for the batched worlds to be compared with."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import numpy as np

from common.spec import JointSpec
from common.worlds import SCENARIOS, make_world


class Episode(NamedTuple):
    obs: np.ndarray  # [steps + 1, sum obs] float32
    rewards: np.ndarray  # [steps, agents] float64
    terminated: bool


def raw_env(scenario: str, **options):
    """mpe2's environment without the wrappers, which only clip and count."""
    stage = options.pop("curriculum_stage", 0)
    env = import_module(f"mpe2.{SCENARIOS[scenario].mpe2_module}").raw_env(**options)
    if stage:
        # mpe2 1.1.1 never leaves stage 0: BaseScenario's property swallows what set_curriculum_stage() assigns.
        staged = type("Staged", (type(env.scenario),), {"curriculum_stage": stage})
        env.scenario.__class__ = staged
    return env


def mpe2_action(spec_agent, row: np.ndarray, *, continuous: bool):
    """What mpe2 takes for an agent's slice of the joint action: its Box, or move + 5 * say."""
    if continuous:
        return np.clip(row, 0.0, 1.0)
    index, factor = 0, 1
    for part in spec_agent.part_slices:
        index += factor * int(row[part].argmax())
        factor *= part.stop - part.start
    return index


def play(env, spec: JointSpec, seed: int, actions: np.ndarray) -> Episode:
    """Plays [steps, sum actions] from `reset(seed)`, or until the episode ends."""
    names = [agent.name for agent in spec.agents]
    env.reset(seed=seed)
    obs = [[env.observe(name) for name in names]]
    rewards = []
    for joint in actions:
        for agent in spec.agents:
            env.step(mpe2_action(agent, joint[agent.action_slice], continuous=env.continuous_actions))
        obs.append([env.observe(name) for name in names])
        rewards.append([env.rewards[name] for name in names])
        if any(env.terminations.values()) or any(env.truncations.values()):
            break
    joint_obs = np.array([np.concatenate(row) for row in obs])
    return Episode(joint_obs, np.array(rewards), any(env.terminations.values()))


def assert_equal_to_mpe2(scenario: str, seeds, rng: np.random.Generator, *, low=-0.3, high=1.3, **options) -> int:
    """Plays the same random actions in both and compares every float32 observation and float64 reward.

    Returns how many of mpe2's episodes terminated. Only a copy's first episode is compared: the next start of a batched
    copy comes from the world's generator.
    """
    seeds = list(seeds)
    world = make_world(scenario, copies=len(seeds), seed=0, **options)
    env = raw_env(scenario, **{"continuous_actions": True, **options})
    steps = env.max_cycles
    actions = rng.uniform(low, high, (steps, len(seeds), world.spec.action_dim)).astype(np.float32)
    obs, rewards, discounts, over = [world.reset(seeds)], [], [], []
    for joint in actions:
        step = world.step(joint)
        obs.append(step.next_obs)
        rewards.append(world.rewards.copy())
        discounts.append(step.discount)
        over.append(step.episode_over)
    terminated = 0
    for c, seed in enumerate(seeds):
        expected = play(env, world.spec, seed, actions[:, c])
        length = len(expected.rewards)
        where = f"{scenario} {options} seed {seed}"
        np.testing.assert_array_equal(np.array([o[c] for o in obs[: length + 1]]), expected.obs, err_msg=where)
        np.testing.assert_array_equal(np.array([r[:, c] for r in rewards[:length]]), expected.rewards, err_msg=where)
        assert [bool(o[c]) for o in over[:length]] == [False] * (length - 1) + [True], where
        assert (discounts[length - 1][c] == (0.0 if expected.terminated else 1.0)).all(), where
        assert all((discount[c] == 1.0).all() for discount in discounts[: length - 1]), where
        terminated += expected.terminated
    return terminated
