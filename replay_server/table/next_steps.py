"""Episodes: where in the ring a record's next step stands, so that a sample may span several steps.

    ring     ... a0 a1 | b0 b1 b2 | a0 a1 a0 a1 | ...     letters: actors' chunks; numbers: world copies
                  |               ^
                  +---- ahead ----+     a1's next step stands so many slots further; 0 = it is not there

Within a chunk the next step of a copy is `copies` records further; over a chunk's border it is in the next chunk of
the same actor and incarnation, whichever others came between. There is none where the chunk says that the episode
ended, where an agent left that had not terminated (its value goes on from its last observation, which the next record
no longer holds), where the next chunk has not come, or was lost. What has been overwritten is never pointed to: a next
step is newer than the step before it, and goes later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from common.state import State, copy_into
from replay_server.table.ring import Records

Bools = npt.NDArray[np.bool_]
Slots = npt.NDArray[np.int64]
Presence = npt.NDArray[np.float32]


class Origin(NamedTuple):
    """Whose records a chunk holds, and which of them ended their episode."""

    actor: str
    incarnation: int
    seq: int
    copies: int
    """0: it is not told how the records follow each other."""
    ends: bytes
    """One bit a record, a byte's highest first."""

    def fits(self, count: int) -> bool:
        """Says whether this can be told of a chunk of `count` records."""
        if not self.copies:
            return not self.ends
        return count % self.copies == 0 and len(self.ends) == (count + 7) // 8

    def over(self, count: int) -> Bools:
        """Returns whether each of the `count` records ended its episode."""
        return np.unpackbits(np.frombuffer(self.ends, np.uint8), count=count).view(np.bool_)


class _Steps(NamedTuple):
    """The steps of an actor's chunk. Of its newest one the last step is kept, for the chunk that will follow it."""

    incarnation: int
    seq: int
    copies: int
    place: int
    """Of the first record, counted over all that were ever stored here."""
    goes_on: Bools
    """[n]: whether the episode goes on."""
    stays: Bools
    """[n, agents]: who must act in the next step if that is to follow."""

    @classmethod
    def of(cls, origin: Origin, records: Records, place: int) -> _Steps:
        """Returns the steps of a chunk that begins at `place`."""
        stays = (records["present"] > 0.0) & (records["discount"] > 0.0)
        return cls(origin.incarnation, origin.seq, origin.copies, place, ~origin.over(len(records)), stays)

    def last_step(self) -> _Steps:
        """Returns the last step of all copies, in memory of its own."""
        start = len(self.goes_on) - self.copies
        last = self.goes_on[start:].copy(), self.stays[start:].copy()
        return _Steps(self.incarnation, self.seq, self.copies, self.place + start, *last)

    def is_before(self, origin: Origin) -> bool:
        """Says whether a chunk goes on where this one ends."""
        return (self.incarnation, self.seq + 1, self.copies) == (origin.incarnation, origin.seq, origin.copies)

    def goes_on_into(self, present: Presence) -> Bools:
        """Returns which of the first records `[m]` go on in those of the next step, where `present` [m, agents] act."""
        count = len(present)
        followed: Bools = self.goes_on[:count] & ~(self.stays[:count] & (present == 0.0)).any(1)
        return followed


class Episodes:
    """The way from each slot of a ring to the next step."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ahead = np.zeros(capacity, np.uint32)
        self._stored = 0
        self._tails: dict[str, _Steps] = {}
        """By actor, the one whose chunk came last at the end."""

    def stored(self, first_slot: int, records: Records, origin: Origin | None) -> None:
        """Learns that records `[n]` were stored, the newest that fit, the first of these in `first_slot`."""
        count, place = len(records), self._stored
        self._stored += count
        ahead = np.zeros(count, np.uint32)
        if origin is not None:
            tail = self._tails.pop(origin.actor, None)
            if origin.copies:
                own = _Steps.of(origin, records, place)
                ahead[: -origin.copies] = origin.copies * own.goes_on_into(records["present"][origin.copies :])
                if tail is not None and tail.is_before(origin):
                    self._join(tail, first_slot, place, records["present"])
                self._tails[origin.actor] = own.last_step()
        kept = ahead[-self._capacity :]
        self._ahead[(first_slot + np.arange(len(kept))) % self._capacity] = kept
        self._forget_overwritten()

    def next_of(self, slots: Slots) -> tuple[Bools, Slots]:
        """Returns which of the slots `[n]` have a next step, and where it stands `[n]`; where it has none, the same."""
        ahead = self._ahead.take(slots)
        return ahead > 0, (slots + ahead) % self._capacity

    def resized(self, order: Slots, capacity: int) -> Episodes:
        """Returns what holds for a ring of another capacity that was filled from slot 0 on.

        order: the slots of this one, oldest first, that were put into it.
        """
        episodes = Episodes(capacity)
        episodes._stored, episodes._tails = self._stored, dict(self._tails)
        kept = order[-capacity:]
        first = (len(order) - len(kept)) % capacity
        episodes._ahead[(first + np.arange(len(kept))) % capacity] = self._ahead[kept]
        return episodes

    def _join(self, tail: _Steps, slot: int, place: int, present: Presence) -> None:
        """Points from a chunk's last step to the chunk that follows it, which begins at `place` in `slot`."""
        back = place - tail.place
        goes_on = tail.goes_on_into(present[: tail.copies])
        goes_on &= tail.place + np.arange(tail.copies) >= self._stored - self._capacity
        self._ahead[(slot - back + np.flatnonzero(goes_on)) % self._capacity] = back

    def _forget_overwritten(self) -> None:
        """Drops tails of which nothing is left, so that there are never more of them than records."""
        while self._tails:
            actor, tail = next(iter(self._tails.items()))
            if tail.place + tail.copies > self._stored - self._capacity:
                return
            del self._tails[actor]

    def state(self) -> State:
        """Returns everything known here."""
        tails = self._tails.values()
        names = [[actor, *tail[:4]] for actor, tail in self._tails.items()]
        return {
            "ahead": self._ahead.copy(),
            "tails": np.frombuffer(json.dumps([self._stored, names]).encode(), np.uint8).copy(),
            "goes_on": np.concatenate([np.zeros(0, np.bool_), *(tail.goes_on for tail in tails)]),
            "stays": np.concatenate([np.zeros(0, np.bool_), *(tail.stays.reshape(-1) for tail in tails)]),
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Takes the state of a like ring over; KeyError or ValueError when it is none."""
        copy_into(self._ahead, state["ahead"])
        self._stored, names = json.loads(state["tails"].tobytes())
        goes_on, stays = state["goes_on"], state["stays"]
        agents = len(stays) // max(len(goes_on), 1)
        self._tails, start = {}, 0
        for actor, incarnation, seq, copies, place in names:
            own = slice(start, start := start + copies)
            stay = stays[own.start * agents : own.stop * agents].reshape(copies, agents)
            self._tails[actor] = _Steps(incarnation, seq, copies, place, goes_on[own].copy(), stay.copy())
