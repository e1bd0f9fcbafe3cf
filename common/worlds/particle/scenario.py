"""The interface of a scenario: its bodies, starts, rewards, observations and options.

A scenario has no state: its methods receive the state as Particles, with the agents first among the entities and copies
on the last axis.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.worlds.particle.physics import Agent, Landmark, Particles
from common.worlds.world import BoolArray, Float64Array

Count = Annotated[int, msgspec.Meta(ge=1)]
CountOrZero = Annotated[int, msgspec.Meta(ge=0)]
Ratio = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Drawn = Mapping[str, NDArray[Any]]


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of every scenario."""

    continuous_actions: bool = True
    """Box(0, 1) actions; False: one choice among moves and one among symbols."""
    max_cycles: Count = 25
    """Number of steps after which an episode is truncated."""
    benchmark_data: bool = False
    """Whether each step contains the scenario's benchmark data, as `Step.metrics`."""
    dynamics: Literal["mpe2", "legacy"] = "mpe2"
    """The environment to equal: mpe2, or (legacy) the original one, in which the published tables were made."""


class ModernOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a scenario without a published table from the original environment."""

    dynamics: Literal["mpe2"] = "mpe2"
    """The environment to equal."""


class Generators:
    """The generators for draws in the middle of an episode: one for each seeded copy, one shared by the others."""

    def __init__(self, shared: np.random.Generator) -> None:
        self.shared = shared
        self.seeded: dict[int, np.random.Generator] = {}

    def split(self, copies: Iterable[int]) -> Iterator[tuple[np.random.Generator, list[int]]]:
        """Yields each generator that these copies use, with those of the copies that use it."""
        sharing = []
        for copy in copies:
            if copy in self.seeded:
                yield self.seeded[copy], [copy]
            else:
                sharing.append(copy)
        if sharing:
            yield self.shared, sharing


OptionsT = TypeVar("OptionsT", bound=Options)


class Scenario(ABC, Generic[OptionsT]):
    """One task of the Multi-Agent Particle Environment."""

    options_type: ClassVar[type[Options]]
    reward_meaning: ClassVar[str]
    """One line for the table of scenarios."""
    mpe2_module: ClassVar[str]
    """The module of mpe2 that the scenario equals."""
    utterance: int = 0
    """Number of symbols in a message; 0 if no agent speaks."""
    draws_midway: ClassVar[bool] = False
    """Whether `after_physics` draws random numbers, so that seeded copies need their own generators."""

    agents: Sequence[Agent]
    landmarks: Sequence[Landmark]

    def __init__(self, options: OptionsT) -> None:
        self.options = options
        self.legacy = options.dynamics == "legacy"

    @abstractmethod
    def draw(self, rng: np.random.Generator, copies: int) -> Drawn:
        """Draws the starts of `copies` episodes: `pos` [entities, 2, copies], and other values of an episode.

        For one copy it draws in mpe2's order, so that equal seeds give equal starts.
        """

    def after_physics(self, world: Particles, generators: Generators) -> None:
        """Changes the world between a step's physics and its reward."""

    @abstractmethod
    def reward(self, world: Particles) -> Float64Array:
        """Returns the agents' rewards `[agents, copies]`."""

    @abstractmethod
    def observation(self, world: Particles, agent: int) -> list[Float64Array]:
        """Returns an agent's observation, as blocks `[..., copies]` to be concatenated."""

    def terminated(self, world: Particles) -> BoolArray | None:  # noqa: ARG002
        """Returns which copies have truly terminated, `[copies]`, or None if the scenario never terminates."""
        return None

    def metrics(self, world: Particles) -> Mapping[str, Float64Array]:  # noqa: ARG002
        """Returns the benchmark data, name -> `[agents, copies]`."""
        return {}


def ordered_sum(terms: Iterable[Float64Array]) -> Float64Array:
    """Adds arrays in order; numpy's own sum may pair them differently, which changes the last bit."""
    return reduce(np.add, terms)


def others(rows: Float64Array, agent: int, agents: int) -> Float64Array:
    """Returns the rows of all agents but one."""
    return np.concatenate([rows[:agent], rows[agent + 1 : agents]])
