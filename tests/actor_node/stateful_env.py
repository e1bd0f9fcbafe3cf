"""An environment whose state() says more than all observations: `pettingzoo:tests.actor_node.stateful_env`.

Two walkers see the number of the step alone. The state is both positions and a hidden goal, to which the walkers are
paid to go; `kind` says what is wrong with the state.
"""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class Stateful(ParallelEnv):  # type: ignore[type-arg]
    """Two walkers on a line with a hidden goal."""

    metadata = {"name": "stateful", "render_modes": []}  # noqa: RUF012

    def __init__(self, kind: str = "plain", length: int = 5) -> None:
        self.possible_agents = ["walker_0", "walker_1"]
        self.kind, self.length = kind, length

    def observation_space(self, agent: str) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,), np.float32)

    def action_space(self, agent: str) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, seed: int | None = None, options: object = None) -> tuple[dict, dict]:
        self.rng = np.random.default_rng(seed)
        self.agents, self.age = list(self.possible_agents), 0
        self.x, self.goal = self.rng.uniform(-1, 1, 2), self.rng.uniform(-1, 1)
        return self._observations(), {agent: {} for agent in self.agents}

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        self.age += 1
        self.x = np.clip(self.x + 0.2 * np.array([actions[agent][0] for agent in self.possible_agents]), -1, 1)
        rewards = {agent: -abs(x - self.goal) for agent, x in zip(self.possible_agents, self.x, strict=True)}
        over = self.age >= self.length
        flags = dict.fromkeys(self.agents, over)
        result = self._observations(), rewards, dict.fromkeys(self.agents, False), flags, {}
        if over:
            self.agents = []
        return result

    def state(self) -> object:
        if self.kind == "none":
            return super().state()
        if self.kind == "raises":
            return self.missing  # type: ignore[attr-defined]
        if self.kind == "text":
            return "everything"
        values = np.array([[*self.x], [self.goal, self.age]])
        if self.kind == "grows" and self.age == 2:
            return np.append(values, 1.0)
        if self.kind == "nan" and self.age == 2:
            values[1, 0] = np.nan
        return values

    def _observations(self) -> dict:
        return {agent: np.array([self.age / self.length], np.float32) for agent in self.possible_agents}


def parallel_env(kind: str = "plain", length: int = 5) -> Stateful:
    """Makes one."""
    return Stateful(kind, length)
