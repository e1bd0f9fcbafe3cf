"""A world whose agents remember: the option `history` of every world.

    world = make_world("simple_spread", copies=64, seed=0, options={"history": 2})

The wrapper takes the world's steps and stacks their observations (`common/history.py`). Everything else is the world's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from common.history import HistoryStack
from common.state import Restorable, State, copy_into, select_prefix, with_prefix
from common.worlds.world import BoolArray, Float32Array, HasGlobalState, Step, World


@runtime_checkable
class Departing(Protocol):
    """A world whose agents may leave an episode before the others."""

    @property
    def departed(self) -> BoolArray:
        """Which agents have left the current episode, [copies, agents]."""
        ...


class HistoryWorld:
    """A world in which each agent observes its last `history` observations and actions too."""

    def __init__(self, inner: World, history: int) -> None:
        self.inner = inner
        """The world without history."""
        self.history = history
        """Number of steps that an agent remembers."""
        self.name, self.copies = inner.name, inner.copies
        self._departing = inner if isinstance(inner, Departing) else None
        self._stack = HistoryStack(inner.spec, history, inner.copies)
        self.spec = self._stack.spec

    def reset(self, seeds: Sequence[int] | None = None) -> Float32Array:
        """Starts a new episode in every copy, without history."""
        return self._stack.start(self.inner.reset(seeds))

    def step(self, actions: Float32Array) -> Step:
        """Steps every copy; a copy whose episode ended starts the next one without history."""
        step = self.inner.step(actions)
        next_obs = self._stack.advance(step.next_obs, actions, step.present > 0)
        forget = self._find_ended(step)
        obs = self._stack.replace(step.obs, forget) if forget.any() else next_obs
        return step._replace(obs=obs, next_obs=next_obs)

    def global_state(self) -> Float32Array:
        """Returns the world's states for the next actions `[copies, state]`; only if its spec has a state."""
        if not isinstance(self.inner, HasGlobalState):
            raise TypeError(f"{self.name} has no global state")
        return self.inner.global_state()

    def close(self) -> None:
        """Closes the world."""
        self.inner.close()

    def _find_ended(self, step: Step) -> BoolArray:
        """Returns which agents' episodes ended with this step or earlier, [copies, agents]."""
        ended = np.repeat(step.episode_over[:, None], len(self.spec.agents), axis=1)
        return ended if self._departing is None else ended | self._departing.departed


class RestorableHistoryWorld(HistoryWorld):
    """A world with history whose state can be saved."""

    def state(self) -> State:
        """Returns the state of the world and the stacked observations."""
        if not isinstance(self.inner, Restorable):  # `with_history` chose this class for a restorable world
            raise TypeError(f"{self.name} is not restorable")
        return {**with_prefix("inner", self.inner.state()), "stacked_obs": self._stack.rows.copy()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restores a state and continues exactly from it; KeyError or ValueError for a state of another world."""
        if not isinstance(self.inner, Restorable):
            raise TypeError(f"{self.name} is not restorable")
        rows = np.empty_like(self._stack.rows)
        copy_into(rows, state["stacked_obs"])
        self.inner.restore(select_prefix("inner", state))
        self._stack.rows = rows


def with_history(world: World, history: int) -> World:
    """Returns the world with stacked history; the world itself if `history` is 0. Closes it if it cannot be stacked."""
    if not history:
        return world
    kind = RestorableHistoryWorld if isinstance(world, Restorable) else HistoryWorld
    try:
        return kind(world, history)
    except BaseException:
        world.close()
        raise


def without_history(world: World) -> World:
    """Returns the world that a world with history wraps, or the world itself."""
    return world.inner if isinstance(world, HistoryWorld) else world
