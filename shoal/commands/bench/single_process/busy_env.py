"""A PettingZoo environment whose step takes a given time, to measure what Shoal adds to it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from pettingzoo import ParallelEnv

OBS_SIZE, ACTION_SIZE, EPISODE_STEPS = 9, 3, 1_000
Rows = dict[str, npt.NDArray[np.float64]]


class BusyEnv(ParallelEnv):  # type: ignore[misc]  # pettingzoo has no types
    """Two agents with the sizes of MaMuJoCo's HalfCheetah 2x3; a step computes nothing and takes `step_us`.

    Example: make_world(f"pettingzoo:{BusyEnv.__module__}.BusyEnv", copies=8, options={"step_us": 50.0})
    """

    metadata = {"name": "busy"}  # noqa: RUF012  (PettingZoo's own convention)

    def __init__(self, step_us: float = 50.0) -> None:
        self.possible_agents = ["agent_0", "agent_1"]
        self.agents: list[str] = []
        self._step_ns = round(step_us * 1e3)
        self._observation = spaces.Box(-np.inf, np.inf, (OBS_SIZE,), np.float64)
        self._action = spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self._rows: Rows = {agent: np.zeros(OBS_SIZE) for agent in self.possible_agents}
        self._age = 0

    def observation_space(self, agent: str) -> spaces.Space[Any]:  # noqa: ARG002  (all agents are alike)
        """Returns the space of an agent's observations."""
        return self._observation

    def action_space(self, agent: str) -> spaces.Space[Any]:  # noqa: ARG002  (all agents are alike)
        """Returns the space of an agent's actions."""
        return self._action

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[Rows, dict[str, Any]]:  # noqa: ARG002
        """Starts an episode."""
        self.agents, self._age = list(self.possible_agents), 0
        return dict(self._rows), {agent: {} for agent in self.agents}

    def step(self, actions: Rows) -> tuple[Any, ...]:  # noqa: ARG002  (the actions do nothing)
        """Computes nothing until the thread has used `step_us` of its core."""
        until = time.thread_time_ns() + self._step_ns
        self._age += 1
        over = self._age == EPISODE_STEPS
        agents = self.agents
        result: tuple[Any, ...] = (
            dict(self._rows),
            dict.fromkeys(agents, 1.0),
            dict.fromkeys(agents, False),
            dict.fromkeys(agents, over),
            {agent: {} for agent in agents},
        )
        if over:
            self.agents = []
        while time.thread_time_ns() < until:
            pass
        return result
