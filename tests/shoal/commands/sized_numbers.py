"""An environment with configurable sizes of observations and rewards and length of episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class Env(ParallelEnv):  # type: ignore[misc]
    """Two carts that must stop at 0; they observe position and speed, in any unit."""

    metadata = {"name": "sized_numbers"}  # noqa: RUF012  (the form of PettingZoo)

    def __init__(self, observed: float, rewarded: float, steps: int) -> None:
        self.possible_agents = ["cart_0", "cart_1"]
        self.agents: list[str] = []
        self._observed, self._rewarded, self._steps = observed, rewarded, steps
        self._rng = np.random.default_rng(0)

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """Returns the space of position and speed."""
        return spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """Returns the space of the speed."""
        return spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, seed: int | None = None, options: object = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self.agents, self._age = list(self.possible_agents), 0
        self._positions = {agent: float(self._rng.uniform(-1, 1)) for agent in self.agents}
        self._speeds = dict.fromkeys(self.agents, 0.0)
        return self._observations(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        """Moves the carts."""
        self._age += 1
        agents = list(self.agents)
        for agent, action in actions.items():
            self._speeds[agent] = float(action[0])
            self._positions[agent] = float(np.clip(self._positions[agent] + 0.1 * self._speeds[agent], -1, 1))
        rewards = {agent: -self._rewarded * abs(self._positions[agent]) for agent in agents}
        over = self._age >= self._steps
        observations = self._observations()
        self.agents = [] if over else agents
        return (
            observations,
            rewards,
            dict.fromkeys(agents, False),
            dict.fromkeys(agents, over),
            {agent: {} for agent in agents},
        )

    def _observations(self) -> dict[str, Any]:
        return {
            agent: self._observed * np.array([self._positions[agent], self._speeds[agent]])
            for agent in self.possible_agents
        }


def parallel_env(observed: float = 1.0, rewarded: float = 1.0, steps: int = 20) -> Env:
    """Returns the environment of `pettingzoo:tests.shoal.commands.sized_numbers`."""
    return Env(observed, rewarded, steps)
