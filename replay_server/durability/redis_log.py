"""The chunk log in Redis or Valkey, from which a restarted replay server is rebuilt. Batches never come from it.

log_index.py lists the keys and makes the transactions; this module executes them and reads the keys.
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
from replay_server.durability.chunk_log import GROUP_BYTES, LogMark, Transaction, Write
from replay_server.durability.log_index import (
    MARK_FIELDS,
    ChunkLogIndex,
    LogContents,
    LogState,
    RedisKeys,
    StoredChunk,
    parse_contents,
)
from replay_server.durability.redis_connection import error_text
from replay_server.durability.redis_protocol import RedisCommand, pack

FSYNC_WAIT_MS = 5_000
"""Timeout of WAITAOF [ms]."""
READ_BYTES = 4 * 2**20
"""Approximate size of one read of chunks."""
READS_AHEAD = 2
"""Number of reads that are requested before the first answer is processed."""
MAX_KEYS = 512
"""Maximum number of keys in one command."""

_log = logging.getLogger(__name__)


class _Loss(NamedTuple):
    """The chunks that Redis lost when it restarted."""

    first: int
    """Number of the first chunk that it lacks."""
    evicted: range
    """Numbers of the chunks that it may still contain though they have been removed since."""

    def union(self, other: _Loss) -> _Loss:
        """Returns both losses as one."""
        ranges = [one for one in (self.evicted, other.evicted) if one]
        evicted = range(min(one.start for one in ranges), max(one.stop for one in ranges)) if ranges else range(0)
        return _Loss(min(self.first, other.first), evicted)


class RedisLog:
    """Stores one replay's chunks under one name.

    Call `read` or `discard` first; after that, one thread executes transactions.

    Example:
        log = RedisLog(client, "default", fsync=False)
        contents = log.read()
        log.execute(log.prepare(writes))
    """

    def __init__(self, client: redis.Redis, name: str, *, fsync: bool) -> None:
        """fsync: whether a transaction is durable only when Redis has it on disk."""
        self.index = ChunkLogIndex(RedisKeys(name))
        self._name, self._client, self._fsync = name, client, fsync
        self._connection: Any = None
        self.refill_source: Callable[[StoredChunk], bytes | None] = lambda _: None
        """Source for chunks that Redis lost; None if no copy exists."""
        self._loss: _Loss | None = None
        """Chunks that Redis has lost and that have not been written again; None if the log is complete."""
        self._refilled_from: int | None = None
        """Number of the first chunk that was ever written again; None if none was."""

    # ---- writing --------------------------------------------------------------------------------------------------

    def prepare(self, writes: Sequence[Write]) -> Transaction:
        """Returns the transaction for a group of writes; called once for each group, in order."""
        return self.index.transaction(writes)

    def execute(self, transaction: Transaction) -> None:
        """Makes a transaction durable, all of it or nothing; PeerError when its outcome is unknown.

        If Redis has lost chunks they are written again before this returns, because they were acknowledged.
        """
        try:
            if self._connection is None:
                self._connection = self._client.connection_pool.get_connection()
            values, *_ = self._commit([("HMGET", self.index.keys.state, *MARK_FIELDS), *transaction.commands])
            found = tuple(int(value or 0) for value in values)
            if found not in (transaction.before, transaction.after):
                self._record_loss(found, transaction.before)
            if self._loss:
                self._refill(self._loss)
                self._loss = None
        except redis.RedisError as e:
            self._disconnect()
            raise PeerError(error_text(e)) from e

    def close(self) -> None:
        """Closes the connections."""
        self._disconnect()
        self._client.close()

    def _commit(self, commands: Sequence[RedisCommand]) -> list[Any]:
        """Executes commands as one transaction and returns their answers, each of them checked.

        One connection and one exchange, because WAITAOF counts the writes of its own connection only.
        """
        request = [("MULTI",), *commands, ("EXEC",), *([("WAITAOF", 1, 0, FSYNC_WAIT_MS)] * self._fsync)]
        self._connection.send_packed_command(pack(request))
        answers = [self._connection.read_response() for _ in request]
        executed: list[Any] = answers[-2] if self._fsync else answers[-1]
        if failures := [answer for answer in executed if isinstance(answer, redis.RedisError)]:
            raise failures[0]
        if self._fsync and answers[-1][0] < 1:
            raise redis.TimeoutError(f"its append-only file was not on disk within {FSYNC_WAIT_MS / 1_000:g} s")
        return executed

    def _record_loss(self, found: LogMark, before: LogMark) -> None:
        """Records what Redis has lost, from the mark it had before a transaction and the one it should have had."""
        (form, head, tail, refills), (_, expected_head, _, expected_refills) = found, before
        older = form > 0 and head <= expected_head
        loss = _Loss(head, range(tail, head)) if older else _Loss(0, range(0))
        if refills < expected_refills and self._refilled_from is not None:
            # It may have lost some rewritten chunks, whose numbers are below its head.
            loss = loss.union(_Loss(self._refilled_from, range(0)))
        self._loss = loss.union(self._loss) if self._loss else loss

    def _refill(self, loss: _Loss) -> None:
        """Writes the lost chunks again, and everything else that the log contains."""
        chunks, unavailable, started = self.index.chunks_from(loss.first), 0, time.monotonic()
        _log.error("Redis has lost chunks, writing them again from RAM chunks=%d", len(chunks))
        evicted = self.index.evicted(loss.evicted)
        for i in range(0, len(evicted), MAX_KEYS):
            self._commit([("UNLINK", *evicted[i : i + MAX_KEYS])])
        self._commit(self.index.metadata())
        group: list[bytes | str] = []
        size = 0
        for chunk in chunks:
            value = self.refill_source(chunk)
            if value is None:
                unavailable += 1
                continue
            group += (self.index.keys.chunk(chunk.number), value)
            size += len(value)
            if size >= GROUP_BYTES:
                self._commit([("MSET", *group)])
                group, size = [], 0
        self._commit([*([("MSET", *group)] if group else []), self.index.count_refill()])
        self._refilled_from = min(loss.first, loss.first if self._refilled_from is None else self._refilled_from)
        _log.warning(
            "Redis is complete again written=%d unavailable=%d seconds=%.2f",
            len(chunks) - unavailable,
            unavailable,
            time.monotonic() - started,
        )

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._client.connection_pool.release(self._connection)
            self._connection = None

    # ---- reading --------------------------------------------------------------------------------------------------

    def read(self) -> LogContents | None:
        """Returns everything in the log except chunks, or None when it is empty.

        Raises PeerError if Redis fails, and ConfigError for data of another version of Shoal.
        """
        keys = self.index.keys
        try:
            state, actors = self._client.hgetall(keys.state), self._client.hgetall(keys.actors)
            run, weights, finished = cast(
                "list[bytes | None]", self._client.mget(keys.run, keys.weights, keys.finished)
            )
        except redis.RedisError as e:
            raise PeerError(f"Redis: {error_text(e)}") from e
        if run is None:
            return None
        try:
            contents = parse_contents(
                cast("dict[bytes, bytes]", state), cast("dict[bytes, bytes]", actors), run, weights, finished
            )
        except (ValueError, msgspec.DecodeError) as e:
            raise ConfigError(
                f"Redis' data under --name {self._name} is not of this version of Shoal ({e}); discard it with"
                " --fresh, or choose another --name."
            ) from e
        self.index.restore(contents)
        return contents

    def chunks(self, state: LogState) -> Iterator[tuple[int, bytes | None]]:
        """Yields number and value of every chunk in order, None where it is missing.

        Each read has a bounded size, and Redis prepares the next ones while one is processed.
        """
        number, keys_per_read = state.tail, 1
        requested: deque[range] = deque()
        with self._reading() as connection:
            while number < state.head or requested:
                while number < state.head and len(requested) < READS_AHEAD:
                    requested.append(range(number, min(number + keys_per_read, state.head)))
                    connection.send_command("MGET", *(self.index.keys.chunk(i) for i in requested[-1]))
                    number = requested[-1].stop
                values: list[bytes | None] = connection.read_response()
                yield from zip(requested.popleft(), values, strict=True)
                largest = max((len(value) for value in values if value), default=READ_BYTES)
                keys_per_read = max(1, min(READ_BYTES // largest, MAX_KEYS))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Any]:
        """Lends a connection and closes it afterwards, because answers may be left on it; PeerError if Redis fails."""
        pool = self._client.connection_pool
        try:
            connection: Any = pool.get_connection()
            try:
                yield connection
            finally:
                connection.disconnect()
                pool.release(connection)
        except redis.RedisError as e:
            raise PeerError(f"Redis: {error_text(e)}") from e

    def discard(self) -> int:
        """Deletes everything under this name and returns the number of its keys; PeerError if Redis fails."""
        found = 0
        try:
            batch: list[bytes] = []
            for key in self._client.scan_iter(match=_escaped(self.index.keys.prefix) + "*", count=MAX_KEYS):
                batch.append(key)
                if len(batch) == MAX_KEYS:
                    found += self._client.unlink(*batch)
                    batch.clear()
            return found + (self._client.unlink(*batch) if batch else 0)
        except redis.RedisError as e:
            raise PeerError(f"Redis: {error_text(e)}") from e


def _escaped(text: str) -> str:
    """Returns a key pattern that matches exactly this text."""
    return "".join(f"\\{letter}" if letter in r"*?[]\^" else letter for letter in text)
