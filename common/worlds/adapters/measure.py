"""Steps the first copy of an environment for a second, to measure the facts by which a preset adapts to a world.

Random actions show how long a step takes and whether episodes end. The time limit is the length of a truncated episode,
or the value of an attribute in which Gymnasium and PettingZoo environments usually store it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from common.policy.masks import ActionMasks, allowed
from common.run.world_facts import WorldFacts
from common.spec import Box, JointSpec
from common.worlds.world import Float32Array, HasEnvironments, World

MEASURE_S = 1.0
MAX_STEPS = 2_000
MAX_EPISODES = 4
_LIMITS = ("max_cycles", "max_episode_steps", "_max_episode_steps", "max_steps", "episode_limit")
"""Attributes in which environments store their time limit."""
_MAX_LIMIT = 10_000_000
"""Largest attribute that is taken for a time limit [steps]; larger ones mean no limit."""


def measure(world: World, clock: Callable[[], float] = time.monotonic) -> WorldFacts:
    """Returns the measurements of a world of one copy; an exception of the environment passes through.

    Ends after MEASURE_S, MAX_STEPS or MAX_EPISODES, whichever comes first, but not before one step.
    """
    rng = np.random.default_rng(0)
    obs = world.reset()
    started_at = now = clock()
    durations: list[float] = []
    age = episodes = longest = truncated_at = 0
    while not durations or (len(durations) < MAX_STEPS and episodes < MAX_EPISODES and now - started_at < MEASURE_S):
        before = now
        step = world.step(random_actions(world.spec, obs, rng))
        now, age, obs = clock(), age + 1, step.obs
        durations.append(now - before)
        if step.episode_over[0]:
            if step.discount[0].all():
                truncated_at = max(truncated_at, age)
            longest, age, episodes = max(longest, age), 0, episodes + 1
    return WorldFacts(
        steps=len(durations),
        # The first steps of some environments compile code, and other processes may interrupt some.
        step_s=float(np.median(durations)),
        time_limit=truncated_at or stated_limit(world),
        longest_episode=longest,
        batched=not isinstance(world, HasEnvironments),
    )


def random_actions(joint: JointSpec, obs: Float32Array, rng: np.random.Generator) -> Float32Array:
    """Returns uniformly random actions `[1, A]` of all agents for one copy that observes `[1, O]`.

    Choices are among those that action masks allow.
    """
    actions = np.zeros((1, joint.action_dim), np.float32)
    logits = ActionMasks(joint.mask_columns).lower(actions.copy(), obs)
    for agent in joint.agents:
        for part, columns in zip(agent.parts, agent.part_slices, strict=True):
            start = agent.action_start + columns.start
            if isinstance(part, Box):
                actions[0, start : start + part.size] = rng.uniform(part.low, part.high)
                continue
            free = np.flatnonzero(allowed(logits[0, start : start + part.n])) if agent.masked else range(part.n)
            actions[0, start + free[rng.integers(len(free))]] = 1.0
    return actions


def stated_limit(world: World) -> int:
    """Returns the time limit that the first environment of a world states as an attribute; 0 if there is none."""
    if not isinstance(world, HasEnvironments):
        return 0
    env = world.environments[0]
    for owner in (env, _attribute(env, "unwrapped"), _attribute(env, "spec")):
        for name in _LIMITS:
            value = _attribute(owner, name)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_LIMIT:
                return value
    return 0


def _attribute(owner: Any, name: str) -> Any:
    """Returns an attribute of the user's object; None if it has none, or if reading it fails."""
    try:
        return getattr(owner, name, None)
    except Exception:  # noqa: BLE001  (the user's code)
        return None
