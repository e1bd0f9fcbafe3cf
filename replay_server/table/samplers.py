"""Samplers: which slots of the ring make the next batch."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from common.run.run import UNIFORM, ReplaySpec
from common.state import State, generator_state, restore_generator
from common.wire.sample_info import SAMPLE_INFO, SampleInfo
from replay_server.table.imported_sampler import ImportedAges
from replay_server.table.ring import Slots
from replay_server.table.sum_tree import SumTree

TD_ERROR_EPSILON = 1e-6
"""Added to every TD error, so that records with zero error are still drawn (epsilon in Schaul et al. 2016, 3.3)."""
MAX_TD_ERROR = 1e12
"""Larger TD errors are clipped to this value, so that the sums cannot overflow."""


class Sampler(Protocol):
    """Chooses the ring's slots for the next batch; `insert` reports every new record to it."""

    def insert(self, first_slot: int, count: int) -> None:
        """Records that `count` slots from `first_slot` on, wrapping at the capacity, contain new records."""

    def draw(self, count: int) -> Slots:
        """Returns `count` filled slots, with replacement; there must be at least one filled slot."""

    def sample_info(self, slots: Slots) -> SampleInfo | None:
        """Returns slot, generation and probability of slots `[n]` just drawn; None if the sampler is uniform."""

    def update_priorities(self, samples: SampleInfo) -> int:
        """Sets the priorities of samples `[n]` from their absolute TD errors, which are in the column `value`.

        Returns how many of these samples have been overwritten. The TD errors must be finite.
        """

    def state(self) -> State:
        """Returns the state that the next draws depend on, without the records."""

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continues from the state of a sampler of this kind; KeyError or ValueError for one of another kind."""


class SamplerWithoutPriorities:
    """A sampler of records that count alike in the loss, whose TD errors it ignores. A subclass adds `draw`."""

    def __init__(self, capacity: int, seed: int) -> None:
        """Starts empty."""
        self._capacity = capacity
        self._size = self._next_slot = 0
        self._random = np.random.default_rng(seed)

    def insert(self, first_slot: int, count: int) -> None:
        """Counts the new records: slots fill from 0 upwards, so the first `size` are the filled ones."""
        self._size = min(self._size + count, self._capacity)
        self._next_slot = (first_slot + count) % self._capacity

    def sample_info(self, slots: Slots) -> None:
        """Returns None: the learner needs neither probabilities nor slots."""

    def update_priorities(self, samples: SampleInfo) -> int:
        """Ignores the TD errors; returns the number of samples, as if all had been overwritten."""
        return len(samples)

    def state(self) -> State:
        """Returns the state of the random generator."""
        return {"rng": generator_state(self._random)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continues from the state of such a sampler."""
        restore_generator(self._random, state["rng"])


class UniformSampler(SamplerWithoutPriorities):
    """Draws every stored record with the same probability."""

    def draw(self, count: int) -> Slots:
        """Returns `count` slots, independent and uniform."""
        # Faster than integers(), and as uniform: no bin differs from another by more than 1 in 2^22 at 2^31 slots.
        return (self._random.random(count) * self._size).astype(np.int64)


class ImportedSampler(SamplerWithoutPriorities):
    """Draws the records whose ages a sampler of the user's class chooses."""

    def __init__(self, path: str, capacity: int, seed: int) -> None:
        """Starts empty. path: the class, a text such as "my_module:MyClass"; ConfigError if it cannot be used."""
        super().__init__(capacity, seed)
        self._ages = ImportedAges(path, capacity)

    def draw(self, count: int) -> Slots:
        """Returns the slots of `count` records; LastingError if the user's sampler fails or returns no ages."""
        return (self._next_slot - 1 - self._ages.draw(self._random, self._size, count)) % self._capacity


class PrioritisedSampler:
    """Draws records in proportion to a power of their last TD error (Schaul et al. 2016, proportional variant).

    A new record gets the largest priority so far, so that each is likely to be drawn soon. Draws are stratified: one in
    each of `count` equal parts of the sum.
    """

    def __init__(self, capacity: int, exponent: float, seed: int) -> None:
        """Starts empty; `exponent` is the paper's alpha."""
        self._capacity, self._exponent = capacity, exponent
        self._size = 0
        self._tree = SumTree(capacity)
        self._max_priority = 1.0
        self._times_stored = np.zeros(capacity, np.uint32)
        # Random, so that samples drawn by an earlier process or from a ring of another size do not match a generation.
        self._generation_offset = np.uint32(secrets.randbits(32))
        self._random = np.random.default_rng(seed)

    def insert(self, first_slot: int, count: int) -> None:
        """Gives the new records the largest priority."""
        self._size = min(self._size + count, self._capacity)
        before_end = min(count, self._capacity - first_slot)
        for first, part in ((first_slot, before_end), (0, count - before_end)):
            self._tree.fill(first, part, self._max_priority)
            self._times_stored[first : first + part] += np.uint32(1)

    def draw(self, count: int) -> Slots:
        """Returns `count` slots, in their order."""
        total = self._tree.total
        masses = (np.arange(count) + self._random.random(count)) * (total / count)
        return self._tree.find(np.minimum(masses, np.nextafter(total, 0.0)))

    def sample_info(self, slots: Slots) -> SampleInfo:
        """Returns slot, generation and probability of slots `[n]`; a probability p is given as N p."""
        info = np.empty(len(slots), SAMPLE_INFO)
        info["slot"], info["generation"] = slots, self._generations(slots)
        info["value"] = self._tree.values(slots) * (self._size / self._tree.total)
        return info

    def update_priorities(self, samples: SampleInfo) -> int:
        """Sets the priorities of samples `[n]` from their TD errors; returns how many have been overwritten."""
        current = samples[samples["slot"] < self._capacity]
        current = current[self._generations(current["slot"]) == current["generation"]]
        if len(current):
            td_errors = np.minimum(current["value"].astype(np.float64), MAX_TD_ERROR) + TD_ERROR_EPSILON
            priorities = td_errors**self._exponent
            self._tree.set(current["slot"].astype(np.int64), priorities)
            self._max_priority = max(self._max_priority, float(priorities.max()))
        return len(samples) - len(current)

    def state(self) -> State:
        """Returns all priorities and the state of the random generator."""
        values = self._tree.values(np.arange(self._capacity))
        return {"rng": generator_state(self._random), "priorities": values, "largest": np.array(self._max_priority)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continues from the state of such a sampler; ValueError if the sampler had another capacity."""
        values = state["priorities"]
        if len(values) != self._capacity:
            raise ValueError(f"the state has priorities of {len(values)} slots, the ring has {self._capacity}")
        self._tree.set(np.arange(self._capacity), values)
        self._max_priority = float(state["largest"])
        restore_generator(self._random, state["rng"])

    def _generations(self, slots: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
        generations: npt.NDArray[np.uint32] = self._times_stored[slots] + self._generation_offset
        return generations


def make_sampler(spec: ReplaySpec, seed: int) -> Sampler:
    """Returns the sampler that a run's settings ask for; ConfigError if a user's own sampler cannot be used."""
    if spec.sampler != UNIFORM:
        return ImportedSampler(spec.sampler, spec.capacity, seed)
    if spec.priority_exponent:
        return PrioritisedSampler(spec.capacity, spec.priority_exponent, seed)
    return UniformSampler(spec.capacity, seed)
