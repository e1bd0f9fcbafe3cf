"""What every environment is to the rest of the program: many copies of one world, stepped together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import WorldError
from common.spec import AgentsSpec

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_NO_METRICS: Mapping[str, Float64Array] = MappingProxyType({})


class Step(NamedTuple):
    """What one step of all copies gave. Arrays are to be read, not written: `obs` and `next_obs` may be one array."""

    obs: Float32Array
    """[copies, sum obs]: what to act on next; where an episode ended, the first observation of the next one."""
    reward: Float32Array
    """[copies, agents]: as the scenario gives it, unscaled."""
    discount: Float32Array
    """[copies, agents]: 0.0 where the agent truly terminated, else 1.0; a time limit keeps 1.0."""
    present: Float32Array
    """[copies, agents]: 1.0 where the agent acted in this step."""
    next_obs: Float32Array
    """[copies, sum obs]: the true successor of what was acted on, never a reset observation."""
    episode_over: BoolArray
    """[copies]: the episode ended with this step, for whatever reason; the copy has been reset if its world does so."""
    metrics: Mapping[str, Float64Array] = _NO_METRICS
    """name -> [copies, agents]: the scenario's benchmark data, where they were asked for."""


class EpisodeRules(NamedTuple):
    """What a world does with episodes beyond what its environment says."""

    max_steps: int = 0
    """An episode that is still running after this number of steps is truncated; 0 sets no limit."""
    restart_ended: bool = True
    """Whether `step()` resets a copy whose episode ended; otherwise the copy is absent until `reset()`."""


AS_THE_WORLD_SAYS = EpisodeRules()


class World(Protocol):
    """Copies of one environment that share a spec and step together; each is reset by itself when its episode ends."""

    @property
    def name(self) -> str:
        """The name it was made by."""
        ...

    @property
    def spec(self) -> AgentsSpec:
        """Names, teams, sizes and kinds of action of the agents."""
        ...

    @property
    def copies(self) -> int:
        """How many copies step together."""
        ...

    def reset(self, seeds: Sequence[int] | None = None) -> Float32Array:
        """Starts a new episode in every copy and returns the first joint observations, [copies, sum obs].

        seeds: one a copy, or None to draw the starts from the world's own generator.
        """
        ...

    def step(self, actions: Float32Array) -> Step:
        """Steps every copy by its joint action, [copies, sum actions], and resets the copies whose episode ended."""
        ...

    def close(self) -> None:
        """Frees what the copies hold; the world cannot be used afterwards."""
        ...


def check_actions(
    world: World, actions: NDArray[Any], shape: tuple[int, int], ages: Sequence[int] | NDArray[np.intp]
) -> None:
    """Checks joint actions before a step; ages: each copy's steps since its reset, -1 where it was never reset.

    Raises ValueError for a wrong shape, WorldError for a step before the first reset and for a NaN.
    """
    if actions.shape != shape:
        raise ValueError(f"{world.name}: actions are {list(actions.shape)}, not [copies, sum actions] = {list(shape)}")
    if ages[0] < 0:
        raise WorldError(f"{world.name}: stepped before the first reset")
    # Squares cannot cancel, so their sum is NaN only where an entry is: one call instead of a mask.
    if np.isnan(np.vdot(actions, actions)):
        copy, column = np.argwhere(np.isnan(actions))[0]
        agent = next(agent.name for agent in world.spec.agents if column < agent.action_slice.stop)
        raise WorldError(f"{world.name}: step {ages[copy] + 1} of copy {copy}: {agent}'s action is NaN", int(copy))
