"""What a replay server writes into its audit: the chunks it found when it started, and each one it stores."""

from __future__ import annotations

from pathlib import Path

from common.wire.audit import AuditFile, Life, Recovered, Serving, Stored, digest
from common.wire.codec import Buffer
from common.wire.messages import Chunk
from replay_server.durability.chunk_format import KeptChunk
from replay_server.replay import Replay


class ReplayAudit:
    """Watches one replay."""

    def __init__(self, directory: Path, name: str, replay: Replay) -> None:
        """Begins this life's file; ConfigError when it cannot be written."""
        self._replay = replay
        self._file = AuditFile(directory, Life("replay", name, replay.settings.durability))
        replay.journal.witness = self.stored

    def stored(self, chunk: Chunk, payload: Buffer) -> None:
        """Notes a chunk that has just been inserted, before anyone could be told so."""
        capacity = self._replay.table.ring.capacity if self._replay.table else 0
        told = (chunk.actor, chunk.incarnation, chunk.seq, chunk.count, digest(payload))
        self._file.write(Stored(*told, capacity))

    def recovered(self, chunk: KeptChunk) -> None:
        """Notes a chunk that was read back."""
        origin = chunk.origin
        told = (origin.actor, origin.incarnation, origin.seq, chunk.rows, digest(chunk.records))
        self._file.write(Recovered(*told))

    def serving(self) -> None:
        """Notes that all that there was has been read back."""
        self._file.write(Serving())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
