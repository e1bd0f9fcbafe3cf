"""Policies with the memory of the episodes that they play, for everything that plays without exploration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from common.errors import ConfigError
from common.policy.heads import Floats
from common.policy.network import Policy

Act = Callable[[Floats, Floats], Floats]
"""Returns joint actions `[copies, sum action]` for joint observations and memories; updates the memories in place."""


class EpisodeMemory:
    """The memory of recurrent policies in a number of copies. That of other policies has no columns.

    Example:
        memory = EpisodeMemory(policy.memory_dim)
        actions = policy.act(obs, memory.rows(len(obs)))
        memory.reset(step.episode_over)
    """

    def __init__(self, memory_dim: int) -> None:
        self._memory: Floats = np.zeros((0, memory_dim), np.float32)

    def reset(self, copies: Sequence[int] | Sequence[bool] | npt.NDArray[Any] | None = None) -> None:
        """Starts episodes: the policies forget all earlier steps.

        copies: indices of the copies whose episodes start, or one boolean for each copy; None starts episodes in all
        copies, whose number may then change. Raises ConfigError for an unknown copy.
        """
        if copies is None:
            self._memory = self._memory[:0]
        elif len(self._memory) and len(copies):
            try:
                self._memory[np.asarray(copies)] = 0.0
            except IndexError as e:
                raise ConfigError(
                    f"reset({copies!r}): the team plays {len(self._memory)} copies ({e}). Pass their indices, one "
                    "boolean for each, or nothing to start new episodes in all copies."
                ) from e

    def rows(self, copies: int) -> Floats:
        """Returns the memory `[copies, memory_dim]`, for the policies to update; zero after a reset of all copies.

        Raises ConfigError for another number of copies than before without such a reset.
        """
        memory_dim = self._memory.shape[1]
        if not len(self._memory) or not memory_dim:
            self._memory = np.zeros((copies, memory_dim), np.float32)
        if len(self._memory) != copies:
            raise ConfigError(
                f"The team remembers {len(self._memory)} copies and is given observations of {copies}. Call "
                "team.reset() before the first step of new episodes."
            )
        return self._memory


class EpisodePolicy:
    """A policy that acts in copies whose episodes start together, and remembers them if it is recurrent.

    Example:
        team = EpisodePolicy(policy)
        team.start_episodes()
        actions = team.act(obs)  # [copies, sum obs] -> [copies, sum action]
    """

    def __init__(self, policy: Policy, act: Act | None = None) -> None:
        """act: chooses the actions; None takes `Policy.act`."""
        self._act = act or policy.act
        self._memory = EpisodeMemory(policy.memory_dim)

    def start_episodes(self) -> None:
        """Starts new episodes in all copies, whose number may then change."""
        self._memory.reset()

    def act(self, obs: Floats) -> Floats:
        """Returns joint actions `[copies, sum action]` for joint observations `[copies, sum obs]`."""
        return self._act(obs, self._memory.rows(len(obs)))
