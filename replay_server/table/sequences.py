"""Sequences of steps for recurrent policies, found in the ring when a batch is drawn.

An episode is cut into sequences of T steps, from its first step on; the last one may be shorter. A sample is one
sequence with the k steps before it, the burn-in (Kapturowski et al. 2019, R2D2):

    episode, T = 4, k = 3      0 1 2 3 | 4 5 6 7 | 8 9
    samples                    . . . 0 1 2 3      1 2 3 4 5 6 7      5 6 7 8 9 . .       . = padding, a record of zeros

Every sequence is drawn with the same probability, so every transition is learnt from equally often. A sample never
crosses the end of an episode, and ends where `Episodes` (n_step.py) knows no next step. If the ring has overwritten the
start of a sequence, its oldest remaining step takes the place of its first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from common.state import State, copy_into
from common.wire.messages import Chunk
from replay_server.table.n_step import Bools, Episodes
from replay_server.table.ring import Records, Ring, Slots
from replay_server.table.samplers import Sampler


class EpisodeSteps(Episodes):
    """Also maps each slot to the slot of the step before, and to the number of its step within the episode."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._behind = np.zeros(capacity, np.uint32)
        """Distance in slots to the step before; 0 = none was known when the record arrived."""
        self._number = np.zeros(capacity, np.uint32)
        """Steps before this one in its episode, as far as they were known when the record arrived."""

    def insert(self, first_slot: int, records: Records, chunk: Chunk | None) -> npt.NDArray[np.uint32]:
        """Records how the newly inserted records `[n]` continue episodes; returns the distances to the steps before.

        first_slot, chunk: as of `Episodes.insert`.
        """
        behind = super().insert(first_slot, records, chunk)
        count = len(records)
        number = np.zeros(count, np.uint32)
        copies = chunk.copies if chunk is not None and chunk.copies else count
        dropped = max(count - self._capacity, 0)
        for start in range(0, count, copies):
            block = slice(start, start + copies)
            if start:
                before = number[start - copies : start]
            else:
                slots = first_slot - dropped + np.arange(len(behind[block])) - behind[block]
                before = self._number[slots % self._capacity]
            number[block] = np.where(behind[block] > 0, before + 1, 0)
        slots = (first_slot + np.arange(count - dropped)) % self._capacity
        self._behind[slots], self._number[slots] = behind[dropped:], number[dropped:]
        return behind

    def previous_of(self, slots: Slots, ages: Slots, size: int) -> tuple[Bools, Slots]:
        """Returns which slots `[n]` have a step before in the ring, and its slot `[n]`; without one the slot itself.

        ages: number of records newer than each. size: number of records in the ring.
        """
        behind = self._behind.take(slots)
        has_previous = (behind > 0) & (ages + behind < size)
        return has_previous, (slots - behind * has_previous) % self._capacity

    def number_of(self, slots: Slots) -> npt.NDArray[np.uint32]:
        """Returns the number of each step within its episode `[n]`, from 0 on."""
        return self._number.take(slots)

    def resized(self, order: Slots, capacity: int) -> Self:
        """Returns the map of a ring of another capacity; the arguments are as of `Episodes.resized`."""
        episodes = super().resized(order, capacity)
        newest = order[-capacity:]
        slots = (len(order) - len(newest) + np.arange(len(newest))) % capacity
        episodes._behind[slots], episodes._number[slots] = self._behind[newest], self._number[newest]
        return episodes

    def state(self) -> State:
        """Returns everything that the next samples depend on."""
        return super().state() | {"behind": self._behind.copy(), "step_number": self._number.copy()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Takes over the state of a ring of the same capacity; KeyError or ValueError when it is not one."""
        super().restore(state)
        copy_into(self._behind, state["behind"])
        copy_into(self._number, state["step_number"])


class SequenceSampler:
    """Draws sequences from one ring.

    Example:
        sequences = SequenceSampler(ring, EpisodeSteps(ring.capacity), steps=16, burn_in=16)
        batch = sequences.sample(sampler, count=8)  # [8 * 32] records
    """

    def __init__(self, ring: Ring, episodes: EpisodeSteps, *, steps: int, burn_in: int) -> None:
        """steps: length T of a sequence. burn_in: number k of steps before it."""
        self.episodes = episodes
        self._ring, self._steps, self._burn_in = ring, steps, burn_in

    def rows(self, count: int) -> int:
        """Returns the number of records that carry a batch of `count` transitions."""
        return self._sequences(count) * (self._burn_in + self._steps)

    def sample(self, sampler: Sampler, count: int, into: npt.NDArray[np.uint8]) -> None:
        """Draws sequences of `count` transitions together; writes their records `[rows(count)]`, padded with zeros.

        sampler: draws transitions uniformly. into: the bytes of the records.
        """
        slots, is_step = self._windows(self._heads(sampler, self._sequences(count)))
        batch = self._ring.gather(slots.ravel(), into)
        batch[~is_step.ravel()] = np.zeros((), batch.dtype)

    def _sequences(self, count: int) -> int:
        return max(count // self._steps, 1)

    def _heads(self, sampler: Sampler, count: int) -> Slots:
        """Returns the slots of the first steps of `count` sequences, drawn with replacement."""
        # Of uniform draws those that are a first step are uniform among the first steps. At least one record in about
        # 2 T is one, and the oldest record always is.
        found: list[Slots] = []
        missing = count
        while missing > 0:
            slots = sampler.draw(missing * self._steps)
            is_in_ring, _ = self.episodes.previous_of(slots, self._ages(slots), self._ring.size)
            found.append(slots[(self.episodes.number_of(slots) % self._steps == 0) | ~is_in_ring][:missing])
            missing -= len(found[-1])
        return np.concatenate(found)

    def _windows(self, heads: Slots) -> tuple[Slots, Bools]:
        """Returns the slots of sequences with their burn-in `[S, k + T]`, and which of them are steps, not padding."""
        shape = len(heads), self._burn_in + self._steps
        slots, is_step = np.empty(shape, np.int64), np.zeros(shape, np.bool_)
        slots[:, self._burn_in], is_step[:, self._burn_in] = heads, True
        for i in range(self._burn_in, 0, -1):
            has_previous, slots[:, i - 1] = self.episodes.previous_of(
                slots[:, i], self._ages(slots[:, i]), self._ring.size
            )
            is_step[:, i - 1] = is_step[:, i] & has_previous
        number = self.episodes.number_of(heads)
        for i in range(self._burn_in, shape[1] - 1):
            has_next, slots[:, i + 1] = self.episodes.next_of(slots[:, i])
            # The next sequence starts at the next multiple of T, which is near if a start was overwritten.
            number += np.uint32(1)
            is_step[:, i + 1] = is_step[:, i] & has_next & (number % self._steps > 0)
        return slots, is_step

    def _ages(self, slots: Slots) -> Slots:
        """Returns the number of records newer than those in `slots`."""
        return (self._ring.next_slot - 1 - slots) % self._ring.capacity
