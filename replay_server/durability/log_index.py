"""The index of the chunk log: turns writes into Redis commands, and knows which chunks the log contains. Pure.

    shoal:{NAME}:chunk:I     the chunk of number I (chunk_format.py), for tail <= I < head
    shoal:{NAME}:state       hash: format, head, tail, inserts, samples, refills
    shoal:{NAME}:actors      hash: actor -> "incarnation:seq" of its last chunk in the log
    shoal:{NAME}:run         the run, as JSON
    shoal:{NAME}:weights     the newest weights frame
    shoal:{NAME}:finished    the learner's last report, as MessagePack; exists once the run is finished

A group of chunks, the actors' and counters' new values, and the removal of the oldest chunks are one transaction: the
log never counts a chunk that it does not contain. Every command sets or deletes a key or field whatever its value was,
so a transaction whose answer was lost is simply executed again. The braces keep all keys of a name in one slot of a
Redis cluster.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec

from common.run.run import Run
from common.wire.messages import LearnerReport, Natural
from replay_server.durability.chunk_format import pack_chunk
from replay_server.durability.chunk_log import (
    ForgetActor,
    LoggedChunk,
    LogMark,
    ReleaseChunks,
    StoreFinished,
    StoreRun,
    StoreSamples,
    StoreWeights,
    Transaction,
    Write,
)
from replay_server.durability.redis_protocol import RedisCommand, SplitValue

FORMAT: Literal[1] = 1
MARK_FIELDS = ("format", "head", "tail", "refills")
"""The fields of `state` that distinguish a log from an earlier snapshot of the same log."""
MAX_REMOVED_KEYS = 10_000
"""Maximum number of keys in one command that removes some: Redis refuses commands of a million arguments."""


class LogState(msgspec.Struct, frozen=True):
    """The log's counters, as the hash `state` contains them."""

    format: Literal[1] = FORMAT
    head: Natural = 0
    """Number of the next chunk."""
    tail: Natural = 0
    """Number of the oldest chunk."""
    inserts: Natural = 0
    samples: Natural = 0
    refills: Natural = 0
    """How often lost chunks were written again. A number smaller than the index's means that Redis has gone back to an
    older state and may have lost them again."""


class LogContents(msgspec.Struct, frozen=True):
    """Everything in the log except chunks."""

    run: Run
    state: LogState
    actors: dict[str, tuple[int, int]]
    """Incarnation and seq by actor."""
    weights: bytes | None
    finished: LearnerReport | None = None
    """The last report of the learner of a finished run."""


class StoredChunk(NamedTuple):
    """A chunk that the log contains, or should contain."""

    number: int
    rows: int
    """Number of its transitions; 0: it was missing or damaged when the log was read."""
    header: bytes
    """The value in the log up to the records."""
    end: int
    """Transitions ever inserted, up to its last record."""


class RedisKeys:
    """The Redis keys of one replay's name."""

    def __init__(self, name: str) -> None:
        self.prefix = f"shoal:{{{name}}}:"
        self.state, self.actors = self.prefix + "state", self.prefix + "actors"
        self.run, self.weights = self.prefix + "run", self.prefix + "weights"
        self.finished = self.prefix + "finished"

    def chunk(self, number: int) -> str:
        """Returns the key of a chunk."""
        return f"{self.prefix}chunk:{number}"


@dataclass(slots=True)
class _Draft:
    """A transaction that is being built; later values replace earlier ones."""

    values: dict[str, bytes | SplitValue] = field(default_factory=dict)
    actors: dict[str, str] = field(default_factory=dict)
    state: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    last_number: int = -1

    def commands(self, keys: RedisKeys) -> list[RedisCommand]:
        """Returns the commands, removals first: a new run clears the keys that it then sets."""
        firsts = range(0, len(self.removed), MAX_REMOVED_KEYS)
        commands: list[RedisCommand] = [("UNLINK", *self.removed[i : i + MAX_REMOVED_KEYS]) for i in firsts]
        if self.forgotten:
            commands.append(("HDEL", keys.actors, *self.forgotten))
        if self.values:
            commands.append(("MSET", *(part for item in self.values.items() for part in item)))
        if self.actors:
            commands.append(("HSET", keys.actors, *(part for item in self.actors.items() for part in item)))
        if self.state:
            commands.append(("HSET", keys.state, *(part for item in self.state.items() for part in item)))
        return commands


