"""An environment that cannot be solved without memory: a cue in the first observation, the reward three steps later."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

STEPS = 4


class RememberCue(ParallelEnv):  # type: ignore[misc]
    """Each agent observes its cue, +0.8 or -0.8, in the first step only; its fourth action must be the cue.

    The reward of the fourth step is minus the squared distance. Without memory the best action is 0: -0.64 an agent.
    """

    metadata = {"name": "remember_cue_v0"}  # noqa: RUF012

    def __init__(self) -> None:
        self.possible_agents = ["agent_0", "agent_1"]
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> Any:
        return spaces.Box(-1.0, 1.0, (2,), np.float32)

    def action_space(self, agent: str) -> Any:
        return spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self._cue, self._step = self._rng.choice([-0.8, 0.8], 2), 0
        return self._observations(), {agent: {} for agent in self.agents}

    def step(self, actions: Any) -> Any:
        self._step += 1
        over, agents = self._step == STEPS, self.agents
        rewards = {
            agent: -float((actions[agent][0] - cue) ** 2) if over else 0.0
            for agent, cue in zip(agents, self._cue, strict=True)
        }
        if over:
            self.agents = []
        return (
            self._observations(),
            rewards,
            dict.fromkeys(agents, over),
            dict.fromkeys(agents, False),
            {agent: {} for agent in agents},
        )

    def close(self) -> None:
        pass

    def _observations(self) -> Any:
        now = self._step / STEPS
        return {
            agent: np.array([cue if self._step == 0 else 0.0, now], np.float32)
            for agent, cue in zip(self.possible_agents, self._cue, strict=True)
        }


def parallel_env() -> RememberCue:
    return RememberCue()
