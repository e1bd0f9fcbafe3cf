"""What actors may have on its way is bounded in chunks, and in bytes where chunks are large."""

from __future__ import annotations

import pytest

from replay_server.credit import WINDOW_BYTES, WINDOW_CHUNKS, Session, grant
from replay_server.journal import MAX_UNCOMMITTED_BYTES, Journal

RECORD_BYTES = 100_000
"""Of a world with many agents."""


def make_session(name: str, rows: int, record_bytes: int = RECORD_BYTES) -> Session:
    session = Session(name, 1, received=1, durable=1, credit=1, peer=name.encode())
    session.measure(rows, rows * record_bytes)
    return session


@pytest.mark.parametrize(
    ("rows", "record_bytes", "window"),
    [(256, 532, WINDOW_CHUNKS), (40, RECORD_BYTES, 4), (256, RECORD_BYTES, 1), (600, RECORD_BYTES, 1)],
)
def test_a_window_has_as_many_chunks_as_fit_its_bytes_but_always_one(rows: int, record_bytes: int, window: int) -> None:
    session = make_session("a", rows, record_bytes)
    assert session.limit - session.durable == window
    assert window == 1 or window * rows * record_bytes <= WINDOW_BYTES


def test_until_its_first_chunk_has_come_an_actor_may_send_one() -> None:
    assert Session("a", 1, received=0, durable=0, credit=0).limit == 1


@pytest.mark.parametrize("kept", [True, False], ids=["with a log", "level ram"])
def test_all_actors_together_have_no_more_on_their_way_than_the_server_may_take(kept: bool) -> None:
    sessions = [make_session(f"a{i}", 40) for i in range(100)]
    room = Journal(kept=kept).room(RECORD_BYTES)
    grant(sessions, room, 0, largest_rows=10**9)
    outstanding = sum(session.outstanding * session.chunk_rows * RECORD_BYTES for session in sessions)
    assert 0.9 * MAX_UNCOMMITTED_BYTES < outstanding <= MAX_UNCOMMITTED_BYTES
