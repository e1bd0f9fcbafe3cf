"""The chunk log in Redis or Valkey: what a restarted replay server is rebuilt from. It is never sampled from.

The keys and what a transaction consists of stand in log_book.py; here they are executed and read back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, cast

import msgspec
import redis

from common.errors import ConfigError, PeerError
from replay_server.committer import Transaction
from replay_server.instructions import Write
from replay_server.log_book import Kept, Keys, LogBook, State, parse
from replay_server.redis_link import in_words
from replay_server.resp import Command, pack

FSYNC_WAIT_MS = 5_000
READ_BYTES = 8 * 2**20
"""About what one read of chunks takes."""
MOST_KEYS = 512
"""Keys in one command, where their values are small or none."""

_log = logging.getLogger(__name__)


class RedisLog:
    """Keeps one replay's chunks under one name. First `read` or `discard`, then one thread executes transactions."""

    def __init__(self, client: redis.Redis, name: str, *, fsync: bool) -> None:
        """`fsync`: a transaction counts as durable only when Redis has it on disk."""
        self.book = LogBook(Keys(name))
        self._name, self._client, self._fsync = name, client, fsync
        self._connection: Any = None
        self._doubtful = False

    # ---- writing --------------------------------------------------------------------------------------------------

    def prepare(self, writes: Sequence[Write]) -> Transaction:
        """Returns the transaction for a group of writes; called once for each group, in order."""
        return self.book.transaction(writes)

    def execute(self, transaction: Transaction) -> None:
        """Makes a transaction durable, all of it or nothing; PeerError when it is not known to be."""
        try:
            if self._connection is None:
                self._connection = self._client.connection_pool.get_connection()
            commands = self._restoring(transaction) if self._doubtful else transaction.commands
            self._exchange([("MULTI",), *commands, ("EXEC",), *([("WAITAOF", 1, 0, FSYNC_WAIT_MS)] * self._fsync)])
        except redis.RedisError as e:
            self._doubtful = True
            self._disconnect()
            raise PeerError(in_words(e)) from e
        self._doubtful = False

    def close(self) -> None:
        """Closes the connections."""
        self._disconnect()
        self._client.close()

    def _exchange(self, commands: Sequence[Command]) -> None:
        """Sends commands at once on the one connection and checks every answer.

        One connection and one exchange, because WAITAOF speaks of the writes of its own connection only.
        """
        self._connection.send_packed_command(pack(commands))
        answers = [self._connection.read_response() for _ in commands]
        executed = answers[-2] if self._fsync else answers[-1]
        if failures := [answer for answer in executed or () if isinstance(answer, redis.RedisError)]:
            raise failures[0]
        if self._fsync and answers[-1][0] < 1:
            raise redis.TimeoutError(f"its append-only file was not on disk within {FSYNC_WAIT_MS / 1_000:g} s")

    def _restoring(self, transaction: Transaction) -> Sequence[Command]:
        """Returns the commands after a failure: Redis may have come back without its data."""
        self._connection.send_command("HGET", self.book.keys.state, "format")
        if self._connection.read_response() is not None:
            return transaction.commands
        _log.error("Redis has lost the chunks it held; they remain in RAM only")
        return [*self.book.basis(), *transaction.commands]

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._client.connection_pool.release(self._connection)
            self._connection = None

    # ---- reading --------------------------------------------------------------------------------------------------

    def read(self) -> Kept | None:
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

    def chunks(self, state: State) -> Iterator[tuple[int, bytes | None]]:
        """Yields number and value of every chunk in order, None where it is missing; reads a bounded part at a time."""
        number, keys_a_read = state.tail, 1
        while number < state.head:
            numbers = range(number, min(number + keys_a_read, state.head))
            try:
                values = cast("list[bytes | None]", self._client.mget([self.book.keys.chunk(i) for i in numbers]))
            except redis.RedisError as e:
                raise PeerError(f"Redis: {in_words(e)}") from e
            yield from zip(numbers, values, strict=True)
            number = numbers.stop
            largest = max((len(value) for value in values if value), default=READ_BYTES)
            keys_a_read = max(1, min(READ_BYTES // largest, MOST_KEYS))

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
