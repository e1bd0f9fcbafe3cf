"""A ParallelEnv with options that break or mark it, for tests of `shoal check`."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import ParallelEnv

_leak: list[bytes] = []


class Checked(ParallelEnv):  # type: ignore[type-arg]
    """Two agents that see a clock and a constant; the reward is 1 for the last action."""

    metadata: ClassVar[dict[str, Any]] = {"name": "checked"}

    def __init__(self, fault: str = "", length: int = 10, scale: float = 1.0) -> None:
        self.possible_agents = ["red_0", "blue_0"]
        self.fault, self.length, self.scale = fault, length, scale
        self._obs = {agent: Box(-np.inf, np.inf, (3,), np.float32) for agent in self.possible_agents}
        self._acts = {agent: Discrete(3) for agent in self.possible_agents}
        self._rng = np.random.default_rng(0)
        if fault == "constructor":
            raise RuntimeError("no licence")

    def observation_space(self, agent: str) -> Box:
        return self._obs[agent]

    def action_space(self, agent: str) -> Discrete:
        return self._acts[agent]

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None and self.fault != "unseeded":
            self._rng = np.random.default_rng(seed)
        elif self.fault == "unseeded":
            self._rng = np.random.default_rng()
        self.age, self.agents = 0, list(self.possible_agents)
        return self._observe(), {agent: {} for agent in self.agents}

    def step(self, actions: Any) -> Any:
        self.age += 1
        match self.fault:
            case "step" if self.age == 5:
                raise ValueError("the motor is gone")
            case "exit" if self.age == 5:
                os._exit(7)
            case "hang" if self.age == 5:
                time.sleep(3600)
            case "leak":
                _leak.append(b"x" * 50_000)
            case "prints":
                print("a line of the simulator")
        rewards = {agent: float(action == 2) for agent, action in actions.items()}
        over = self.length > 0 and self.age >= self.length
        flags = dict.fromkeys(self.agents, over)
        observations = self._observe()
        infos: dict[str, Any] = {agent: {} for agent in self.agents}
        if over:
            self.agents = []
        return observations, rewards, dict.fromkeys(flags, False), flags, infos

    def _observe(self) -> dict[str, Any]:
        draw = self._rng.normal() * self.scale
        return {agent: np.array([draw, self.age / 10.0, 4.0], np.float32) for agent in self.possible_agents}


parallel_env = Checked
