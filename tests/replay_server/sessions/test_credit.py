"""What actors may have on its way is bounded in chunks, and in bytes where chunks are large."""

from __future__ import annotations

import msgspec
import pytest

from common.spec import Box, joint_spec
from common.transitions import transition_dtype
from common.wire.messages import Hello, Open, Welcome
from replay_server.config import ReplayConfig
from replay_server.durability.journal import MAX_UNCOMMITTED_BYTES, Journal
from replay_server.replay import Replay
from replay_server.sessions.credit import grant
from replay_server.sessions.session import ASSUMED_CHUNK_ROWS, MAX_WINDOW_BYTES, MAX_WINDOW_CHUNKS, ActorSession
from tests.replay_server.runs import make_run

RECORD_BYTES = 100_000
"""Of a world with many agents."""


def make_session(name: str, rows: int, record_bytes: int = RECORD_BYTES) -> ActorSession:
    session = ActorSession(name, 1, received=1, durable=1, credit=1, peer=name.encode())
    session.measure(rows, rows * record_bytes)
    return session


@pytest.mark.parametrize(
    ("rows", "record_bytes", "window"),
    [(256, 532, MAX_WINDOW_CHUNKS), (40, RECORD_BYTES, 4), (256, RECORD_BYTES, 1), (600, RECORD_BYTES, 1)],
)
def test_a_window_has_as_many_chunks_as_fit_its_bytes_but_always_one(rows: int, record_bytes: int, window: int) -> None:
    session = make_session("a", rows, record_bytes)
    assert session.limit - session.durable == window
    assert window == 1 or window * rows * record_bytes <= MAX_WINDOW_BYTES


def test_until_its_first_chunk_has_come_an_actor_may_send_one() -> None:
    assert ActorSession("a", 1, received=0, durable=0, credit=0).limit == 1


@pytest.mark.parametrize("kept", [True, False], ids=["with a log", "level ram"])
def test_all_actors_together_have_no_more_on_their_way_than_the_server_may_take(kept: bool) -> None:
    sessions = [make_session(f"a{i}", 40) for i in range(100)]
    room = Journal(has_log=kept).room(RECORD_BYTES)
    grant(sessions, room, 0, max_rows=10**9)
    outstanding = sum(session.outstanding * session.chunk_rows * RECORD_BYTES for session in sessions)
    assert 0.9 * MAX_UNCOMMITTED_BYTES < outstanding <= MAX_UNCOMMITTED_BYTES


def test_an_actor_of_a_world_with_huge_records_may_send_its_first_chunk() -> None:
    joint = joint_spec([("red", "red", 100_000, (Box((-1.0,), (1.0,)),))])
    assert ASSUMED_CHUNK_ROWS * transition_dtype(joint).itemsize > MAX_UNCOMMITTED_BYTES
    replay = Replay(ReplayConfig(durability="ram"), 0.0)
    replay.handle(b"L", Open("learner", msgspec.structs.replace(make_run(capacity=100), joint=joint)), None, 0.0)
    (reply,) = replay.handle(b"A", Hello("a", 0, 0, ""), None, 0.0)
    assert isinstance(reply.message, Welcome)
    assert reply.message.credit == 1
