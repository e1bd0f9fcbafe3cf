"""The log book: turns writes into Redis commands, and knows which chunks the log holds. Pure.

    shoal:{NAME}:chunk:I     the chunk of number I (chunk_format.py), for tail <= I < head
    shoal:{NAME}:state       hash: format, head, tail, inserts, samples, refills
    shoal:{NAME}:actors      hash: actor -> "incarnation:seq" of its last chunk in the log
    shoal:{NAME}:run         the run, as JSON
    shoal:{NAME}:weights     the newest weights frame

A group of chunks, what it means for actors and counters, and the removal of the oldest chunks are one transaction: the
log never tells of a chunk it does not hold. Every command sets or deletes a key or field whatever was there, so a
transaction whose answer was lost is simply executed again. The braces keep all keys of a name in one slot of a Redis
cluster.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec

from common.run.run import Run
from common.wire.messages import Natural
from replay_server.durability.chunk_format import pack_chunk
from replay_server.durability.committer import Mark, Transaction
from replay_server.durability.redis_protocol import Command, Split
from replay_server.instructions import ForgetActor, StoreChunk, StoreRun, StoreSamples, StoreWeights, Write

FORMAT: Literal[1] = 1
MARKED = ("format", "head", "tail", "refills")
"""The fields of `state` that tell a log from an older state of itself."""


class LogState(msgspec.Struct, frozen=True):
    """The log's counters, as the hash `state` holds them."""

    format: Literal[1] = FORMAT
    head: Natural = 0
    """Number the next chunk gets."""
    tail: Natural = 0
    """Number of the oldest chunk."""
    inserts: Natural = 0
    samples: Natural = 0
    refills: Natural = 0
    """How often the log was given chunks again: a log that lost some of them once more is behind by it."""


class StoredState(msgspec.Struct, frozen=True):
    """All that the log holds besides chunks."""

    run: Run
    state: LogState
    actors: dict[str, tuple[int, int]]
    """Incarnation and seq by actor."""
    weights: bytes | None


class HeldChunk(NamedTuple):
    """A chunk that the log holds, or should hold."""

    number: int
    rows: int
    """0: it was missing or damaged when the log was read."""
    header: bytes
    """What stands before its records."""
    end: int
    """Transitions ever inserted, up to its last."""


class RedisKeys:
    """The keys of one name."""

    def __init__(self, name: str) -> None:
        self.prefix = f"shoal:{{{name}}}:"
        self.state, self.actors = self.prefix + "state", self.prefix + "actors"
        self.run, self.weights = self.prefix + "run", self.prefix + "weights"

    def chunk(self, number: int) -> str:
        """Returns the key of a chunk."""
        return f"{self.prefix}chunk:{number}"


