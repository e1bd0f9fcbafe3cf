"""What a worker has sent and not yet been acknowledged: the window, pure. No sockets, no clocks.

A chunk gets the next seq when it is added and stays until an acknowledgement covers it. Credit is the highest seq the
replay allows. After a reconnection or a gap everything from the first missing seq on is sent again, in order.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from common.wire.codec import Buffer
from common.wire.messages import Chunk


class PendingChunk(NamedTuple):
    """One chunk with its payload of records."""

    chunk: Chunk
    payload: Buffer


class Outbox:
    """The window of one actor incarnation."""

    def __init__(self) -> None:
        self.incarnation = 0
        """Given by the replay; 0 = none yet."""
        self.acked = 0
        """Highest seq known to be stored."""
        self.credit = 0
        """Highest seq that may be sent."""
        self.resent = 0
        """Chunks sent more than once."""
        self._parcels: deque[PendingChunk] = deque()
        self._next_to_send = 1
        self._sent = 0

    @property
    def next_seq(self) -> int:
        """Seq of the next chunk to be added."""
        return self.acked + len(self._parcels) + 1

    @property
    def unacked(self) -> int:
        """Chunks kept."""
        return len(self._parcels)

    @property
    def under_way(self) -> int:
        """Chunks sent and not acknowledged."""
        return self._next_to_send - self.acked - 1

    @property
    def may_add(self) -> bool:
        """Whether the replay's credit covers one more chunk."""
        return self.incarnation > 0 and self.next_seq <= self.credit

    def add(self, parcel: PendingChunk) -> None:
        """Keeps a chunk, whose seq must be the next one, until it is acknowledged."""
        if parcel.chunk.seq != self.next_seq:
            raise ValueError(f"chunk {parcel.chunk.seq} added where {self.next_seq} was next")
        self._parcels.append(parcel)

    def next_to_send(self) -> PendingChunk | None:
        """Returns the first kept chunk that is not under way and within credit; None when there is none."""
        if self._next_to_send >= self.next_seq or self._next_to_send > self.credit:
            return None
        return self._parcels[self._next_to_send - self.acked - 1]

    def sent(self) -> None:
        """Notes that the chunk `next_to_send` gave is under way."""
        if self._next_to_send <= self._sent:
            self.resent += 1
        self._sent = max(self._sent, self._next_to_send)
        self._next_to_send += 1

    def on_welcome(self, incarnation: int, stored: int, credit: int) -> None:
        """Takes an admission: everything after `stored` is sent again; ValueError for another incarnation's."""
        if self.incarnation not in (0, incarnation):
            raise ValueError(f"admitted as incarnation {incarnation}, not {self.incarnation}")
        self.incarnation = incarnation
        self.on_ack(stored, credit)
        self.credit = credit
        self._next_to_send = self.acked + 1

    def on_ack(self, stored: int, credit: int) -> None:
        """Drops chunks up to `stored` and takes the new credit; late acknowledgements change nothing."""
        while self._parcels and self._parcels[0].chunk.seq <= stored:
            self._parcels.popleft()
            self.acked += 1
        self._next_to_send = max(self._next_to_send, self.acked + 1)
        self.credit = max(self.credit, credit)

    def on_gap(self, received: int) -> None:
        """Goes back: sends again what follows `received`."""
        self._next_to_send = max(self.acked, min(received, self.next_seq - 1)) + 1
