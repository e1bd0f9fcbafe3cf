"""Samplers: which slots of the ring make the next batch."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Slots = npt.NDArray[np.int64]


class Sampler(Protocol):
    """Chooses slots of a ring whose records it is told of as they are stored."""

    def stored(self, first_slot: int, count: int) -> None:
        """Learns that `count` slots from `first_slot` on, wrapping at the capacity, hold new records."""

    def draw(self, count: int) -> Slots:
        """Returns `count` filled slots, with replacement; there must be at least one."""


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
