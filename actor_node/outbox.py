"""A worker's unacknowledged chunks. Pure: no sockets, no clocks.

A chunk takes the next seq when it is added and stays until an acknowledgement covers it. Credit is the highest seq that
the replay server allows. After a reconnection or a gap, all chunks from the first missing seq on are sent again, in
order.

    add -> pending --next_to_send, mark_sent--> in flight --on_ack--> dropped
              ^                                     |
              +--------- on_welcome, on_gap --------+
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from common.wire.codec import Buffer, checksum
from common.wire.messages import Chunk


class PendingChunk(NamedTuple):
    """A chunk and its payload of records, from its collection to its acknowledgement."""

    chunk: Chunk
    payload: Buffer


def make_chunk(
    payload: Buffer,
    *,
    actor: str,
    incarnation: int,
    seq: int,
    count: int,
    policy_version: int,
    data_hash: str,
    run: str,
    copies: int = 0,
    ends: bytes = b"",
) -> PendingChunk:
    """Returns a chunk of `count` records, with the checksum of its payload; the parameters are fields of `Chunk`."""
    chunk = Chunk(
        actor=actor,
        incarnation=incarnation,
        seq=seq,
        count=count,
        policy_version=policy_version,
        crc32c=checksum(payload),
        data_hash=data_hash,
        copies=copies,
        ends=ends,
        run=run,
    )
    return PendingChunk(chunk, payload)


class Outbox:
    """The unacknowledged chunks of one actor incarnation.

    Example:
        outbox.add(make_chunk(payload, seq=outbox.next_seq, ...))       # if outbox.has_credit
        while pending := outbox.next_to_send():
            send(*pending)
            outbox.mark_sent()
    """

    def __init__(self) -> None:
        self.incarnation = 0
        """Assigned by the replay server; 0 before its first Welcome."""
        self.acked = 0
        """Seq of the last acknowledged chunk: the server's `durable` seq, as far as the worker knows."""
        self.credit = 0
        """Highest seq that may be sent."""
        self.resent = 0
        """Chunks sent more than once."""
        self._pending: deque[PendingChunk] = deque()
        self._next_to_send = 1
        """Seq of the next chunk to send; the unacknowledged chunks before it are in flight."""
        self._sent = 0
        """Highest seq ever sent; chunks up to it are sent again after a reconnection or a gap."""

    @property
    def next_seq(self) -> int:
        """Seq of the next chunk to add."""
        return self.acked + len(self._pending) + 1

    @property
    def unacked(self) -> int:
        """Chunks not acknowledged, sent or not."""
        return len(self._pending)

    @property
    def in_flight(self) -> int:
        """Chunks sent and not acknowledged."""
        return self._next_to_send - self.acked - 1

    @property
    def has_credit(self) -> bool:
        """Whether the credit covers one more chunk."""
        return self.incarnation > 0 and self.next_seq <= self.credit

    def add(self, pending: PendingChunk) -> None:
        """Adds a chunk; its seq must be `next_seq`."""
        if pending.chunk.seq != self.next_seq:
            raise ValueError(f"chunk {pending.chunk.seq} added, but {self.next_seq} is next")
        self._pending.append(pending)

    def next_to_send(self) -> PendingChunk | None:
        """Returns the first chunk that is not in flight and within the credit, if any."""
        if self._next_to_send >= self.next_seq or self._next_to_send > self.credit:
            return None
        return self._pending[self._next_to_send - self.acked - 1]

    def mark_sent(self) -> None:
        """Records that the chunk returned by `next_to_send` is in flight."""
        if self._next_to_send <= self._sent:
            self.resent += 1
        self._sent = max(self._sent, self._next_to_send)
        self._next_to_send += 1

    def on_welcome(self, incarnation: int, durable_seq: int, credit: int) -> None:
        """Accepts an admission: every chunk after `durable_seq` is sent again. ValueError for another incarnation."""
        if self.incarnation not in (0, incarnation):
            raise ValueError(f"admitted as incarnation {incarnation}, not {self.incarnation}")
        self.incarnation = incarnation
        self.on_ack(durable_seq, credit)
        # on_ack only raises the credit; a new admission may lower it.
        self.credit = credit
        self._next_to_send = self.acked + 1

    def on_ack(self, durable_seq: int, credit: int) -> None:
        """Drops the chunks up to `durable_seq` and raises the credit; late acknowledgements change nothing."""
        while self._pending and self._pending[0].chunk.seq <= durable_seq:
            self._pending.popleft()
            self.acked += 1
        self._next_to_send = max(self._next_to_send, self.acked + 1)
        self.credit = max(self.credit, credit)

    def on_gap(self, received: int) -> None:
        """Sends every chunk after `received` again."""
        self._next_to_send = max(self.acked, min(received, self.next_seq - 1)) + 1
