"""The interface of every environment: copies of one world that step together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from common.errors import WorldError
from common.spec import AgentsSpec
from common.worlds.adapters.faults import agent_text, copy_text

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

NO_METRICS: Mapping[str, Float64Array] = MappingProxyType({})
"""The metrics of a step without any."""


class Step(NamedTuple):
    """The result of one step of all copies. Only read the arrays: `obs` and `next_obs` may be the same array."""

    obs: Float32Array
    """[copies, sum obs]: the observation for the next action; after an episode's end, the first of the next episode."""
    reward: Float32Array
    """[copies, agents]: the scenario's rewards, unscaled."""
    discount: Float32Array
    """[copies, agents]: 0.0 where the agent truly terminated, else 1.0; a time limit keeps 1.0."""
    present: Float32Array
    """[copies, agents]: 1.0 where the agent acted in this step."""
    next_obs: Float32Array
    """[copies, sum obs]: the true successor of the last observation, never one of a reset."""
    episode_over: BoolArray
    """[copies]: whether the episode ended with this step, for any reason; worlds that restart have reset the copy."""
    metrics: Mapping[str, Float64Array] = NO_METRICS
    """name -> [copies, agents]: the scenario's benchmark data, or the numbers in the infos; empty if not requested."""
    next_state: Float32Array | None = None
    """[copies, state]: the global state after the action, never one of a reset; None if the spec has no state."""


class EpisodeRules(NamedTuple):
    """Rules for episodes in addition to those of the environment."""

    max_steps: int = 0
    """An episode that is still running after this number of steps is truncated; 0 sets no limit."""
    restart_ended: bool = True
    """Whether `step()` resets a copy whose episode ended; otherwise the copy is absent until `reset()`."""
    first_steps: Sequence[int] = ()
    """Length at which the first episode of each copy is truncated, 0 for none; batched worlds ignore it."""


DEFAULT_EPISODE_RULES = EpisodeRules()


class World(Protocol):
    """Copies of one environment that share a spec and step together.

    A copy whose episode ended resets by itself in the same step, unless `EpisodeRules.restart_ended` is False.

    Example:
        world = make_world("simple_spread", copies=64, seed=0)
        obs = world.reset()
        step = world.step(actions)  # actions: [64, world.spec.action_dim]
    """

    @property
    def name(self) -> str:
        """The name from which it was made."""
        ...

    @property
    def spec(self) -> AgentsSpec:
        """Names, sides, sizes and kinds of actions of the agents."""
        ...

    @property
    def copies(self) -> int:
        """Number of copies that step together."""
        ...

    def reset(self, seeds: Sequence[int] | None = None) -> Float32Array:
        """Starts a new episode in every copy and returns the first joint observations `[copies, sum obs]`.

        seeds: one for each copy, or None to draw the starts from the world's own generator.
        """
        ...

    def step(self, actions: Float32Array) -> Step:
        """Steps every copy by its joint action `[copies, sum actions]`, and resets copies whose episode ended."""
        ...

    def close(self) -> None:
        """Frees the copies' resources; the world cannot be used afterwards."""
        ...


@runtime_checkable
class HasGlobalState(Protocol):
    """A world whose spec has a global state, which critics read."""

    def global_state(self) -> Float32Array:
        """Returns a copy of the states for the next actions `[copies, state]`, after a reset those of the start."""
        ...


@runtime_checkable
class HasEnvironments(Protocol):
    """A world of separate environments, one for each copy, which it steps one after the other."""

    @property
    def environments(self) -> Sequence[Any]:
        """The environments in the order of the copies."""
        ...

    def wrap(self, around: Callable[[Any], Any]) -> None:
        """Replaces every environment by `around(environment)`."""
        ...


@runtime_checkable
class HasInnerWorld(Protocol):
    """A wrapper of one world that steps all copies in one call."""

    def wrap_inner(self, around: Callable[[Any], Any]) -> None:
        """Replaces the inner world by `around(world)`."""
        ...


@runtime_checkable
class FindsStateDim(Protocol):
    """A world that may have a global state, whose length it finds."""

    def find_state_dim(self) -> int:
        """Returns the length of the global state; may reset the first copy. Raises ConfigError if there is none."""
        ...


def global_state(world: World) -> Float32Array | None:
    """Returns the global states for the next actions `[copies, state]`; None if the world's spec has no state."""
    return world.global_state() if world.spec.state_dim and isinstance(world, HasGlobalState) else None


def check_actions(
    world: World, actions: NDArray[Any], shape: tuple[int, int], ages: Sequence[int] | NDArray[np.intp]
) -> None:
    """Checks joint actions before a step; ages: each copy's steps since its reset, -1 before the first.

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
        which = copy_text(int(copy), world.copies)
        raise WorldError(
            f"{world.name}: step {ages[copy] + 1} of {which}: {agent_text(agent)}'s action is NaN",
            int(copy),
        )
