"""The audit file of a replay server: the chunks that it recovered when it started, and each one that it stores."""

from __future__ import annotations

from pathlib import Path

from common.wire.audit import AuditFile, ProcessStart, Recovered, Serving, Stored, digest
from common.wire.codec import Buffer
from common.wire.messages import Chunk
from replay_server.replay import Replay


class ReplayAudit:
    """Writes one replay's audit file."""

    def __init__(self, directory: Path, name: str, replay: Replay) -> None:
        """Creates the file of this start of the server; ConfigError when it cannot be written."""
        self._replay = replay
        self._file = AuditFile(directory, ProcessStart("replay", name, replay.config.level))
        replay.journal.on_chunk = self.write_stored

    def write_stored(self, chunk: Chunk, payload: Buffer) -> None:
        """Records a chunk that has just been inserted, before it can be acknowledged."""
        capacity = self._replay.table.ring.capacity if self._replay.table else 0
        self._file.write(Stored(chunk.actor, chunk.incarnation, chunk.seq, chunk.count, digest(payload), capacity))

    def write_recovered(self, chunk: Chunk, payload: Buffer) -> None:
        """Records a chunk that was recovered."""
        self._file.write(Recovered(chunk.actor, chunk.incarnation, chunk.seq, chunk.count, digest(payload)))

    def write_serving(self) -> None:
        """Records that recovery is complete."""
        self._file.write(Serving())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
