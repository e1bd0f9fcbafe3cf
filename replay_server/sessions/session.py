"""What the replay server knows of one connected actor, and the replies that it sends to peers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from common.wire.codec import Buffer
from common.wire.messages import ActorReport, ToPeer

MAX_WINDOW_CHUNKS = 8
"""Most chunks of one actor that are not yet durable."""

MAX_WINDOW_BYTES = 16 * 2**20
"""Most bytes of these chunks, but always one chunk: what an actor stores, and what may be in the queues on the way."""

ASSUMED_CHUNK_ROWS = 256
"""Assumed size of an actor's chunks before the first one arrives; until then it gets one chunk of credit."""

LEASE_S = 15.0
"""An actor or learner that is silent for this time counts as gone, and its unused credit is revoked."""


class Reply(NamedTuple):
    """One message to one peer, which its routing id names."""

    peer: bytes
    message: ToPeer
    payload: Buffer | None = None


@dataclass(slots=True, eq=False)
class ActorSession:
    """One actor's incarnation: which of its chunks have arrived, which are durable, which it may send."""

    actor: str
    incarnation: int
    received: int
    """Highest seq in the ring."""
    durable: int
    """Highest durable seq, which acknowledgements carry."""
    credit: int
    """Highest seq the actor may send; it never falls while the incarnation lasts."""
    peer: bytes | None = None
    """Routing id; None while the actor has not introduced itself to this life of the server."""
    last_seen_at: float = 0.0
    """Monotonic time of its last message."""
    chunk_rows: int = ASSUMED_CHUNK_ROWS
    """Size of its last chunk, assumed for the next one."""
    measured: bool = False
    """Whether a chunk has arrived; until then its size is assumed."""
    window: int = 1
    """Most chunks that it may have sent and that are not durable."""
    grant_order: int = 0
    """Number of its last grant: among equals, the actor that has waited longest comes first."""
    report: ActorReport | None = None
    restarts: int = 0
    """How often the actor's supervisor has restarted it, over all its incarnations."""
    last_fault: str = ""
    faulted_at: float = -math.inf
    """Monotonic time at which `last_fault` was first reported."""
    rejoined: bool = False
    """Whether it collected before this server first heard of it, so that its first report covers the past too."""
    owed_ack: bool = False
    gap_sent_at: float = -math.inf
    """When it was last sent a Gap."""

    def live(self, now: float) -> bool:
        """Says whether the actor's lease is valid."""
        return self.peer is not None and now - self.last_seen_at <= LEASE_S

    def measure(self, rows: int, chunk_bytes: int) -> None:
        """Stores the size of a chunk that has arrived; the next chunks are assumed to have the same size."""
        self.chunk_rows, self.measured = rows, True
        self.window = max(1, min(MAX_WINDOW_CHUNKS, MAX_WINDOW_BYTES // max(chunk_bytes, 1)))

    @property
    def outstanding(self) -> int:
        """Chunks granted and not yet received."""
        return max(self.credit - self.received, 0)

    @property
    def window_full(self) -> bool:
        """Whether the credit has reached the window's limit: no more is granted until a chunk is durable."""
        return self.credit >= self.limit

    @property
    def limit(self) -> int:
        """Highest credit its window allows."""
        return self.durable + self.window
