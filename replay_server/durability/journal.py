"""The journal: what the chunk log is to make durable, and which chunks it has not confirmed yet. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from common.wire.codec import MAX_PEER_FRAME_BYTES, Buffer
from common.wire.messages import Chunk
from replay_server.instructions import StoreChunk, StoreSamples, Write
from replay_server.sessions.session import ActorSession

MAX_UNCOMMITTED_BYTES = MAX_PEER_FRAME_BYTES
"""Bytes of chunks that may be granted and on their way, or here and awaiting the log, of all actors together: what a
server without its Redis grows by before its actors wait. With less, the largest chunk would never be granted."""


class Uncommitted(NamedTuple):
    """A chunk in the ring that the log does not hold yet."""

    number: int
    session: ActorSession
    seq: int
    payload_bytes: int


class Journal:
    """Numbers the chunks for the log and acknowledges them once it holds them; without a log, at once."""

    def __init__(self, *, kept: bool) -> None:
        """`kept` says whether there is a log."""
        self.next_number = 0
        """Number of the next chunk in the log."""
        self.error = ""
        """What keeps the log from committing; empty while it commits."""
        self.witness: Callable[[Chunk, Buffer], None] | None = None
        """Sees every chunk before anything else is done with it."""
        self._kept = kept
        self._uncommitted: deque[Uncommitted] = deque()
        self._uncommitted_bytes = 0
        self._writes: list[Write] = []
        self._samples = 0

    def __len__(self) -> int:
        """Chunks that are not durable yet."""
        return len(self._uncommitted)

    def add(self, session: ActorSession, chunk: Chunk, payload: Buffer, inserts: int) -> None:
        """Takes a chunk that has just been inserted."""
        if self.witness:
            self.witness(chunk, payload)
        if not self._kept:
            session.durable = chunk.seq
            return
        self._uncommitted.append(Uncommitted(self.next_number, session, chunk.seq, len(payload)))
        self._uncommitted_bytes += len(payload)
        self._writes.append(StoreChunk(self.next_number, chunk, payload, inserts))
        self.next_number += 1

    def resume(self, next_number: int, samples: int) -> None:
        """Goes on where the log ends."""
        self.next_number, self._samples = next_number, samples

    def write(self, write: Write) -> None:
        """Takes anything else the log is to keep."""
        if self._kept:
            self._writes.append(write)

    def count_samples(self, samples: int) -> None:
        """Has the count of samples kept when it has changed."""
        if samples != self._samples:
            self._samples = samples
            self.write(StoreSamples(samples))

    def take_writes(self) -> list[Write]:
        """Returns the writes since the last call, in order."""
        writes, self._writes = self._writes, []
        return writes

    def committed(self, number: int) -> None:
        """Marks every chunk up to `number` durable, and its actor as owed an acknowledgement."""
        while self._uncommitted and self._uncommitted[0].number <= number:
            chunk = self._uncommitted.popleft()
            self._uncommitted_bytes -= chunk.payload_bytes
            chunk.session.durable = max(chunk.session.durable, chunk.seq)
            chunk.session.owed_ack = True

    def room(self, record_bytes: int) -> int:
        """Returns how many transitions may be on their way here or to the log beyond those that await it."""
        return 0 if self.error else max(MAX_UNCOMMITTED_BYTES - self._uncommitted_bytes, 0) // record_bytes
