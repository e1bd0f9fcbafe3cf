"""What the replay tells the outside to do: replies to send, and writes for the chunk log."""

from __future__ import annotations

from typing import NamedTuple

from common.run.run import Run
from common.wire.codec import Buffer
from common.wire.messages import Chunk, ToPeer


class Reply(NamedTuple):
    """One message to one peer, named by its routing id."""

    peer: bytes
    message: ToPeer
    payload: Buffer | None = None


class StoreChunk(NamedTuple):
    """Asks for one chunk to be made durable; `number` counts all chunks of the run from 0, without holes."""

    number: int
    chunk: Chunk
    payload: Buffer
    inserts: int
    """Transitions ever inserted, this chunk included."""


class StoreRun(NamedTuple):
    """Asks for the run's definition to be kept; `replaces_run` says that all of another run is to go first."""

    run: Run
    capacity: int
    """Transitions the log shall hold."""
    replaces_run: bool


class StoreWeights(NamedTuple):
    """Asks for the newest weights frame to be kept."""

    version: int
    frame: bytes


class StoreSamples(NamedTuple):
    """Asks for the count of transitions ever sampled to be kept."""

    samples: int


class ForgetActor(NamedTuple):
    """Asks for an actor's sequence number to be dropped: it has not been seen for long and others need the place."""

    actor: str


Write = StoreChunk | StoreRun | StoreWeights | StoreSamples | ForgetActor
