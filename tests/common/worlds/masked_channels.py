"""A small environment with action masks that raises an exception for each forbidden action.

Two players choose among channels whose worth they see; each earns the worth of its channel, and few channels are free.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

CHANNELS = 6
FREE = 3
LENGTH = 15


class MaskedChannels(ParallelEnv):
    """player_0 and player_1, for LENGTH steps.

    where: "observation" (a Dict with the key action_mask) or "info". first_mask: the mask of player_0 instead of a
    drawn one. levels: how many power levels a player chooses too, all of them free: then an action is a MultiDiscrete.
    free: how many channels are free.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "masked_channels"}

    def __init__(self, where: str = "observation", first_mask: Any = None, levels: int = 0, free: int = FREE) -> None:
        self.possible_agents, self.agents = ["player_0", "player_1"], []
        self._where, self._first_mask, self._levels, self._free_count = where, first_mask, levels, free
        self.resets: list[int | None] = []
        choices = [CHANNELS, levels] if levels else [CHANNELS]
        self._acted = spaces.MultiDiscrete(choices) if levels else spaces.Discrete(CHANNELS)
        seen = spaces.Box(0.0, 1.0, (CHANNELS,), np.float32)
        mask = spaces.Box(0, 1, (sum(choices),), np.int8)
        self._seen = spaces.Dict(observation=seen, action_mask=mask) if where == "observation" else seen

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self._seen

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self._acted

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.resets.append(seed)
        self._rng, self._age, self.agents = np.random.default_rng(seed), 0, list(self.possible_agents)
        return self._observe()

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        chosen = {agent: int(np.ravel(action)[0]) for agent, action in actions.items()}
        for agent, channel in chosen.items():
            if not self._free[agent][channel]:
                raise ValueError(f"{agent} took channel {channel}, which its action mask forbids")
        rewards = {agent: float(self._worth[channel]) for agent, channel in chosen.items()}
        self._age += 1
        seen, infos = self._observe()
        is_over = self._age >= LENGTH
        ends = dict.fromkeys(self.agents, is_over)
        if is_over:
            self.agents = []
        return seen, rewards, dict.fromkeys(ends, False), ends, infos

    def _observe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        self._worth = self._rng.random(CHANNELS, np.float32)
        free = np.arange(CHANNELS) < self._free_count
        self._free = {agent: self._rng.permutation(free) for agent in self.possible_agents}
        masks: dict[str, Any] = {
            agent: np.concatenate([own, np.ones(self._levels, bool)]).astype(np.int8)
            for agent, own in self._free.items()
        }
        if self._first_mask is not None:
            masks["player_0"] = self._first_mask
            self._free["player_0"] = np.ones(CHANNELS, bool)
        if self._where == "info":
            return dict.fromkeys(masks, self._worth), {agent: {"action_mask": mask} for agent, mask in masks.items()}
        seen = {agent: {"observation": self._worth, "action_mask": mask} for agent, mask in masks.items()}
        return seen, {agent: {} for agent in masks}


def parallel_env(**options: Any) -> MaskedChannels:
    """Returns the environment."""
    return MaskedChannels(**options)
