"""What a scenario is: bodies, how an episode starts, what is rewarded, what is seen, and its options.

A scenario holds no state: everything that changes is in the Particles handed to its methods, where `agents` come first
among the entities and copies stand on the last axis.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.worlds.physics import Agent, Landmark, Particles
from common.worlds.world import BoolArray, Float64Array

Count = Annotated[int, msgspec.Meta(ge=1)]
CountOrZero = Annotated[int, msgspec.Meta(ge=0)]
Ratio = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Drawn = Mapping[str, NDArray[Any]]


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options every scenario has."""

    continuous_actions: bool = True
    """Box(0, 1) actions; False: a choice among moves and one among symbols."""
    max_cycles: Count = 25
    """Steps after which an episode is cut off."""
    benchmark_data: bool = False
    """Whether each step also gives the scenario's benchmark data, as `Step.metrics`."""
    dynamics: Literal["mpe2", "legacy"] = "mpe2"
    """Which environment to be equal to: mpe2, or the original one, in which the published tables were made."""


class ModernOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a scenario that no published table used the original of."""

    dynamics: Literal["mpe2"] = "mpe2"
    """Which environment to be equal to."""


class Streams:
    """Where a scenario draws from in the middle of an episode: a seeded copy has a generator of its own."""

    def __init__(self, shared: np.random.Generator) -> None:
        self.shared = shared
        self.own: dict[int, np.random.Generator] = {}

    def split(self, copies: Iterable[int]) -> Iterator[tuple[np.random.Generator, list[int]]]:
        """Yields each generator that some of these copies draw from, with those copies."""
        sharing = []
        for copy in copies:
            if copy in self.own:
                yield self.own[copy], [copy]
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
    """The module of mpe2 this is equal to."""
    utterance: int = 0
    """Symbols of the language agents speak, 0 where none speaks."""
    draws_midway: ClassVar[bool] = False
    """Whether `after_physics` draws, so that seeded copies keep their generators."""

    agents: Sequence[Agent]
    landmarks: Sequence[Landmark]

    def __init__(self, options: OptionsT) -> None:
        self.options = options
        self.legacy = options.dynamics == "legacy"

    @abstractmethod
    def draw(self, rng: np.random.Generator, copies: int) -> Drawn:
        """Draws the starts of `copies` episodes: `pos` [entities, 2, copies], and what else the episode fixes.

        For one copy it draws in mpe2's order, so that the same seed gives the same start.
        """

    def after_physics(self, world: Particles, streams: Streams) -> None:
        """Changes the world between a step's physics and its reward."""

    @abstractmethod
    def reward(self, world: Particles) -> Float64Array:
        """Returns what each agent earned, [agents, copies]."""

    @abstractmethod
    def observation(self, world: Particles, agent: int) -> list[Float64Array]:
        """Returns what an agent sees, as blocks [..., copies] to be laid one after the other."""

    def terminated(self, world: Particles) -> BoolArray | None:  # noqa: ARG002
        """Returns which copies have truly ended, [copies], or None where none ever does."""
        return None

    def metrics(self, world: Particles) -> Mapping[str, Float64Array]:  # noqa: ARG002
        """Returns the benchmark data, name -> [agents, copies]."""
        return {}


def ordered_sum(terms: Iterable[Float64Array]) -> Float64Array:
    """Adds arrays one after the other: numpy's own sum may pair them differently, which changes the last bit."""
    return reduce(np.add, terms)


def others(rows: Float64Array, agent: int, agents: int) -> Float64Array:
    """Returns the rows of all agents but one."""
    return np.concatenate([rows[:agent], rows[agent + 1 : agents]])
