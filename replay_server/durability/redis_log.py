"""The chunk log in Redis or Valkey: what a restarted replay server is rebuilt from. It is never sampled from.

The keys and what a transaction consists of stand in log_index.py; here they are executed and read back.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import msgspec
import redis

from common.errors import ConfigError, PeerError
from replay_server.durability.committer import GROUP_BYTES, Mark, Transaction
from replay_server.durability.log_index import MARKED, ChunkLogIndex, HeldChunk, LogState, RedisKeys, StoredState, parse
from replay_server.durability.redis_connection import in_words
from replay_server.durability.redis_protocol import Command, pack
from replay_server.instructions import Write

FSYNC_WAIT_MS = 5_000
READ_BYTES = 4 * 2**20
"""About what one read of chunks takes."""
PARTS_AHEAD = 2
"""Reads asked for and not taken."""
MOST_KEYS = 512
"""RedisKeys in one command, where their values are small or none."""

_log = logging.getLogger(__name__)


class _Loss(NamedTuple):
    """What a Redis lacks that came back without all it held."""

    first: int
    """Number of the first chunk that it lacks."""
    outgrown: range
    """Numbers of the chunks it may hold though they have gone since."""

    def and_(self, other: _Loss) -> _Loss:
        """Returns both losses as one."""
        ranges = [one for one in (self.outgrown, other.outgrown) if one]
        outgrown = range(min(one.start for one in ranges), max(one.stop for one in ranges)) if ranges else range(0)
        return _Loss(min(self.first, other.first), outgrown)


class RedisLog:
    """Keeps one replay's chunks under one name. First `read` or `discard`, then one thread executes transactions."""

    def __init__(self, client: redis.Redis, name: str, *, fsync: bool) -> None:
        """`fsync`: a transaction counts as durable only when Redis has it on disk."""
        self.book = ChunkLogIndex(RedisKeys(name))
        self._name, self._client, self._fsync = name, client, fsync
        self._connection: Any = None
        self.source: Callable[[HeldChunk], bytes | None] = lambda _: None
        """Where a chunk that Redis has lost is had from again; None where it is nowhere any more."""
        self._lost: _Loss | None = None
        """What Redis has lost and not been given again; None: it has all."""
        self._refilled_from: int | None = None
        """Number of the first chunk that it was ever given again."""

    # ---- writing --------------------------------------------------------------------------------------------------

    def prepare(self, writes: Sequence[Write]) -> Transaction:
        """Returns the transaction for a group of writes; called once for each group, in order."""
        return self.book.transaction(writes)

    def execute(self, transaction: Transaction) -> None:
        """Makes a transaction durable, all of it or nothing; PeerError when it is not known to be.

        Where Redis turns out to have lost chunks it is given them again first, for they were acknowledged.
        """
        try:
            if self._connection is None:
                self._connection = self._client.connection_pool.get_connection()
            values, *_ = self._commit([("HMGET", self.book.keys.state, *MARKED), *transaction.commands])
            found = tuple(int(value or 0) for value in values)
            if found not in (transaction.before, transaction.after):
                self._note_loss(found, transaction.before)
            if self._lost:
                self._write_again(self._lost)
                self._lost = None
        except redis.RedisError as e:
            self._disconnect()
            raise PeerError(in_words(e)) from e

    def close(self) -> None:
        """Closes the connections."""
        self._disconnect()
        self._client.close()

    def _commit(self, commands: Sequence[Command]) -> list[Any]:
        """Executes commands as one and returns their answers, each of them checked.

        One connection and one exchange, because WAITAOF speaks of the writes of its own connection only.
        """
        whole = [("MULTI",), *commands, ("EXEC",), *([("WAITAOF", 1, 0, FSYNC_WAIT_MS)] * self._fsync)]
        self._connection.send_packed_command(pack(whole))
        answers = [self._connection.read_response() for _ in whole]
        executed: list[Any] = answers[-2] if self._fsync else answers[-1]
        if failures := [answer for answer in executed if isinstance(answer, redis.RedisError)]:
            raise failures[0]
        if self._fsync and answers[-1][0] < 1:
            raise redis.TimeoutError(f"its append-only file was not on disk within {FSYNC_WAIT_MS / 1_000:g} s")
        return executed

    def _note_loss(self, found: Mark, before: Mark) -> None:
        """Notes what Redis has lost, by the mark it had and should have had before a transaction."""
        (form, head, tail, refills), (_, right_head, _, right_refills) = found, before
        older = form > 0 and head <= right_head
        loss = _Loss(head, range(tail, head)) if older else _Loss(0, range(0))
        if refills < right_refills and self._refilled_from is not None:
            # It may have lost a part of what it was given again, whose numbers are below its head.
            loss = loss.and_(_Loss(self._refilled_from, range(0)))
        self._lost = loss.and_(self._lost) if self._lost else loss

    def _write_again(self, loss: _Loss) -> None:
        """Gives Redis the chunks that it has lost again, and all that it holds besides chunks."""
        chunks, gone, started = self.book.held_from(loss.first), 0, time.monotonic()
        _log.error("Redis has lost chunks it held, up to %d; writing them again from RAM", len(chunks))
        outgrown = self.book.outgrown(loss.outgrown)
        for i in range(0, len(outgrown), MOST_KEYS):
            self._commit([("UNLINK", *outgrown[i : i + MOST_KEYS])])
        self._commit(self.book.basis())
        part: list[bytes | str] = []
        size = 0
        for chunk in chunks:
            value = self.source(chunk)
            if value is None:
                gone += 1
                continue
            part += (self.book.keys.chunk(chunk.number), value)
            size += len(value)
            if size >= GROUP_BYTES:
                self._commit([("MSET", *part)])
                part, size = [], 0
        self._commit([*([("MSET", *part)] if part else []), self.book.refilled()])
        self._refilled_from = min(loss.first, loss.first if self._refilled_from is None else self._refilled_from)
        took_s = time.monotonic() - started
        _log.warning("Redis holds its chunks again written=%d gone=%d seconds=%.2f", len(chunks) - gone, gone, took_s)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._client.connection_pool.release(self._connection)
            self._connection = None

    # ---- reading --------------------------------------------------------------------------------------------------

    def read(self) -> StoredState | None:
        """Returns what the log holds besides chunks, or None when it is empty; PeerError, ConfigError."""
        keys = self.book.keys
        try:
            state, actors = self._client.hgetall(keys.state), self._client.hgetall(keys.actors)
            run, weights = cast("list[bytes | None]", self._client.mget(keys.run, keys.weights))
        except redis.RedisError as e:
            raise PeerError(f"Redis: {in_words(e)}") from e
        if run is None:
            return None
        try:
            kept = parse(cast("dict[bytes, bytes]", state), cast("dict[bytes, bytes]", actors), run, weights)
        except (ValueError, msgspec.ValidationError) as e:
            raise ConfigError(
                f"what Redis holds under --name {self._name} is not of this version of Shoal ({e}); discard it with"
                " --fresh, or choose another --name"
            ) from e
        self.book.restore(kept)
        return kept

    def chunks(self, state: LogState) -> Iterator[tuple[int, bytes | None]]:
        """Yields number and value of every chunk in order, None where it is missing; reads a bounded part at a time.

        While one part is looked at Redis prepares the next one.
        """
        number, keys_a_read = state.tail, 1
        asked: deque[range] = deque()
        with self._reading() as connection:
            while number < state.head or asked:
                while number < state.head and len(asked) < PARTS_AHEAD:
                    asked.append(range(number, min(number + keys_a_read, state.head)))
                    connection.send_command("MGET", *(self.book.keys.chunk(i) for i in asked[-1]))
                    number = asked[-1].stop
                values: list[bytes | None] = connection.read_response()
                yield from zip(asked.popleft(), values, strict=True)
                largest = max((len(value) for value in values if value), default=READ_BYTES)
                keys_a_read = max(1, min(READ_BYTES // largest, MOST_KEYS))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Any]:
        """Lends a connection, which is closed afterwards: answers may be left on it. PeerError."""
        pool = self._client.connection_pool
        try:
            connection: Any = pool.get_connection()
            try:
                yield connection
            finally:
                connection.disconnect()
                pool.release(connection)
        except redis.RedisError as e:
            raise PeerError(f"Redis: {in_words(e)}") from e

    def discard(self) -> int:
        """Deletes everything under this name and returns how many keys there were; PeerError."""
        found = 0
        try:
            batch: list[bytes] = []
            for key in self._client.scan_iter(match=_literally(self.book.keys.prefix) + "*", count=MOST_KEYS):
                batch.append(key)
                if len(batch) == MOST_KEYS:
                    found += self._client.unlink(*batch)
                    batch.clear()
            return found + (self._client.unlink(*batch) if batch else 0)
        except redis.RedisError as e:
            raise PeerError(f"Redis: {in_words(e)}") from e


def _literally(text: str) -> str:
    """Returns a pattern that matches just this text."""
    return "".join(f"\\{letter}" if letter in r"*?[]\^" else letter for letter in text)
