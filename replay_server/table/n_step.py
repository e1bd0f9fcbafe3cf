"""N-step samples: records that span several environment steps, assembled when they are drawn.

A span is k <= n consecutive steps j = 0 ... k - 1 of one episode. With the run's discount g, and with reward r_j and
discount d_j of the record of step j (d_j is 0 if the agent terminated in step j, else 1), the sample of each agent is:

    reward   = sum over j of (g^j d_0 ... d_(j-1)) r_j          next_obs, next_state = those of step k - 1
    discount = g^(k-1) d_0 ... d_(k-1)                          the rest             = that of step 0

so that the one-step target `reward + g * discount * q(next_obs)` equals the k-step target.

`Episodes` finds the slot of a record's next step:

    ring     ... a0 a1 | b0 b1 b2 | a0 a1 a0 a1 | ...     letters: chunks of actors a and b; numbers: world copies
                  |               ^
                  +---- ahead ----+     distance in slots to the next step of a1; 0 = that step is not in the ring

Within a chunk the next step of a copy is `copies` records further. At a chunk's end it is in the next chunk of the same
actor and incarnation, whichever chunks came between. A record has no next step if

- its chunk says that the episode ended;
- an agent is absent in the next step but has not terminated (time ran out for it alone): the target then needs the
  value of that agent's last observation, which only this record contains;
- the next chunk has not arrived, or was lost.

A next step is never an overwritten record: it is newer than the step before it, and is overwritten later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from common.state import State, copy_into
from common.transitions import field_columns
from common.wire.messages import Chunk
from replay_server.table.ring import Records, Ring, Slots

Bools = npt.NDArray[np.bool_]
Presence = npt.NDArray[np.float32]


def has_valid_steps(chunk: Chunk) -> bool:
    """Says whether a chunk's copies and episode ends agree with its number of records."""
    if not chunk.copies:
        return not chunk.ends
    return chunk.count % chunk.copies == 0 and len(chunk.ends) == (chunk.count + 7) // 8


class NStep:
    """Extends the records drawn from one ring to spans of up to n steps."""

    def __init__(self, ring: Ring, episodes: Episodes, n_step: int, discount: float) -> None:
        self.episodes = episodes
        self._ring, self._n_step, self._discount = ring, n_step, discount
        columns = field_columns(ring.dtype)
        self._agents = columns["discount"].start - columns["reward"].start
        self._reward_and_discount = slice(columns["reward"].start, columns["discount"].stop)
        self._next_fields = [name for name in ("next_obs", "next_state") if name in columns]

    def extend(self, batch: Records, slots: Slots) -> None:
        """Makes the records `[B]`, gathered from `slots`, span up to n steps each, in place."""
        rewards, discounts = batch["reward"].astype(np.float64), batch["discount"].astype(np.float64)
        # Non-finite sums do no harm here: the learner checks every batch and drops it.
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(self._n_step - 1):
                has_next, slots = self.episodes.next_of(slots)
                if not has_next.any():
                    break
                step = self._ring.columns(slots, self._reward_and_discount)
                weights = discounts * (self._discount * has_next)[:, None]
                rewards += weights * step[:, : self._agents]
                weights *= step[:, self._agents :]
                np.copyto(discounts, weights, where=has_next[:, None])
            batch["reward"], batch["discount"] = rewards, discounts
        last = self._ring.gather(slots)
        for name in self._next_fields:
            batch[name] = last[name]


class _Steps(NamedTuple):
    """The steps of an actor's chunk, or only its last step, which the actor's next chunk may continue."""

    incarnation: int
    seq: int
    copies: int
    offset: int
    """Position of the first record among all records ever inserted here."""
    continues: Bools
    """`[n]`: whether the episode continues after the record."""
    must_act: Bools
    """`[n, agents]`: agents that acted and did not terminate. The step has no next step if one is absent from it."""

    @classmethod
    def of(cls, chunk: Chunk, records: Records, offset: int) -> _Steps:
        """Returns the steps of a chunk whose first record has position `offset`."""
        must_act = (records["present"] > 0.0) & (records["discount"] > 0.0)
        ended = np.unpackbits(np.frombuffer(chunk.ends, np.uint8), count=len(records)).view(np.bool_)
        return cls(chunk.incarnation, chunk.seq, chunk.copies, offset, ~ended, must_act)

    def last_step(self) -> _Steps:
        """Returns the last step of all copies, in separate memory."""
        start = len(self.continues) - self.copies
        last = self.continues[start:].copy(), self.must_act[start:].copy()
        return _Steps(self.incarnation, self.seq, self.copies, self.offset + start, *last)

    def precedes(self, chunk: Chunk) -> bool:
        """Says whether `chunk` is the one right after this one."""
        return (self.incarnation, self.seq + 1, self.copies) == (chunk.incarnation, chunk.seq, chunk.copies)

    def continues_into(self, present: Presence) -> Bools:
        """Returns which of the first records `[m]` continue in the next step, in which `present` [m, agents] act."""
        count = len(present)
        followed: Bools = self.continues[:count] & ~(self.must_act[:count] & (present == 0.0)).any(1)
        return followed


