"""The journal: the writes for the chunk log, and the chunks that the log has not confirmed yet. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from common.wire.codec import MAX_PEER_FRAME_BYTES, Buffer
from common.wire.messages import Chunk
from replay_server.durability.chunk_log import LoggedChunk, StoreSamples, Write
from replay_server.sessions.session import ActorSession

MAX_UNCOMMITTED_BYTES = MAX_PEER_FRAME_BYTES
"""Maximum size of the chunks of all actors that are granted, in flight or not yet durable [bytes].

A server whose Redis is down grows by this size before its actors wait. A smaller value would never grant the largest
chunk.
"""


class Journal:
    """Numbers the chunks for the log and acknowledges them once they are durable; without a log, at once."""

    def __init__(self, *, has_log: bool) -> None:
        self.next_number = 0
        """Number of the next chunk in the log."""
        self.error = ""
        """Why the log does not commit; empty while it commits."""
        self.on_chunk: Callable[[Chunk, Buffer], None] | None = None
        """Called with every chunk before anything else is done with it."""
        self._has_log = has_log
        self._uncommitted: deque[tuple[LoggedChunk, ActorSession]] = deque()
        self._uncommitted_bytes = 0
        self._writes: list[Write] = []
        self._samples = 0

    def __len__(self) -> int:
        """Number of chunks that are not durable yet."""
        return len(self._uncommitted)

    def add(self, session: ActorSession, chunk: Chunk, payload: Buffer, inserts: int) -> None:
        """Takes a chunk that has just been inserted. inserts: transitions ever inserted, this chunk included."""
        if self.on_chunk:
            self.on_chunk(chunk, payload)
        if not self._has_log:
            session.durable = chunk.seq
            return
        logged = LoggedChunk(self.next_number, chunk, payload, inserts)
        self._uncommitted.append((logged, session))
        self._uncommitted_bytes += len(payload)
        self._writes.append(logged)
        self.next_number += 1

    def resume(self, next_number: int, samples: int) -> None:
        """Continues after the last chunk in the log."""
        self.next_number, self._samples = next_number, samples

    def write(self, write: Write) -> None:
        """Adds a write that is not a chunk."""
        if self._has_log:
            self._writes.append(write)

    def write_samples(self, samples: int) -> None:
        """Writes the number of transitions ever sampled if it has changed."""
        if samples != self._samples:
            self._samples = samples
            self.write(StoreSamples(samples))

    def take_writes(self) -> list[Write]:
        """Returns the writes since the last call, in order."""
        writes, self._writes = self._writes, []
        return writes

    def mark_durable(self, number: int) -> None:
        """Marks every chunk up to `number` as durable; each of their actors is owed an acknowledgement."""
        while self._uncommitted and self._uncommitted[0][0].number <= number:
            logged, session = self._uncommitted.popleft()
            self._uncommitted_bytes -= len(logged.payload)
            session.durable = max(session.durable, logged.chunk.seq)
            session.owed_ack = True

    def room(self, record_bytes: int) -> int:
        """Returns how many more transitions may be in flight or uncommitted."""
        return 0 if self.error else max(MAX_UNCOMMITTED_BYTES - self._uncommitted_bytes, 0) // record_bytes
