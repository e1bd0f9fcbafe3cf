"""Recovery: rebuilds the replay from the chunk log, before the server binds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from common.errors import ProtocolError
from replay_server.durability.chunk_format import KeptChunk, unpack_chunk
from replay_server.durability.log_index import ChunkLogIndex, HeldChunk, LogState, StoredState
from replay_server.replay import Replay
from replay_server.table.table import Table

SAY_EVERY_S = 2.0
MOST_TOLD = 5
"""Skipped chunks that are logged one by one; all are counted."""

_log = logging.getLogger(__name__)


class Recovered(NamedTuple):
    """What came back."""

    transitions: int
    chunks: int
    damaged: int
    missing: int
    payload_bytes: int
    seconds: float


class ReadableLog(Protocol):
    """What a replay is rebuilt from: Redis, or a stand-in for it."""

    @property
    def book(self) -> ChunkLogIndex:
        """Knows what the log holds."""

    def read(self) -> StoredState | None:
        """Returns what the log holds besides chunks, or None when it is empty."""

    def chunks(self, state: LogState) -> Iterator[tuple[int, bytes | None]]:
        """Yields number and value of every chunk in order, None where it is missing."""


def recover(
    log: ReadableLog,
    replay: Replay,
    progress: Callable[[str], None],
    witness: Callable[[KeptChunk], None] = lambda _: None,
) -> Recovered:
    """Fills an empty replay with what the log holds; damaged and missing chunks are skipped and counted.

    witness: sees every chunk that is taken.
    PeerError when Redis goes away meanwhile, ConfigError when the ring does not fit in memory.
    """
    started = time.monotonic()
    kept = log.read()
    if kept is None:
        return Recovered(0, 0, 0, 0, 0, 0.0)
    table = replay.restore(kept.run, kept.weights)
    log.book.capacity = table.ring.capacity
    chunks = damaged = missing = payload_bytes = 0
    held: list[tuple[int, int, bytes]] = []
    say_at = started + SAY_EVERY_S
    for number, value in log.chunks(kept.state):
        chunk, fault = _open(table, number, value)
        rows = chunk.rows if chunk else 0
        if chunk:
            table.keep(table.records(chunk.records), chunk.origin)
            witness(chunk)
        held.append((number, rows, chunk.header if chunk else b""))
        chunks, payload_bytes = chunks + (rows > 0), payload_bytes + rows * table.ring.dtype.itemsize
        missing, damaged = missing + (value is None), damaged + bool(value is not None and fault)
        if fault and missing + damaged <= MOST_TOLD:
            _log.warning("chunk skipped number=%d reason=%s", number, fault)
        if time.monotonic() >= say_at:
            say_at += SAY_EVERY_S
            done = (number - kept.state.tail) / max(kept.state.head - kept.state.tail, 1)
            progress(f"recovering from Redis: {done:.0%} of the chunks read")
            _log.info("recovering done=%.0f%% transitions=%d", done * 100, table.size)
    table.limiter.catch_up(kept.state.inserts, kept.state.samples, table.size)
    _hold(log.book, held, table.limiter.inserts)
    replay.journal.resume(kept.state.head, kept.state.samples)
    for actor, (incarnation, seq) in kept.actors.items():
        replay.actors.restore(actor, incarnation, seq)
    return Recovered(table.size, chunks, damaged, missing, payload_bytes, time.monotonic() - started)


def _open(table: Table, number: int, value: bytes | None) -> tuple[KeptChunk | None, str]:
    """Returns a chunk, or None and what is wrong with it."""
    if value is None:
        return None, "missing"
    try:
        return unpack_chunk(value, number, table.ring.dtype.itemsize), ""
    except ProtocolError as e:
        return None, str(e)


def _hold(book: ChunkLogIndex, held: list[tuple[int, int, bytes]], inserts: int) -> None:
    """Tells the log book which chunks (number, rows, header) there are; `inserts`: with the last of them."""
    end = inserts - sum(rows for _, rows, _ in held)
    for number, rows, header in held:
        end += rows
        book.hold(HeldChunk(number, rows, header, end))