@dataclass(slots=True)
class _Draft:
    """A transaction in the making: later values replace earlier ones."""

    values: dict[str, bytes | Split] = field(default_factory=dict)
    actors: dict[str, str] = field(default_factory=dict)
    state: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    last_number: int = -1

    def commands(self, keys: RedisKeys) -> list[Command]:
        """Returns the commands, removals first: a run's replacement clears what the new one then sets."""
        commands: list[Command] = []
        if self.removed:
            commands.append(("UNLINK", *self.removed))
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
    """Knows what the log holds, and what it shall hold after the next transaction."""

    def __init__(self, keys: RedisKeys) -> None:
        self.keys = keys
        self.capacity = 0
        """Transitions the log is to hold: the oldest chunk goes when the others hold as many."""
        self._chunks: deque[HeldChunk] = deque()
        self._rows = 0
        self._actors: dict[str, str] = {}
        self._definitions: dict[str, bytes | Split] = {}
        self._state: dict[str, int] = {}

    @property
    def head(self) -> int:
        """Number after that of the newest chunk."""
        return self._state.get("head", 0)

    @property
    def mark(self) -> Mark:
        """What the fields MARKED of the log's state are."""
        return tuple(self._state.get(name, 0) for name in MARKED)

    def transaction(self, writes: Sequence[Write]) -> Transaction:
        """Returns the commands for a group of writes, to be executed as one."""
        draft, before = _Draft(), self.mark
        for write in writes:
            self._draft(write, draft)
        self._drop_outgrown(draft)
        self._remember(draft)
        return Transaction(draft.commands(self.keys), draft.last_number, before, self.mark)

    def basis(self) -> list[Command]:
        """Returns what to put where everything but chunks may be missing or old: in a Redis that lost some of it."""
        return _Draft(dict(self._definitions), dict(self._actors), dict(self._state)).commands(self.keys)

    def held_from(self, number: int) -> list[HeldChunk]:
        """Returns the chunks from a number on, newest first: those that will be needed for longest."""
        return [chunk for chunk in reversed(self._chunks) if chunk.number >= number and chunk.rows]

    def outgrown(self, numbers: range) -> list[str]:
        """Returns the keys of those chunks among `numbers` that have gone since."""
        first = self._chunks[0].number if self._chunks else self.head
        return [self.keys.chunk(number) for number in range(numbers.start, min(numbers.stop, first))]

    def refilled(self) -> Command:
        """Returns what marks the log once it holds its chunks again."""
        self._state["refills"] = self._state.get("refills", 0) + 1
        return ("HSET", self.keys.state, "refills", self._state["refills"])

    def restore(self, kept: StoredState) -> None:
        """Takes over what was read from the log."""
        self._actors = {actor: f"{incarnation}:{seq}" for actor, (incarnation, seq) in kept.actors.items()}
        self._state = msgspec.structs.asdict(kept.state)
        self._definitions = {self.keys.run: msgspec.json.encode(kept.run)}
        if kept.weights:
            self._definitions[self.keys.weights] = kept.weights

    def hold(self, chunk: HeldChunk) -> None:
        """Takes over the next chunk that the log holds, or should hold."""
        self._chunks.append(chunk)
        self._rows += chunk.rows

    def _draft(self, write: Write, draft: _Draft) -> None:
        match write:
            case StoreChunk(number, chunk, _, inserts):
                packed = pack_chunk(write)
                self.hold(HeldChunk(number, chunk.count, packed[0], inserts))
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
            case StoreRun(run, capacity, replaces_run):
                self.capacity = capacity
                draft.values[self.keys.run] = msgspec.json.encode(run)
                draft.state["format"] = FORMAT
                if replaces_run:
                    self._clear(draft)

    def _clear(self, draft: _Draft) -> None:
        """Forgets a run of which no transition is left."""
        chunks = [self.keys.chunk(chunk.number) for chunk in self._chunks]
        draft.removed += [self.keys.actors, self.keys.weights, *chunks]
        draft.state |= {"inserts": 0, "samples": 0, "tail": self.head}
        self._chunks.clear()
        self._rows = 0

    def _drop_outgrown(self, draft: _Draft) -> None:
        while self._chunks and self._rows - self._chunks[0].rows >= self.capacity:
            number, rows, _, _ = self._chunks.popleft()
            self._rows -= rows
            draft.state["tail"] = number + 1
            key = self.keys.chunk(number)
            # A group may hold more than the log shall: what would go at once is not written.
            if draft.values.pop(key, None) is None:
                draft.removed.append(key)

    def _remember(self, draft: _Draft) -> None:
        if self.keys.actors in draft.removed:
            self._actors.clear()
            self._definitions.pop(self.keys.weights, None)
        for actor in draft.forgotten:
            self._actors.pop(actor, None)
        self._actors |= draft.actors
        self._state |= draft.state
        definitions = (self.keys.run, self.keys.weights)
        self._definitions |= {key: value for key, value in draft.values.items() if key in definitions}


def parse(
    state: Mapping[bytes, bytes], actors: Mapping[bytes, bytes], run: bytes, weights: bytes | None
) -> StoredState:
    """Opens what the log holds besides chunks; ValueError or ValidationError when it is not what this module writes."""
    counters = {name.decode(): int(value) for name, value in state.items()}
    sequences = {}
    for actor, value in actors.items():
        incarnation, _, seq = value.decode().partition(":")
        sequences[actor.decode()] = int(incarnation), int(seq)
    kept = StoredState(msgspec.json.decode(run, type=Run), msgspec.convert(counters, LogState), sequences, weights)
    if kept.state.tail > kept.state.head:
        raise ValueError(f"its oldest chunk, {kept.state.tail}, comes after its newest")
    return kept
