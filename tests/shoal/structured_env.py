"""A PettingZoo environment whose spaces are not flat."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class Structured(ParallelEnv):  # type: ignore[misc]
    """A walker sees a table of parts and acts by a matrix; a chooser sees a number and makes two choices."""

    metadata = {"name": "structured"}  # noqa: RUF012
    possible_agents = ["walker", "chooser"]  # noqa: RUF012

    def __init__(self) -> None:
        self.agents = list(self.possible_agents)
        seen = {"place": spaces.Box(-1, 1, (2, 2)), "room": spaces.Discrete(3, start=1)}
        self._obs = {"walker": spaces.Dict(seen), "chooser": spaces.Box(-1, 1, (1,))}
        self._act = {"walker": spaces.Box(-2.0, 2.0, (2, 2)), "chooser": spaces.MultiDiscrete([3, 2])}

    def observation_space(self, agent: str) -> Any:
        return self._obs[agent]

    def action_space(self, agent: str) -> Any:
        return self._act[agent]

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents, self._rng = list(self.possible_agents), np.random.default_rng(seed)
        return self._see(), {agent: {} for agent in self.agents}

    def step(self, actions: Any) -> Any:
        everyone = self.agents
        for agent in everyone:
            assert self.action_space(agent).contains(actions[agent])
        seen = self._see()
        self.agents = []
        return (
            seen,
            dict.fromkeys(everyone, 0.0),
            dict.fromkeys(everyone, False),
            dict.fromkeys(everyone, True),
            {agent: {} for agent in everyone},
        )

    def _see(self) -> Any:
        place = self._rng.uniform(-1, 1, (2, 2)).astype(np.float32)
        walker = {"place": place, "room": int(self._rng.integers(1, 4))}
        return {"walker": walker, "chooser": self._rng.uniform(-1, 1, 1).astype(np.float32)}


def parallel_env() -> Structured:
    return Structured()
