"""The chunk log in Redis (or Valkey): what a restarted replay server is rebuilt from. It is never sampled from.

    shoal:{NAME}:chunk:I     the chunk of number I (chunk_format.py), for tail <= I < head
    shoal:{NAME}:state       hash: format, head, tail, inserts, samples
    shoal:{NAME}:actors      hash: actor -> "incarnation:seq" of its last chunk in the log
    shoal:{NAME}:run         the run, as JSON
    shoal:{NAME}:weights     the newest weights frame

A group of chunks, what it means for actors and counters, and the removal of the oldest chunks are one MULTI/EXEC: the
log never tells of a chunk it does not hold. Every command sets or deletes a key or field to a value that does not
depend on what was there, so a transaction whose answer was lost is simply executed again. The braces keep all keys of
a name in one slot of a Redis cluster.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, cast

import msgspec
import redis

from common.errors import ConfigError, PeerError
from common.run import Run
from replay_server.chunk_format import pack_chunk
from replay_server.committer import Transaction
from replay_server.instructions import ForgetActor, StoreChunk, StoreRun, StoreSamples, StoreWeights, Write
from replay_server.redis_link import in_words

FORMAT = 1
FSYNC_WAIT_MS = 5_000
READ_BYTES = 8 * 2**20
"""About what one read of chunks takes."""
MOST_KEYS = 512

Command = tuple[bytes | str | int | float, ...]
_log = logging.getLogger(__name__)


class State(msgspec.Struct, frozen=True):
    """The log's counters."""

    head: int = 0
    """Number the next chunk gets."""
    tail: int = 0
    """Number of the oldest chunk."""
    inserts: int = 0
    samples: int = 0


class Kept(msgspec.Struct, frozen=True):
    """All that the log holds besides chunks."""

    run: Run
    state: State
    actors: dict[str, tuple[int, int]]
    """Incarnation and seq by actor."""
    weights: bytes | None


class RedisLog:
    """Keeps the chunks of one replay under one name; after `read` or `discard`, written to by one thread only."""

    def __init__(self, client: redis.Redis, name: str, *, fsync: bool) -> None:
        self._client, self._fsync = client, fsync
        self._prefix = f"shoal:{{{name}}}:"
        self._connection: Any = None
        self.capacity = 0
        """Transitions the log is to hold; the oldest chunk goes when the others hold as many."""
        self._chunks: deque[tuple[int, int]] = deque()
        self._rows = 0

    # ---- writing --------------------------------------------------------------------------------------------------

    def prepare(self, writes: Sequence[Write]) -> Transaction:
        """Returns the transaction for a group of writes; called once for each group, in order."""
        commands: list[Command] = []
        values: dict[str, bytes] = {}
        actors: dict[str, str] = {}
        state: dict[str, int] = {}
        last_number = -1
        for write in writes:
            match write:
                case StoreChunk():
                    last_number = write.number
                    values[self._chunk_key(write.number)] = pack_chunk(write)
                    actors[write.chunk.actor] = f"{write.chunk.incarnation}:{write.chunk.seq}"
                    self._chunks.append((write.number, write.chunk.count))
                    self._rows += write.chunk.count
                    state |= {"head": write.number + 1, "inserts": write.inserts}
                case StoreSamples():
                    state["samples"] = write.samples
                case StoreWeights():
                    values[self._prefix + "weights"] = write.frame
                case StoreRun():
                    commands += self._run_commands(write)
                    state["format"] = FORMAT
                case ForgetActor():
                    actors.pop(write.actor, None)
                    commands.append(("HDEL", self._prefix + "actors", write.actor))
        outgrown = self._drop_outgrown()
        # A group may hold more than the whole log: what it would delete at once is not written at all.
        gone = [key for key in outgrown if values.pop(key, None) is None]
        if outgrown:
            state["tail"] = self._chunks[0][0]
        if values:
            commands.append(("MSET", *(part for item in values.items() for part in item)))
        if gone:
            commands.append(("UNLINK", *gone))
        if actors:
            commands.append(("HSET", self._prefix + "actors", *(part for item in actors.items() for part in item)))
        if state:
            commands.append(("HSET", self._prefix + "state", *(part for item in state.items() for part in item)))
        return Transaction(commands, last_number)
