"""A chunk log in a dict: executes the commands the log book writes, as Redis would, and reads them back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.errors import PeerError
from replay_server.durability.chunk_log import Transaction, Write
from replay_server.durability.log_index import ChunkLogIndex, LogContents, LogState, RedisKeys, parse_contents
from replay_server.durability.redis_protocol import CommandPart


class DictLog:
    """Keeps what was executed in `values` and `hashes`; fails on demand."""

    def __init__(self, values: dict[str, bytes] | None = None, hashes: dict[str, dict[str, str]] | None = None) -> None:
        self.index = ChunkLogIndex(RedisKeys("test"))
        self.values = values if values is not None else {}
        self.hashes = hashes if hashes is not None else {}
        self.error = ""
        """While set, nothing can be executed."""
        self.executed = 0

    def after_restart(self) -> DictLog:
        """Returns the log as a new server finds it."""
        return DictLog(self.values, self.hashes)

    def prepare(self, writes: Sequence[Write]) -> Transaction:
        return self.index.transaction(writes)

    def execute(self, transaction: Transaction) -> None:
        if self.error:
            raise PeerError(self.error)
        for command in transaction.commands:
            self._execute(*command)
        self.executed += 1

    def _execute(self, name: CommandPart, *arguments: CommandPart) -> None:
        match name:
            case "MSET":
                for key, value in zip(arguments[::2], arguments[1::2], strict=True):
                    self.values[str(key)] = b"".join(value) if isinstance(value, tuple) else bytes(value)  # type: ignore[arg-type]
            case "UNLINK":
                for key in arguments:
                    self.values.pop(key, None)  # type: ignore[call-overload]
                    self.hashes.pop(key, None)  # type: ignore[call-overload]
            case "HSET":
                fields = {str(field): str(value) for field, value in zip(arguments[1::2], arguments[2::2], strict=True)}
                self.hashes.setdefault(str(arguments[0]), {}).update(fields)
            case "HDEL":
                for field in arguments[1:]:
                    self.hashes.get(str(arguments[0]), {}).pop(str(field), None)
            case _:
                raise AssertionError(f"a command the log book does not write: {name!r}")

    def read(self) -> LogContents | None:
        keys = self.index.keys
        if keys.run not in self.values:
            return None
        state, actors = (
            {field.encode(): value.encode() for field, value in self.hashes.get(key, {}).items()}
            for key in (keys.state, keys.actors)
        )
        contents = parse_contents(
            state, actors, self.values[keys.run], self.values.get(keys.weights), self.values.get(keys.finished)
        )
        self.index.restore(contents)
        return contents

    def chunks(self, state: LogState) -> Iterator[tuple[int, bytes | None]]:
        for number in range(state.tail, state.head):
            yield number, self.values.get(self.index.keys.chunk(number))