class Episodes:
    """Maps each slot of a ring to the slot of the next step."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ahead = np.zeros(capacity, np.uint32)
        self._inserted = 0
        self._tails: dict[str, _Steps] = {}
        """Last step of each actor's newest chunk; the actor with the newest chunk comes last."""

    def insert(self, first_slot: int, records: Records, chunk: Chunk | None) -> npt.NDArray[np.uint32]:
        """Records which of the newly inserted records `[n]` continue in which slot.

        first_slot: the slot of the first record that the ring still contains; the ring may be smaller than a chunk.
        chunk: the message that the records came with; None where it is unknown. Returns the distance in slots from each
        record back to the step before it `[n]`; 0 = that step is not in the ring.
        """
        count, offset = len(records), self._inserted
        self._inserted += count
        ahead, behind = np.zeros(count, np.uint32), np.zeros(count, np.uint32)
        if chunk is not None:
            tail = self._tails.pop(chunk.actor, None)
            if chunk.copies:
                steps = _Steps.of(chunk, records, offset)
                ahead[: -chunk.copies] = chunk.copies * steps.continues_into(records["present"][chunk.copies :])
                behind[chunk.copies :] = ahead[: -chunk.copies]
                if tail is not None and tail.precedes(chunk):
                    behind[: chunk.copies] = self._join(tail, first_slot, offset, records["present"])
                self._tails[chunk.actor] = steps.last_step()
        newest = ahead[-self._capacity :]
        self._ahead[(first_slot + np.arange(len(newest))) % self._capacity] = newest
        self._drop_overwritten()
        return behind

    def next_of(self, slots: Slots) -> tuple[Bools, Slots]:
        """Returns which slots `[n]` have a next step, and the slot of each next step `[n]`.

        A slot without a next step is returned itself.
        """
        ahead = self._ahead.take(slots)
        return ahead > 0, (slots + ahead) % self._capacity

    def resized(self, order: Slots, capacity: int) -> Self:
        """Returns the map of a ring of another capacity that was filled from slot 0 on.

        order: the slots of this ring that were copied, oldest first.
        """
        episodes = type(self)(capacity)
        episodes._inserted, episodes._tails = self._inserted, dict(self._tails)
        newest = order[-capacity:]
        first = (len(order) - len(newest)) % capacity
        episodes._ahead[(first + np.arange(len(newest))) % capacity] = self._ahead[newest]
        return episodes

    def _join(self, tail: _Steps, slot: int, offset: int, present: Presence) -> npt.NDArray[np.uint32]:
        """Points from a chunk's last step to the next chunk, whose first record is in `slot` at position `offset`.

        Returns the distance back from each record of the next chunk's first step `[copies]`; 0 = none.
        """
        back = offset - tail.offset
        continues = tail.continues_into(present[: tail.copies])
        continues &= tail.offset + np.arange(tail.copies) >= self._inserted - self._capacity
        self._ahead[(slot - back + np.flatnonzero(continues)) % self._capacity] = back
        return (back * continues).astype(np.uint32)

    def _drop_overwritten(self) -> None:
        """Drops tails whose records are all overwritten, so that there are never more tails than records."""
        while self._tails:
            actor, tail = next(iter(self._tails.items()))
            if tail.offset + tail.copies > self._inserted - self._capacity:
                return
            del self._tails[actor]

    def state(self) -> State:
        """Returns everything that the next samples depend on.

        The stored names `goes_on` and `stays` are `_Steps.continues` and `_Steps.must_act` of the tails.
        """
        tails = self._tails.values()
        names = [[actor, *tail[:4]] for actor, tail in self._tails.items()]
        return {
            "ahead": self._ahead.copy(),
            "tails": np.frombuffer(json.dumps([self._inserted, names]).encode(), np.uint8).copy(),
            "goes_on": np.concatenate([np.zeros(0, np.bool_), *(tail.continues for tail in tails)]),
            "stays": np.concatenate([np.zeros(0, np.bool_), *(tail.must_act.reshape(-1) for tail in tails)]),
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Takes over the state of a ring of the same capacity; KeyError or ValueError when it is not one."""
        copy_into(self._ahead, state["ahead"])
        self._inserted, names = json.loads(state["tails"].tobytes())
        continues, must_act = state["goes_on"], state["stays"]
        agents = len(must_act) // max(len(continues), 1)
        self._tails, start = {}, 0
        for actor, incarnation, seq, copies, offset in names:
            span = slice(start, start := start + copies)
            block = must_act[span.start * agents : span.stop * agents].reshape(copies, agents)
            self._tails[actor] = _Steps(incarnation, seq, copies, offset, continues[span].copy(), block.copy())
