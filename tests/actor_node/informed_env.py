"""An environment whose infos contain numbers: `pettingzoo:tests.actor_node.informed_env`.

walker_0 acts in 4 steps, walker_1 in 2. `waiting` is the number of the step; `success` is given in each agent's last
step alone, 1 to walker_0 and 0 to walker_1; `rare` is given in episodes of even seeds.
"""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

LENGTHS = {"walker_0": 4, "walker_1": 2}


class Informed:
    """Two walkers that see the number of the step."""

    metadata = {"name": "informed", "render_modes": []}  # noqa: RUF012
    possible_agents = ("walker_0", "walker_1")

    def __init__(self) -> None:
        self.agents: list[str] = []

    def observation_space(self, _agent: str) -> spaces.Space:
        return spaces.Box(-10.0, 10.0, (1,), np.float32)

    def action_space(self, _agent: str) -> spaces.Space:
        return spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, seed: int | None = None, options: object = None) -> tuple[dict, dict]:
        self.agents, self.age, self.seed = list(self.possible_agents), 0, int(seed or 0)
        return self._observations(), {agent: {"waiting": 99.0} for agent in self.agents}

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        self.age += 1
        acting = list(self.agents)
        terminated = {agent: self.age == LENGTHS[agent] for agent in acting}
        result = (
            self._observations(),
            {agent: float(actions[agent][0]) for agent in acting},
            terminated,
            dict.fromkeys(acting, False),
            {agent: self._info(agent, ended=terminated[agent]) for agent in acting} | {"walker_9": {"waiting": 1e9}},
        )
        self.agents = [agent for agent in acting if not terminated[agent]]
        return result

    def close(self) -> None:
        pass

    def _info(self, agent: str, *, ended: bool) -> dict:
        info = {"waiting": np.float32(self.age), "note": "a text", "mask": np.ones(3), "return_mean": 1.0}
        info |= {"line\nbreak": 1.0, "x" * 41: 1.0, "nothing": float("nan"), "huge": 10**400, 7: 7.0}
        if ended:
            info["success"] = np.bool_(agent == "walker_0")
        if self.seed % 2 == 0:
            info["rare"] = 3
        return info

    def _observations(self) -> dict:
        return {agent: np.array([self.age], np.float32) for agent in self.agents}


def parallel_env() -> Informed:
    """Makes one."""
    return Informed()
