"""Recovery in both directions: the ring from the log at the start, and chunks that Redis has lost from the ring."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from common.errors import ProtocolError
from common.wire.codec import Buffer
from common.wire.messages import Chunk
from replay_server.durability.chunk_format import unpack_chunk
from replay_server.durability.log_index import ChunkLogIndex, LogContents, LogState, StoredChunk
from replay_server.replay import Replay
from replay_server.table.table import Table

REPORT_PERIOD_S = 2.0
MAX_SKIPS_LOGGED = 5
"""Maximum number of skipped chunks that are logged one by one; all are counted."""
MAX_COPY_ATTEMPTS = 100
COPY_RETRY_PERIOD_S = 0.001
"""Pause between two attempts to copy a chunk [s], in which the server's loop can finish an insertion."""

_log = logging.getLogger(__name__)


class RecoveryResult(NamedTuple):
    """The counts of a recovery: what was recovered and what was skipped."""

    transitions: int
    chunks: int
    damaged: int
    missing: int
    payload_bytes: int
    seconds: float


class ReadableLog(Protocol):
    """A log that a replay is rebuilt from: Redis, or a dict in tests."""

    @property
    def index(self) -> ChunkLogIndex:
        """What the log contains."""

    def read(self) -> LogContents | None:
        """Returns everything in the log except chunks, or None when it is empty."""

    def chunks(self, state: LogState) -> Iterator[tuple[int, bytes | None]]:
        """Yields number and value of every chunk in order; the value of a missing chunk is None."""


def recover(
    log: ReadableLog,
    replay: Replay,
    progress: Callable[[str], None],
    on_chunk: Callable[[Chunk, Buffer], None] | None = None,
) -> RecoveryResult:
    """Fills an empty replay from the log; damaged and missing chunks are skipped and counted.

    on_chunk: called with every chunk that is recovered.
    PeerError when Redis goes away meanwhile, ConfigError when the ring does not fit in memory.
    """
    started = time.monotonic()
    contents = log.read()
    if contents is None:
        return RecoveryResult(0, 0, 0, 0, 0, 0.0)
    table = replay.restore(contents.run, contents.weights, contents.finished)
    log.index.capacity = table.ring.capacity
    state = contents.state
    chunks = damaged = missing = payload_bytes = 0
    found: list[tuple[int, int, bytes]] = []
    report_at = started + REPORT_PERIOD_S
    for number, value in log.chunks(state):
        rows, header, fault = 0, b"", "missing"
        if value is None:
            missing += 1
        else:
            try:
                chunk, payload = unpack_chunk(value, number, table.ring.dtype.itemsize)
            except ProtocolError as e:
                damaged, fault = damaged + 1, str(e)
            else:
                rows, header, fault = chunk.count, value[: len(value) - len(payload)], ""
                table.append(table.records(payload), chunk)
                if on_chunk:
                    on_chunk(chunk, payload)
        found.append((number, rows, header))
        chunks, payload_bytes = chunks + (rows > 0), payload_bytes + rows * table.ring.dtype.itemsize
        if fault and missing + damaged <= MAX_SKIPS_LOGGED:
            _log.warning("chunk skipped number=%d reason=%s", number, fault)
        if time.monotonic() >= report_at:
            report_at += REPORT_PERIOD_S
            done = (number - state.tail) / max(state.head - state.tail, 1)
            progress(f"recovering from Redis: {done:.0%} of the chunks read")
            _log.info("recovering done=%.0f%% transitions=%d", done * 100, table.size)
    table.limiter.catch_up(state.inserts, state.samples, table.size)
    _fill_index(log.index, found, table.limiter.inserts)
    replay.journal.resume(state.head, state.samples)
    for actor, (incarnation, seq) in contents.actors.items():
        replay.actors.restore(actor, incarnation, seq)
    return RecoveryResult(table.size, chunks, damaged, missing, payload_bytes, time.monotonic() - started)


def _fill_index(index: ChunkLogIndex, found: list[tuple[int, int, bytes]], inserts: int) -> None:
    """Adds chunks (number, rows, header) to the index. inserts: transitions ever inserted, up to the last of them."""
    end = inserts - sum(rows for _, rows, _ in found)
    for number, rows, header in found:
        end += rows
        index.add(StoredChunk(number, rows, header, end))


class RingChunks:
    """Finds a replay's stored chunks in its ring, for a Redis that has lost them.

    The committer's thread reads while the server's loop inserts, without a lock: a chunk's checksum shows whether
    the copy is complete.
    """

    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    def value(self, chunk: StoredChunk) -> bytes | None:
        """Returns a chunk's value in the log; None when newer records have replaced it."""
        for _ in range(MAX_COPY_ATTEMPTS):
            table = self._replay.table
            if table is None or not _in_ring(table, chunk):
                return None
            value = chunk.header + _copy_records(table, chunk)
            try:
                unpack_chunk(value, chunk.number, table.ring.dtype.itemsize)
            except ProtocolError:
                time.sleep(COPY_RETRY_PERIOD_S)
            else:
                return value
        return None


def _in_ring(table: Table, chunk: StoredChunk) -> bool:
    newer = table.limiter.inserts - chunk.end
    # Fewer than none: the table is that of a newer run.
    return 0 <= newer <= table.ring.size - chunk.rows


def _copy_records(table: Table, chunk: StoredChunk) -> bytes:
    first = table.ring.next_slot - (table.limiter.inserts - chunk.end) - chunk.rows
    return table.ring.gather((first + np.arange(chunk.rows)) % table.ring.capacity).tobytes()
