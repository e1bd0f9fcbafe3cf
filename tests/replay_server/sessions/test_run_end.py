"""When a run may be replaced and when its transitions are released, as values; and the same in a replay."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.wire.messages import Ack, Batch, Chunk, Hello, LearnerReport, Open, Opened, Refused, SampleRequest, Welcome
from replay_server.durability.chunk_log import ReleaseChunks, StoreFinished, StoreRun
from replay_server.sessions.run_end import ServedRun, is_release_due, why_not_replaced
from replay_server.sessions.session import LEASE_S
from tests.replay_server.runs import make_chunk, make_report, make_run, numbers
from tests.replay_server.test_replay import Room

SERVED = ServedRun("run-1", 90_000, 153_000, 0.43, finished=False, learner="")


def report_of(*, finished: bool, progress: float = 1.0) -> LearnerReport:
    return LearnerReport("learner-L", 500, 10.0, 3, progress, math.nan, 0.5, "", 0.0, 1.0, finished, "")


# ---- the decisions ------------------------------------------------------------------------------------------------


def test_the_refusal_names_the_run_its_progress_and_the_option() -> None:
    refusal = why_not_replaced(SERVED, "run-2", fresh=False)
    for words in ("90,000 transitions of the run run-1, not of run-2", "43% of its budget", "153,000", "--fresh"):
        assert words in refusal


def test_a_restarted_server_does_not_know_the_progress() -> None:
    refusal = why_not_replaced(SERVED._replace(progress=None), "run-2", fresh=False)
    assert "(153,000 environment steps)" in refusal


def test_fresh_does_not_discard_a_run_whose_learner_is_connected() -> None:
    for size in (0, 90_000):
        served = SERVED._replace(size=size, learner="learner-7")
        for fresh in (False, True):
            assert "learner-7 is connected" in why_not_replaced(served, "run-2", fresh=fresh)


@given(st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["", "learner-7"]), st.integers(0, 3))
def test_only_a_run_that_nothing_needs_is_replaced(
    finished: bool, fresh: bool, reported: bool, learner: str, size: int
) -> None:
    served = ServedRun("a", size, 3, 0.5 if reported else None, finished, learner)
    replaced = not why_not_replaced(served, "b", fresh=fresh)
    assert replaced == (finished or (not learner and (size == 0 or fresh)))


def test_a_release_is_due_after_its_time() -> None:
    assert not is_release_due(None, 10, 1e9, 0.0), "the run is not finished"
    assert not is_release_due(100.0, 10, 159.9, 60.0)
    assert is_release_due(100.0, 10, 160.0, 60.0)
    assert is_release_due(100.0, 10, 100.0, 0.0)
    assert not is_release_due(100.0, 0, 1e9, 60.0), "there is nothing to release"


# ---- the same in a replay -----------------------------------------------------------------------------------------


@pytest.fixture
def room() -> Room:
    """A room with a finished run of 30 transitions, which are released after 60 s."""
    room = Room(make_run(limit="off"), release_after=60.0)
    room.open()
    room.fill("A", "a", 3)
    room.say("L", report_of(finished=True))
    return room


def test_actors_of_a_finished_run_get_no_credit_and_are_told_why(room: Room) -> None:
    before = room.replay.actors.sessions["a"].credit
    room.send("A", "a", 4)
    [ack] = room.advance("A")
    assert ack == Ack(1, 4, before, "")
    for seq in range(5, before + 1):
        room.send("A", "a", seq)
    room.say("A", make_report("a", 0, 0.0))
    [ack] = room.advance("A")
    assert ack == Ack(1, before, before, "a learner to open a run: the run run-1 is finished")
    assert room.status().waiting == (), "no alert: the run has ended"


def test_a_finished_run_is_released_after_its_time_and_its_status_stays(room: Room) -> None:
    room.advance("A", 59.0)
    assert room.status().size == 30
    room.advance("A", 1.0)
    status = room.status()
    assert (status.size, status.inserts, status.run) == (0, 30, room.run)
    assert status.learner == msgspec.structs.replace(report_of(finished=True), critic_loss=status.learner.critic_loss)  # type: ignore[union-attr]
    # A chunk that was on its way is released too.
    room.send("A", "a", 4)
    assert room.status().size == 10
    room.advance("A")
    assert room.status().size == 0


def test_an_unfinished_run_is_never_released(room: Room) -> None:
    room.say("L", report_of(finished=False, progress=0.5))
    room.advance("A", 1e6)
    assert room.status().size == 30


@pytest.mark.parametrize("waited_s", [1.0, 60.0], ids=["stored", "released"])
def test_the_next_run_is_opened_with_its_own_settings_and_without_the_old_transitions(
    room: Room, waited_s: float
) -> None:
    room.advance("A", waited_s)
    new = make_run("run-2", limit="off", capacity=50, min_size=1)
    assert room.open("M", new) == Opened(0, 0, 0, 0)
    assert (room.status().run, room.status().capacity, room.status().size) == (new, 50, 0)
    room.say("M", SampleRequest(1, 8))
    assert not [reply for reply in room.advance("M") if isinstance(reply, Batch)], "nothing of the old run is sampled"
    room.run = new
    room.fill("B", "b", 1)
    status = room.status()
    assert (status.inserts, status.size, status.samples) == (10, 10, 8)


def test_an_actor_of_the_finished_run_restarts_and_its_chunks_never_enter_the_next_run(room: Room) -> None:
    """Both runs are of one world, so their transitions look alike."""
    old, new = room.run, make_run("run-2", limit="off")
    room.open("M", new)
    stale = make_chunk(old, "a", 4, first=30)
    assert type(room.say("A", *stale)[0]).__name__ == "Unknown"
    # Its Hello names the old run: it hears of the new one, which makes it restart, and has no session.
    [welcome] = room.say("A", Hello("a", 1, 3, old.data_hash, old.id))
    assert isinstance(welcome, Welcome)
    assert welcome.run.id == "run-2"
    assert room.replay.actors.sessions == {}
    # A chunk that is delivered after the new worker's Hello has the incarnation and seq of the new session by chance.
    room.hello("A", "a")
    [refused] = room.say("A", *make_chunk(old, "a", 1))
    assert isinstance(refused, Refused)
    assert (room.status().size, room.status().rejected) == (0, {"run": 1})
    room.run = new
    assert room.send("A", "a", 1) == []
    assert room.status().size == 10


def test_a_finished_run_that_continues_has_its_transitions_until_they_are_released(room: Room) -> None:
    assert room.open("M") == Opened(30, 0, 30, 0)
    room.advance("A", 1e6)
    assert room.status().size == 30, "it is not finished any more"
    room.open("M")
    room.say("M", report_of(finished=True))
    room.advance("A", 60.0)
    assert room.open("N") == Opened(30, 0, 0, 0)
    credit = room.hello("A", "a", 1, 3)
    assert isinstance(credit, Welcome)
    assert credit.credit > 3


def test_fresh_discards_an_unfinished_run_once_its_learner_is_gone() -> None:
    room, new = Room(make_run(limit="off")), make_run("run-2")
    room.open()
    room.fill("A", "a", 3)
    message = Open("learner-M", new, fresh=True)
    replies = room.replay.handle(b"M", message, None, room.now)
    # The live learner is sent a message: a learner that has ended cannot be reached, and is forgotten.
    assert [(reply.peer, type(reply.message).__name__) for reply in replies] == [(b"M", "Refused"), (b"L", "Status")]
    room.replay.drop_peer(b"L")
    assert isinstance(room.say("M", Open("learner-M", new))[0], Refused)
    assert room.say("M", message) == [Opened(0, 0, 0, 0)]


def test_a_lease_that_has_ended_counts_as_gone() -> None:
    room = Room(make_run(limit="off"))
    room.open()
    room.fill("A", "a", 3)
    room.now += LEASE_S + 0.1
    assert isinstance(room.say("M", Open("learner-M", make_run("run-2"), fresh=True))[0], Opened)


def test_settings_that_are_refused_do_not_cost_the_other_run_its_transitions(room: Room) -> None:
    assert isinstance(room.open("M", make_run("run-2", error_buffer=3.0)), Refused)
    assert (room.status().size, room.status().run) == (30, room.run)


def test_the_log_is_told_of_the_end_the_release_and_the_next_run() -> None:
    room = Room(make_run(limit="off"), durability="redis", release_after=0.0)
    room.open()
    room.fill("A", "a", 1)
    room.replay.journal.take_writes()
    room.say("L", report_of(finished=True))
    room.say("L", report_of(finished=True))
    room.advance("A")
    room.open("M", make_run("run-2"))
    kinds = [type(write) for write in room.replay.journal.take_writes() if type(write).__name__ != "StoreSamples"]
    assert kinds == [StoreFinished, ReleaseChunks, ReleaseChunks, StoreRun]
    room.say("M", report_of(finished=False, progress=0.1))
    room.say("M", report_of(finished=True))
    room.open("N", make_run("run-2"))
    last = [write for write in room.replay.journal.take_writes() if isinstance(write, StoreFinished)]
    assert [write.report is not None for write in last] == [True, False]


def test_records_are_gone_from_every_kind_of_table() -> None:
    for settings in ({}, {"priority_exponent": 0.6}, {"n_step": 3}):
        room = Room(make_run(limit="off", min_size=1, **settings), release_after=0.0)
        room.open()
        room.fill("A", "a", 3)
        room.say("L", report_of(finished=True))
        room.advance("A")
        table = room.replay.table
        assert table is not None
        assert (table.size, table.limiter.inserts) == (0, 30)
        chunk, payload = make_chunk(room.run, "a", 4, first=700)
        assert isinstance(chunk, Chunk)
        table.insert(table.records(payload), chunk)
        drawn = np.frombuffer(table.sample(64), np.uint8)[: 64 * table.ring.dtype.itemsize]
        assert set(numbers(drawn.tobytes())) <= set(range(700, 710)), settings
