"""Chunks in the ring: the records of a chunk that has been stored, for a log that has lost it.

The log is written by a thread of its own while the server's loop goes on inserting. There is no lock between the two:
a chunk's own checksum tells whether what was copied is what was meant.
"""

from __future__ import annotations

import time

import numpy as np

from common.errors import ProtocolError
from replay_server.durability.chunk_format import unpack_chunk
from replay_server.durability.log_index import HeldChunk
from replay_server.replay import Replay
from replay_server.table.table import Table

MOST_LOOKS = 100
LOOK_AGAIN_S = 0.001
"""Lets the loop finish an insertion that it is in the middle of."""


class RingChunks:
    """Finds a replay's chunks in its ring."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    def value(self, chunk: HeldChunk) -> bytes | None:
        """Returns a chunk as the log keeps it; None when newer records have taken its place."""
        for _ in range(MOST_LOOKS):
            table = self._replay.table
            if table is None or not _holds(table, chunk):
                return None
            value = chunk.header + _records(table, chunk)
            try:
                unpack_chunk(value, chunk.number, table.ring.dtype.itemsize)
            except ProtocolError:
                time.sleep(LOOK_AGAIN_S)
            else:
                return value
        return None


def _holds(table: Table, chunk: HeldChunk) -> bool:
    return table.limiter.inserts - chunk.end + chunk.rows <= table.ring.size


def _records(table: Table, chunk: HeldChunk) -> bytes:
    first = table.ring.next_slot - (table.limiter.inserts - chunk.end) - chunk.rows
    return table.ring.gather((first + np.arange(chunk.rows)) % table.ring.capacity).tobytes()
