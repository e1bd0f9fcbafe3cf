"""A small environment of a user's: two points move to a target each, in units that the options choose."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

STEPS = 25


class ReachTarget(ParallelEnv[str, Any, Any]):
    """Each agent is paid for being near its target; a quarter of the pay is for the other's distance.

    obs_scale, reward_scale: factors on all observations and rewards. odd_columns: also return a large constant and
    noise that says nothing.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "reach_target", "is_parallelizable": True}

    def __init__(self, obs_scale: float = 1.0, reward_scale: float = 1.0, *, odd_columns: bool = False) -> None:
        self.possible_agents = ["walker_0", "walker_1"]
        self._obs_scale, self._reward_scale, self._odd_columns = obs_scale, reward_scale, odd_columns
        columns = 6 + 2 * odd_columns
        self._obs_space = Box(-np.inf, np.inf, (columns,), np.float32)
        self._action_space = Box(-1.0, 1.0, (2,), np.float32)
        self._rng = np.random.default_rng()

    def observation_space(self, agent: str) -> Box:
        return self._obs_space

    def action_space(self, agent: str) -> Box:
        return self._action_space

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self._position, self._target = self._rng.uniform(-1.0, 1.0, (2, 2, 2))
        self._velocity = np.zeros((2, 2))
        self._steps = 0
        return self._observations(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        push = np.stack([np.clip(actions[agent], -1.0, 1.0) for agent in self.agents])
        self._velocity = 0.75 * self._velocity + 0.1 * push
        self._position = self._position + self._velocity
        self._steps += 1
        distance = np.linalg.norm(self._position - self._target, axis=1)
        pay = -(0.75 * distance + 0.25 * distance[::-1]) * self._reward_scale
        agents, over = self.agents, self._steps >= STEPS
        found = (
            self._observations(),
            {agent: float(pay[i]) for i, agent in enumerate(agents)},
            dict.fromkeys(agents, False),
            dict.fromkeys(agents, over),
            {agent: {} for agent in agents},
        )
        if over:
            self.agents = []
        return found

    def _observations(self) -> dict[str, Any]:
        rows = np.concatenate([self._position, self._velocity, self._target - self._position], 1)
        if self._odd_columns:
            constant, noise = np.full((2, 1), 1e5), self._rng.normal(50.0, 20.0, (2, 1))
            rows = np.concatenate([rows, constant, noise], 1)
        return {agent: (rows[i] * self._obs_scale).astype(np.float32) for i, agent in enumerate(self.possible_agents)}


def parallel_env(**options: Any) -> ReachTarget:
    return ReachTarget(**options)
