"""Credit: how many chunks each actor may send, so that chunks on their way never exceed the room for them."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from replay_server.sessions.session import ActorSession


def grant(sessions: Iterable[ActorSession], room_rows: int, grant_order: int, *, max_rows: int) -> int:
    """Raises the credit of live sessions within `room_rows`, fewest outstanding chunks first.

    Credit that is already granted counts as used room. An actor whose chunk does not fit yet is not skipped in favour
    of smaller chunks, or it would starve. One whose chunks can never fit (more than `max_rows`) does not block the
    others.

    grant_order: number of the last grant before this call. Returns the number of the last one now.
    """
    candidates: list[tuple[int, int, int, ActorSession]] = []
    for index, session in enumerate(sessions):
        room_rows -= session.outstanding * session.chunk_rows
        if session.credit < session.limit and session.chunk_rows <= max_rows:
            candidates.append((session.outstanding, session.grant_order, index, session))
    heapq.heapify(candidates)
    while candidates:
        _, _, index, session = candidates[0]
        if session.chunk_rows > room_rows:
            break
        grant_order += 1
        room_rows -= session.chunk_rows
        session.credit = max(session.credit, session.received) + 1
        session.grant_order, session.owed_ack = grant_order, True
        if session.credit < session.limit:
            heapq.heapreplace(candidates, (session.outstanding, grant_order, index, session))
        else:
            heapq.heappop(candidates)
    return grant_order
