"""Samplers: which slots of the ring make the next batch."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from common.run.run import ReplaySpec
from common.state import State, generator_state, restore_generator
from common.wire.sample_info import SAMPLE_INFO, SampleInfo
from replay_server.table.ring import Slots
from replay_server.table.sum_tree import SumTree

LEAST_ERROR = 1e-6
"""Added to every TD error: what is learnt already is drawn again now and then (Schaul et al. 2016, 3.3)."""
LARGEST_ERROR = 1e12
"""What a larger TD error counts as: nothing that is sent makes the sums overflow."""


class Sampler(Protocol):
    """Chooses slots of a ring whose records it is told of as they are stored."""

    def stored(self, first_slot: int, count: int) -> None:
        """Learns that `count` slots from `first_slot` on, wrapping at the capacity, hold new records."""

    def draw(self, count: int) -> Slots:
        """Returns `count` filled slots, with replacement; there must be at least one."""

    def places(self, slots: Slots) -> SampleInfo | None:
        """Returns what the learner is to be told of slots `[n]` just drawn; None where all are drawn alike."""

    def prioritise(self, places: SampleInfo) -> int:
        """Takes TD errors `[n]`, finite and not negative; returns how many are of records that are gone."""

    def state(self) -> State:
        """Returns what its next draws depend on, beside the records it was told of."""

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Draws on as the sampler that the state was taken from; KeyError or ValueError when it is of another kind."""


class UniformSampler:
    """Draws every stored record with the same probability."""

    def __init__(self, capacity: int, seed: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._random = np.random.default_rng(seed)

    def stored(self, first_slot: int, count: int) -> None:  # noqa: ARG002  (a uniform draw needs no places)
        """Counts the new records: slots fill from 0 upwards, so the first `size` are the filled ones."""
        self._size = min(self._size + count, self._capacity)

    def draw(self, count: int) -> Slots:
        """Returns `count` slots, independent and uniform."""
        # Faster than integers(), and as uniform: no bin differs from another by more than 1 in 2^22 at 2^31 slots.
        return (self._random.random(count) * self._size).astype(np.int64)

    def places(self, slots: Slots) -> None:
        """Returns None."""

    def prioritise(self, places: SampleInfo) -> int:
        """Takes no TD errors."""
        return len(places)

    def state(self) -> State:
        """Returns where the generator stands."""
        return {"rng": generator_state(self._random)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Draws on as the sampler that the state was taken from."""
        restore_generator(self._random, state["rng"])


class PrioritisedSampler:
    """Draws records in proportion to a power of their last TD error (Schaul et al. 2016, proportional).

    New records get the largest priority there has been, so that each is likely to be drawn soon. Draws are stratified:
    one in each of `count` equal parts of the sum.
    """

    def __init__(self, capacity: int, exponent: float, seed: int) -> None:
        """Starts with no record; `exponent` is alpha."""
        self._capacity, self._exponent = capacity, exponent
        self._size = 0
        self._tree = SumTree(capacity)
        self._largest = 1.0
        self._times_stored = np.zeros(capacity, np.uint32)
        # Places of an earlier life of the server, or of another size of the ring, are none of this one's.
        self._life = np.uint32(secrets.randbits(32))
        self._random = np.random.default_rng(seed)

    def stored(self, first_slot: int, count: int) -> None:
        """Gives the new records the largest priority."""
        self._size = min(self._size + count, self._capacity)
        before_end = min(count, self._capacity - first_slot)
        for first, part in ((first_slot, before_end), (0, count - before_end)):
            self._tree.fill(first, part, self._largest)
            self._times_stored[first : first + part] += np.uint32(1)

    def draw(self, count: int) -> Slots:
        """Returns `count` slots, in their order."""
        total = self._tree.total
        masses = (np.arange(count) + self._random.random(count)) * (total / count)
        return self._tree.find(np.minimum(masses, np.nextafter(total, 0.0)))

    def places(self, slots: Slots) -> SampleInfo:
        """Returns what the learner is to be told of slots `[n]`: their probabilities as N p."""
        places = np.empty(len(slots), SAMPLE_INFO)
        places["slot"], places["generation"] = slots, self._generations(slots)
        places["value"] = self._tree.values(slots) * (self._size / self._tree.total)
        return places

    def prioritise(self, places: SampleInfo) -> int:
        """Sets the priorities of records `[n]`; returns how many are gone."""
        there = places[places["slot"] < self._capacity]
        there = there[self._generations(there["slot"]) == there["generation"]]
        if len(there):
            errors = np.minimum(there["value"].astype(np.float64), LARGEST_ERROR) + LEAST_ERROR
            values = errors**self._exponent
            self._tree.set(there["slot"].astype(np.int64), values)
            self._largest = max(self._largest, float(values.max()))
        return len(places) - len(there)

    def state(self) -> State:
        """Returns all priorities, and where the generator stands."""
        values = self._tree.values(np.arange(self._capacity))
        return {"rng": generator_state(self._random), "priorities": values, "largest": np.array(self._largest)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Draws on as the sampler that the state was taken from."""
        values = state["priorities"]
        if len(values) != self._capacity:
            raise ValueError(f"priorities of {len(values)} slots were kept, of {self._capacity} are needed")
        self._tree.set(np.arange(self._capacity), values)
        self._largest = float(state["largest"])
        restore_generator(self._random, state["rng"])

    def _generations(self, slots: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
        generations: npt.NDArray[np.uint32] = self._times_stored[slots] + self._life
        return generations


def make_sampler(spec: ReplaySpec, seed: int) -> Sampler:
    """Returns the sampler that a run's settings ask for."""
    if spec.priority_exponent:
        return PrioritisedSampler(spec.capacity, spec.priority_exponent, seed)
    return UniformSampler(spec.capacity, seed)
