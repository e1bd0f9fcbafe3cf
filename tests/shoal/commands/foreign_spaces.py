"""An environment with every kind of space, for tests of exported policies; it refuses invalid actions."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

OBSERVATION = spaces.Dict(
    {
        "speed": spaces.Box(0, 9, (2, 2), np.float64),
        "gear": spaces.Discrete(3, start=5),
        "lamps": spaces.MultiBinary(4),
        "deep": spaces.Tuple((spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (), np.float32))),
    }
)
ACTIONS: dict[Any, spaces.Space[Any]] = {
    "../../chooser": spaces.Discrete(3, start=4),
    "grid/mover": spaces.Box(-0.1, 3.3, (2, 2), np.float64),
    "Panel": spaces.MultiDiscrete([[3, 2], [5, 2]], start=[[1, 0], [-2, 7]]),
    "panel": spaces.MultiBinary(3),
}


class Env(ParallelEnv):  # type: ignore[misc]
    """Four agents with different kinds of actions and hostile names; episodes have six steps."""

    metadata = {"name": "foreign_spaces"}  # noqa: RUF012  (the form of PettingZoo)

    def __init__(self) -> None:
        self.possible_agents = list(ACTIONS)
        self.agents: list[Any] = []
        self._steps = 0

    def observation_space(self, agent: Any) -> spaces.Space[Any]:
        """Returns the observation space, the same for all agents."""
        return OBSERVATION

    def action_space(self, agent: Any) -> spaces.Space[Any]:
        """Returns the action space of an agent."""
        return ACTIONS[agent]

    def reset(self, seed: int | None = None, options: object = None) -> tuple[dict[Any, Any], dict[Any, Any]]:
        """Starts an episode."""
        OBSERVATION.seed(seed)
        self.agents, self._steps = list(ACTIONS), 0
        return self._observations(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[Any, Any]) -> tuple[dict[Any, Any], ...]:
        """Checks every action against its space."""
        for agent, action in actions.items():
            space = ACTIONS[agent]
            if not space.contains(action):
                raise ValueError(f"{agent}: {action!r} is not in {space}")
        self._steps += 1
        over = self._steps >= 6
        agents = list(self.agents)
        self.agents = [] if over else agents
        return (
            {agent: OBSERVATION.sample() for agent in agents},
            dict.fromkeys(agents, 1.0),
            dict.fromkeys(agents, False),
            dict.fromkeys(agents, over),
            {agent: {} for agent in agents},
        )

    def _observations(self) -> dict[Any, Any]:
        return {agent: OBSERVATION.sample() for agent in self.agents}


def parallel_env() -> Env:
    """Returns the environment of `pettingzoo:tests.shoal.commands.foreign_spaces`."""
    return Env()
