"""The session of one actor at the replay server, and the type of replies to peers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from common.wire.codec import Buffer
from common.wire.messages import ActorReport, ToPeer

MAX_WINDOW_CHUNKS = 8
"""Maximum number of chunks of one actor that are not yet durable."""

MAX_WINDOW_BYTES = 16 * 2**20
"""Maximum size of these chunks [bytes], but at least one chunk. Bounds the actor's outbox and the queues in between."""

ASSUMED_CHUNK_ROWS = 256
"""Assumed size of an actor's chunks before its first chunk arrives; until then the actor gets credit for one chunk."""

LEASE_S = 15.0
"""An actor or learner that is silent for this time counts as gone, and its unused credit is revoked."""


class Reply(NamedTuple):
    """One message to the peer with this ZeroMQ routing id."""

    peer: bytes
    message: ToPeer
    payload: Buffer | None = None


@dataclass(slots=True, eq=False)
class ActorSession:
    """One actor's incarnation: which chunks have arrived, which are durable, and which the actor may send."""

    actor: str
    incarnation: int
    received: int
    """Highest seq in the ring."""
    durable: int
    """Highest durable seq, which acknowledgements carry."""
    credit: int
    """Highest seq the actor may send; it never falls while the incarnation lasts."""
    peer: bytes | None = None
    """Routing id; None until the actor has sent Hello to this process."""
    last_seen_at: float = 0.0
    """Monotonic time of the actor's last message."""
    chunk_rows: int = ASSUMED_CHUNK_ROWS
    """Size of the actor's last chunk, assumed for its next chunk."""
    measured: bool = False
    """Whether a chunk has arrived, so that its size is known."""
    window: int = 1
    """Maximum number of chunks that the actor may have sent and that are not durable."""
    grant_order: int = 0
    """Number of the actor's last grant. Among equals, the smallest number is served first."""
    report: ActorReport | None = None
    restarts: int = 0
    """How often the actor's supervisor has restarted it, over all its incarnations."""
    last_fault: str = ""
    faulted_at: float = -math.inf
    """Monotonic time at which `last_fault` was first reported."""
    rejoined: bool = False
    """Whether the actor collected before its Hello to this process, so that its first report includes old episodes."""
    owed_ack: bool = False
    """Whether the next iteration of the server must send the actor an Ack."""
    gap_sent_at: float = -math.inf
    """Monotonic time of the last Gap sent to the actor."""

    def live(self, now: float) -> bool:
        """Returns whether the actor's lease is valid."""
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
        """Whether the credit has reached the window's limit, so that none is granted until a chunk is durable."""
        return self.credit >= self.limit

    @property
    def limit(self) -> int:
        """Highest credit that the window allows."""
        return self.durable + self.window