class ChunkLogIndex:
    """Knows what the log contains after the transactions that it has returned.

    Example:
        index = ChunkLogIndex(RedisKeys("default"))
        index.capacity = 1_000_000
        transaction = index.transaction([LoggedChunk(0, chunk, payload, inserts=chunk.count)])
    """

    def __init__(self, keys: RedisKeys) -> None:
        self.keys = keys
        self.capacity = 0
        """Transitions to keep: the oldest chunk is removed once the newer chunks contain this number."""
        self._chunks: deque[StoredChunk] = deque()
        self._rows = 0
        self._actors: dict[str, str] = {}
        self._definitions: dict[str, bytes | SplitValue] = {}
        """The run, the newest weights frame and the learner's last report, by Redis key."""
        self._state: dict[str, int] = {}

    @property
    def head(self) -> int:
        """Number of the next chunk."""
        return self._state.get("head", 0)

    @property
    def mark(self) -> LogMark:
        """The values of MARK_FIELDS."""
        return tuple(self._state.get(name, 0) for name in MARK_FIELDS)

    def transaction(self, writes: Sequence[Write]) -> Transaction:
        """Returns the transaction for a group of writes."""
        draft, before = _Draft(), self.mark
        for write in writes:
            self._add_write(write, draft)
        self._evict(draft)
        self._apply(draft)
        return Transaction(draft.commands(self.keys), draft.last_number, before, self.mark)

    def metadata(self) -> list[RedisCommand]:
        """Returns the commands that write everything except chunks, for a Redis that has lost some of it.

        They first remove what Redis may have of an earlier run, or of a run that was finished then.
        """
        removed = [self.keys.actors, self.keys.weights, self.keys.finished]
        draft = _Draft(dict(self._definitions), dict(self._actors), dict(self._state), removed)
        return draft.commands(self.keys)

    def chunks_from(self, number: int) -> list[StoredChunk]:
        """Returns the present chunks from a number on, newest first: the newest are the last to be evicted."""
        return [chunk for chunk in reversed(self._chunks) if chunk.number >= number and chunk.rows]

    def evicted(self, numbers: range) -> list[str]:
        """Returns the keys of those chunks among `numbers` that have been removed since."""
        first = self._chunks[0].number if self._chunks else self.head
        return [self.keys.chunk(number) for number in range(numbers.start, min(numbers.stop, first))]

    def count_refill(self) -> RedisCommand:
        """Counts a refill, and returns the command that stores the count: the log is complete again."""
        self._state["refills"] = self._state.get("refills", 0) + 1
        return ("HSET", self.keys.state, "refills", self._state["refills"])

    def restore(self, contents: LogContents) -> None:
        """Sets the index to the contents that were read from the log."""
        self._actors = {actor: f"{incarnation}:{seq}" for actor, (incarnation, seq) in contents.actors.items()}
        self._state = msgspec.structs.asdict(contents.state)
        self._definitions = {self.keys.run: msgspec.json.encode(contents.run)}
        if contents.weights:
            self._definitions[self.keys.weights] = contents.weights
        if contents.finished:
            self._definitions[self.keys.finished] = msgspec.msgpack.encode(contents.finished)

    def add(self, chunk: StoredChunk) -> None:
        """Adds the next chunk that the log contains, or should contain."""
        self._chunks.append(chunk)
        self._rows += chunk.rows

    def _add_write(self, write: Write, draft: _Draft) -> None:
        match write:
            case LoggedChunk(number, chunk, _, inserts):
                packed = pack_chunk(write)
                self.add(StoredChunk(number, chunk.count, packed[0], inserts))
                draft.last_number = number
                draft.values[self.keys.chunk(number)] = packed
                draft.actors[chunk.actor] = f"{chunk.incarnation}:{chunk.seq}"
                draft.state |= {"head": number + 1, "inserts": inserts}
            case StoreSamples(samples):
                draft.state["samples"] = samples
            case StoreWeights(_, frame):
                draft.values[self.keys.weights] = frame
            case ForgetActor(actor):
                draft.actors.pop(actor, None)
                draft.forgotten.append(actor)
            case StoreFinished(report):
                self._store_or_remove(self.keys.finished, msgspec.msgpack.encode(report) if report else None, draft)
            case ReleaseChunks():
                self._release(draft)
            case StoreRun(run, capacity, replaces_run):
                self.capacity = capacity
                draft.values[self.keys.run] = msgspec.json.encode(run)
                draft.state["format"] = FORMAT
                if replaces_run:
                    self._clear(draft)

    def _clear(self, draft: _Draft) -> None:
        """Removes everything of the previous run, also what the same group has added."""
        self._release(draft)
        draft.actors.clear()
        draft.removed.append(self.keys.actors)
        for key in (self.keys.weights, self.keys.finished):
            self._store_or_remove(key, None, draft)
        draft.state |= {"inserts": 0, "samples": 0}

    def _release(self, draft: _Draft) -> None:
        """Removes all chunks. Numbers continue, so no chunk of the next run has the key of an earlier one."""
        for chunk in self._chunks:
            self._store_or_remove(self.keys.chunk(chunk.number), None, draft)
        head = draft.state.get("head", self.head)
        # Both: a Redis that has gone back to an older state must not have a tail beyond its head.
        draft.state |= {"head": head, "tail": head}
        self._chunks.clear()
        self._rows = 0

    @staticmethod
    def _store_or_remove(key: str, value: bytes | None, draft: _Draft) -> None:
        if value is not None:
            draft.values[key] = value
        else:
            draft.values.pop(key, None)
            draft.removed.append(key)

    def _evict(self, draft: _Draft) -> None:
        while self._chunks and self._rows - self._chunks[0].rows >= self.capacity:
            number, rows, _, _ = self._chunks.popleft()
            self._rows -= rows
            draft.state["tail"] = number + 1
            key = self.keys.chunk(number)
            # A group may exceed the capacity: a chunk that would be removed at once is not written.
            if draft.values.pop(key, None) is None:
                draft.removed.append(key)

    def _apply(self, draft: _Draft) -> None:
        if self.keys.actors in draft.removed:
            self._actors.clear()
        for key in (self.keys.weights, self.keys.finished):
            if key in draft.removed:
                self._definitions.pop(key, None)
        for actor in draft.forgotten:
            self._actors.pop(actor, None)
        self._actors |= draft.actors
        self._state |= draft.state
        definitions = (self.keys.run, self.keys.weights, self.keys.finished)
        self._definitions |= {key: value for key, value in draft.values.items() if key in definitions}


def parse_contents(
    state: Mapping[bytes, bytes],
    actors: Mapping[bytes, bytes],
    run: bytes,
    weights: bytes | None,
    finished: bytes | None = None,
) -> LogContents:
    """Returns the log's contents from its keys' values; ValueError or ValidationError when they are not a log's."""
    counters = {name.decode(): int(value) for name, value in state.items()}
    sequences = {}
    for actor, value in actors.items():
        incarnation, _, seq = value.decode().partition(":")
        sequences[actor.decode()] = int(incarnation), int(seq)
    report = msgspec.msgpack.decode(finished, type=LearnerReport) if finished else None
    log_state = msgspec.convert(counters, LogState)
    contents = LogContents(msgspec.json.decode(run, type=Run), log_state, sequences, weights, report)
    if contents.state.tail > contents.state.head:
        raise ValueError(f"its oldest chunk, {contents.state.tail}, comes after its newest")
    return contents
