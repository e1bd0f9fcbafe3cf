"""A session: what the replay server knows of one connected actor."""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.wire.messages import ActorReport

WINDOW_CHUNKS = 8
"""Most chunks of one actor that are not yet durable."""

WINDOW_BYTES = 16 * 2**20
"""Most bytes of them, but always one chunk: what an actor keeps, and what may lie in the queues on its way."""

ASSUMED_CHUNK_ROWS = 256
"""Size of an actor's chunks before the first one has come; until then it gets one chunk of credit."""

LEASE_S = 15.0
"""An actor or learner that has said nothing for so long counts as gone, and its unused credit is taken back."""


@dataclass(slots=True, eq=False)
class ActorSession:
    """One actor's incarnation: which of its chunks have come, which are durable, which may come next."""

    actor: str
    incarnation: int
    received: int
    """Highest seq in the ring."""
    durable: int
    """Highest seq at the server's durability: what acknowledgements tell."""
    credit: int
    """Highest seq the actor may send; it never falls while the incarnation lasts."""
    peer: bytes | None = None
    """Routing id; None while the actor has not introduced itself to this life of the server."""
    seen: float = 0.0
    """Monotonic time of its last message."""
    chunk_rows: int = ASSUMED_CHUNK_ROWS
    """Size of its last chunk: what the next one is counted as."""
    measured: bool = False
    """Whether a chunk has come; until then its size is assumed."""
    window: int = 1
    """Chunks it may have sent that are not durable."""
    turn: int = 0
    """Orders the grants: the actor that has waited longest comes first among equals."""
    report: ActorReport | None = None
    restarts: int = 0
    """How often the actor's supervisor has started it again, over its incarnations."""
    last_fault: str = ""
    faulted_at: float = -math.inf
    """Monotonic time at which `last_fault` was first heard."""
    rejoined: bool = False
    """Whether it had collected before this server first heard of it: its first report tells of the past too."""
    owed_ack: bool = False
    gap_told: float = -math.inf
    """When it was last asked to go back."""

    def live(self, now: float) -> bool:
        """Says whether the actor holds its lease."""
        return self.peer is not None and now - self.seen <= LEASE_S

    def measure(self, rows: int, chunk_bytes: int) -> None:
        """Takes the size of a chunk that has come for that of the next ones."""
        self.chunk_rows, self.measured = rows, True
        self.window = max(1, min(WINDOW_CHUNKS, WINDOW_BYTES // max(chunk_bytes, 1)))

    @property
    def outstanding(self) -> int:
        """Chunks granted and not yet received."""
        return max(self.credit - self.received, 0)

    @property
    def window_full(self) -> bool:
        """Whether it has sent all it may without an acknowledgement."""
        return self.credit >= self.limit

    @property
    def limit(self) -> int:
        """Highest credit its window allows."""
        return self.durable + self.window
