"""Credit: which actors may send how many chunks, so that what is on its way never exceeds the room there is."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from replay_server.sessions.session import ActorSession


def grant(sessions: Iterable[ActorSession], room_rows: int, turn: int, *, largest_rows: int) -> int:
    """Raises the credit of live sessions within `room_rows`, fewest outstanding chunks first; returns the next turn.

    Room already promised counts as used. An actor whose chunk does not fit yet is not passed over for smaller chunks,
    or it would starve; one whose chunks can never fit (more than `largest_rows`) does not stand in the others' way.
    """
    asking: list[tuple[int, int, int, ActorSession]] = []
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
