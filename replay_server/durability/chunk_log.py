"""The contract of a chunk log: the writes that it makes durable, in transactions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from common.run.run import Run
from common.wire.codec import Buffer
from common.wire.messages import Chunk, LearnerReport
from replay_server.durability.redis_protocol import RedisCommand

MAX_GROUP_CHUNKS = 64
"""Maximum number of chunks in one transaction."""
GROUP_BYTES = 4 * 2**20
"""A transaction is complete once its chunks have at least this size [bytes]."""

LogMark = tuple[int, ...]
"""A few counters that distinguish a log from an older state of the same log."""


class LoggedChunk(NamedTuple):
    """A chunk that is in the ring and that the log must make durable."""

    number: int
    """Counts all chunks of the run from 0, without gaps."""
    chunk: Chunk
    payload: Buffer
    inserts: int
    """Transitions ever inserted, this chunk included."""


class StoreRun(NamedTuple):
    """Asks the log to store the run's definition."""

    run: Run
    capacity: int
    """Transitions that the log must store."""
    replaces_run: bool
    """Whether to delete everything of another run first."""


class StoreWeights(NamedTuple):
    """Asks the log to store the newest weights frame."""

    version: int
    frame: bytes


class StoreSamples(NamedTuple):
    """Asks the log to store the number of transitions ever sampled."""

    samples: int


class ForgetActor(NamedTuple):
    """Asks the log to delete the sequence number of an actor that has been silent for long: their number is bounded."""

    actor: str


class StoreFinished(NamedTuple):
    """Asks the log to store that the run is finished, or that it is not."""

    report: LearnerReport | None
    """The last report of the learner; None if the run continues."""


class ReleaseChunks(NamedTuple):
    """Asks the log to delete all chunks of the run. Its counters, its weights and its last report stay."""


Write = LoggedChunk | StoreRun | StoreWeights | StoreSamples | ForgetActor | StoreFinished | ReleaseChunks


class Transaction(NamedTuple):
    """A group of writes as commands, which have the same effect however often they are executed."""

    commands: Sequence[RedisCommand]
    last_number: int
    """Number of the newest chunk in it; -1 without chunks."""
    before: LogMark = ()
    """The log's mark before the transaction is first executed."""
    after: LogMark = ()
    """The log's mark afterwards: found instead of `before` if the transaction was executed and its answer was lost."""


class ChunkLog(Protocol):
    """What the committer writes to: Redis, or a dict in tests."""

    def prepare(self, writes: Sequence[Write]) -> Transaction:
        """Returns the transaction for a group of writes; called once for each group, in order."""

    def execute(self, transaction: Transaction) -> None:
        """Makes a transaction durable, all of it or nothing; PeerError when its outcome is unknown."""
