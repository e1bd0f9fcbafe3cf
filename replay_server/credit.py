"""Credit: which actors may send how many chunks, so that what is on its way never exceeds the room there is."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass

from common.messages import ActorReport

WINDOW_CHUNKS = 8
"""Most chunks of one actor that are not yet durable."""
WINDOW_BYTES = 16 * 2**20
"""Most bytes of them, but always one chunk: what an actor keeps, and what may lie in the queues on its way."""
ASSUMED_CHUNK_ROWS = 256
"""Size of an actor's chunks before the first one has come; until then it gets one chunk of credit."""
LEASE_S = 15.0
"""An actor or learner that has said nothing for so long counts as gone, and its unused credit is taken back."""


@dataclass(slots=True, eq=False)
class Session:
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


def grant(sessions: Iterable[Session], room_rows: int, turn: int, *, largest_rows: int) -> int:
    """Raises the credit of live sessions within `room_rows`, fewest outstanding chunks first; returns the next turn.

    Room already promised counts as used. An actor whose chunk does not fit yet is not passed over for smaller chunks,
    or it would starve; one whose chunks can never fit (more than `largest_rows`) does not stand in the others' way.
    """
    asking: list[tuple[int, int, int, Session]] = []
    for place, session in enumerate(sessions):
        room_rows -= session.outstanding * session.chunk_rows
        if session.credit < session.limit and session.chunk_rows <= largest_rows:
            asking.append((session.outstanding, session.turn, place, session))
    heapq.heapify(asking)
    while asking:
        _, _, place, session = asking[0]
        if session.chunk_rows > room_rows:
            break
        turn += 1
        room_rows -= session.chunk_rows
        session.credit, session.turn, session.owed_ack = max(session.credit, session.received) + 1, turn, True
        if session.credit < session.limit:
            heapq.heapreplace(asking, (session.outstanding, turn, place, session))
        else:
            heapq.heappop(asking)
    return turn
