"""A small environment with configurable names, sizes, rewards and speed."""

from __future__ import annotations

import time
from itertools import cycle
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class TeamKinds(ParallelEnv):
    """Each agent pushes a point; the reward is minus its distance to zero, or the sum over the team."""

    metadata: ClassVar[dict[str, Any]] = {"name": "team_kinds"}

    def __init__(self, names: str, sizes: str, *, shared: bool, delay_s: float, length: int, picture: int) -> None:
        self.possible_agents: list[Any] = [int(name) if name.isdigit() else name for name in names.split()]
        self.agents: list[Any] = []
        self._sizes = dict(zip(self.possible_agents, cycle(map(int, sizes.split())), strict=False))
        self._shared, self._delay_s, self._length, self._picture = shared, delay_s, length, picture

    def observation_space(self, agent: Any) -> spaces.Box:
        shape = (self._picture, self._picture, 3) if self._picture else (self._sizes[agent],)
        return spaces.Box(-10.0, 10.0, shape, np.float32)

    def action_space(self, agent: Any) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[Any, Any], dict[Any, Any]]:
        self.agents, self._step = list(self.possible_agents), 0
        generator = np.random.default_rng(seed)
        self._at = {agent: float(generator.uniform(-1.0, 1.0)) for agent in self.agents}
        return self._see(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[Any, Any]) -> tuple[dict[Any, Any], ...]:
        time.sleep(self._delay_s)
        self._step += 1
        acting = list(self.agents)
        self._at = {agent: float(np.clip(self._at[agent] + 0.1 * actions[agent][0], -5.0, 5.0)) for agent in acting}
        own = {agent: -abs(self._at[agent]) for agent in acting}
        team = sum(own.values())
        rewards = dict.fromkeys(acting, team) if self._shared else own
        seen, over = self._see(), self._step >= self._length
        self.agents = [] if over else acting
        no = dict.fromkeys(acting, False)
        return seen, rewards, no, dict.fromkeys(acting, over), {agent: {} for agent in acting}

    def _see(self) -> dict[Any, Any]:
        return {
            agent: np.full(self.observation_space(agent).shape, self._at[agent], np.float32) for agent in self.agents
        }


def parallel_env(
    names: str = "red blue",
    sizes: str = "3",
    *,
    shared: bool = False,
    delay_s: float = 0.0,
    length: int = 10,
    picture: int = 0,
) -> TeamKinds:
    """Returns the environment; sizes: observation sizes of the agents, repeated cyclically."""
    return TeamKinds(names, sizes, shared=shared, delay_s=delay_s, length=length, picture=picture)
