"""The pure core, one promise at a time; random histories stand in test_delivery.py."""

from __future__ import annotations

import math

import msgspec
import pytest

from actor_node.collection.rollout_worker import check_chunk_size
from common.errors import ConfigError
from common.run.run import Run
from common.wire.messages import (
    Ack,
    Batch,
    Bye,
    Fenced,
    FromPeer,
    Gap,
    Held,
    Hello,
    LearnerReport,
    NotReady,
    Open,
    Opened,
    PutWeights,
    Refused,
    SampleRequest,
    Status,
    StatusRequest,
    ToPeer,
    Unknown,
    Welcome,
)
from replay_server.config import ReplayConfig
from replay_server.durability.chunk_log import LoggedChunk, StoreSamples, StoreWeights
from replay_server.replay import Replay
from replay_server.sessions.learners import MAX_REQUESTS
from replay_server.sessions.session import LEASE_S, MAX_WINDOW_CHUNKS
from tests.replay_server.runs import make_chunk, make_report, make_run, make_weights, numbers


class Room:
    """A replay with a clock of the test's own; peers are named by letters."""

    def __init__(self, run: Run | None = None, **settings: object) -> None:
        self.now = 100.0
        self.replay = Replay(ReplayConfig(**{"durability": "ram", **settings}), self.now)  # type: ignore[arg-type]
        self.run = run or make_run()

    def say(self, peer: str, message: FromPeer, payload: bytes | None = None) -> list[ToPeer]:
        """Has a peer say something and returns what it hears at once."""
        return self._heard(peer, self.replay.handle(peer.encode(), message, payload, self.now))

    def advance(self, peer: str, seconds: float = 0.0) -> list[ToPeer]:
        """Lets time pass, turns once, and returns what a peer hears."""
        self.now += seconds
        return self._heard(peer, self.replay.advance(self.now))

    def open(self, peer: str = "L", run: Run | None = None) -> ToPeer:
        return self.say(peer, Open(f"learner-{peer}", run or self.run))[0]

    def hello(self, peer: str, actor: str, incarnation: int = 0, acked: int = 0) -> ToPeer:
        return self.say(peer, Hello(actor, incarnation, acked, ""))[0]

    def send(self, peer: str, actor: str, seq: int, count: int = 10, **details: int) -> list[ToPeer]:
        return self.say(peer, *make_chunk(self.run, actor, seq, count, **details))

    def fill(self, peer: str, actor: str, chunks: int, count: int = 10) -> None:
        """Introduces an actor and has it send chunks as its credit comes."""
        self.hello(peer, actor)
        for seq in range(1, chunks + 1):
            assert self.send(peer, actor, seq, count) == []
            self.advance(peer)

    def status(self) -> Status:
        status = self.say("S", StatusRequest())[0]
        assert isinstance(status, Status)
        return status

    @staticmethod
    def _heard(peer: str, replies: list) -> list[ToPeer]:  # type: ignore[type-arg]
        return [reply.message for reply in replies if reply.peer == peer.encode()]


@pytest.fixture
def room() -> Room:
    """A room in which a learner has opened the run."""
    room = Room()
    room.open()
    return room


# ---- sessions -----------------------------------------------------------------------------------------------------


def test_actors_wait_for_the_first_learner() -> None:
    room = Room()
    assert isinstance(room.hello("A", "a"), NotReady)
    assert room.send("A", "a", 1) == [Unknown()]
    assert isinstance(room.open(), Opened)
    assert room.hello("A", "a") == Welcome(room.run, 1, 0, 1)


def test_a_new_worker_fences_the_old_one(room: Room) -> None:
    room.fill("A", "a", 2)
    replies = room.replay.handle(b"B", Hello("a", 0, 0, ""), None, room.now)
    assert [(reply.peer, type(reply.message)) for reply in replies] == [(b"A", Fenced), (b"B", Welcome)]
    assert room.send("A", "a", 3) == [Fenced(2)]
    assert room.send("B", "a", 1, incarnation=2) == []


def test_a_question_asked_twice_before_its_answer_gets_the_same_one(room: Room) -> None:
    assert room.hello("A", "a") == room.hello("A", "a") == Welcome(room.run, 1, 0, 1)


def test_a_server_that_forgot_takes_the_actors_word(room: Room) -> None:
    assert room.send("A", "a", 8, incarnation=5) == [Unknown()]
    assert room.hello("A", "a", incarnation=5, acked=7) == Welcome(room.run, 5, 7, 8)
    assert room.send("A", "a", 8, incarnation=5) == []
    assert room.advance("A")[0].stored == 8  # type: ignore[union-attr]


def test_an_older_incarnation_is_fenced(room: Room) -> None:
    room.hello("A", "a", incarnation=5)
    assert room.hello("B", "a", incarnation=4) == Fenced(5)


def test_a_reconnected_actor_is_known_under_its_new_routing_id(room: Room) -> None:
    room.fill("A", "a", 1)
    assert room.send("B", "a", 2) == []
    assert isinstance(room.advance("B")[0], Ack)


def test_one_that_said_goodbye_must_introduce_itself_and_goes_on(room: Room) -> None:
    room.fill("A", "a", 2)
    room.say("A", Bye("a", 1))
    assert room.send("A", "a", 3) == [Unknown()]
    assert room.hello("A", "a", incarnation=1, acked=2).stored == 2  # type: ignore[union-attr]


def test_an_actor_of_another_world_hears_of_this_run_and_brings_nothing(room: Room) -> None:
    other = make_run(world={"size": 2.0})
    assert room.say("A", Hello("a", 3, 7, other.data_hash)) == [Welcome(room.run, 3, 7, 7)]
    assert room.send("A", "a", 8, incarnation=3) == [Unknown()]
    room.hello("A", "a")
    chunk, payload = make_chunk(other, "a", 1)
    assert isinstance(room.say("A", chunk, payload)[0], Refused)
    assert room.status().rejected == {"world": 1}


# ---- chunks -------------------------------------------------------------------------------------------------------


def test_a_duplicate_is_acknowledged_again_and_not_stored(room: Room) -> None:
    room.fill("A", "a", 2)
    assert room.send("A", "a", 1) == []
    assert [ack.stored for ack in room.advance("A") if isinstance(ack, Ack)] == [2]
    assert (room.status().inserts, room.status().duplicate_chunks) == (20, 1)


def test_a_hole_is_told_once_until_the_next_seq_comes(room: Room) -> None:
    room.fill("A", "a", 1)
    assert room.send("A", "a", 3) == [Gap(1, 1)]
    assert room.send("A", "a", 4) == []
    room.now += 1.0
    assert room.send("A", "a", 4) == [Gap(1, 1)]
    assert room.send("A", "a", 2) == []
    assert room.send("A", "a", 4) == [Gap(1, 2)]


def test_a_damaged_chunk_is_asked_for_again(room: Room) -> None:
    room.hello("A", "a")
    chunk, payload = make_chunk(room.run, "a", 1)
    assert room.say("A", chunk, b"\1" + payload[1:]) == [Gap(1, 0)]
    assert room.say("A", chunk, payload) == []
    assert (room.status().inserts, room.status().rejected) == (10, {"checksum": 1})


@pytest.mark.parametrize("payload", [None, b"", b"short"])
def test_a_chunk_of_the_wrong_size_is_refused(room: Room, payload: bytes | None) -> None:
    room.hello("A", "a")
    assert isinstance(room.say("A", make_chunk(room.run, "a", 1)[0], payload)[0], Refused)


def test_a_chunk_beyond_the_credit_is_not_taken(room: Room) -> None:
    room.hello("A", "a")
    room.send("A", "a", 1)
    assert room.send("A", "a", 2) == []
    assert (room.status().inserts, room.status().rejected) == (10, {"credit": 1})


def test_acknowledgements_of_a_turn_are_one(room: Room) -> None:
    room.fill("A", "a", 1)
    room.send("A", "a", 2)
    room.send("A", "a", 3)
    assert [ack.stored for ack in room.advance("A")] == [3]  # type: ignore[union-attr]
    assert room.advance("A") == []


# ---- durability ---------------------------------------------------------------------------------------------------


def test_with_a_log_only_what_it_holds_is_acknowledged() -> None:
    room = Room(durability="redis")
    room.open()
    room.hello("A", "a")
    room.send("A", "a", 1)
    room.advance("A")
    room.send("A", "a", 2)
    stored = [write.number for write in room.replay.journal.take_writes() if isinstance(write, LoggedChunk)]
    assert stored == [0, 1]
    assert room.status().unacknowledged_chunks == 2
    room.replay.journal.mark_durable(0)
    assert [ack.stored for ack in room.advance("A")] == [1]  # type: ignore[union-attr]
    # A chunk that is in the ring but not durable is a duplicate, and still not acknowledged.
    room.send("A", "a", 2)
    assert [ack.stored for ack in room.advance("A")] == [1]  # type: ignore[union-attr]
    room.replay.journal.mark_durable(1)
    assert [ack.stored for ack in room.advance("A")] == [2]  # type: ignore[union-attr]


def test_while_the_log_fails_credit_stops_and_says_why() -> None:
    room = Room(durability="redis")
    room.open()
    room.hello("A", "a")
    room.replay.journal.error = "connection refused"
    room.send("A", "a", 1)
    room.advance("A")
    room.say("A", make_report("a", 0, 0.0))
    ack = room.advance("A")[0]
    assert isinstance(ack, Ack)
    assert (ack.stored, ack.credit, ack.reason) == (0, 1, "Redis: connection refused")
    assert room.status().waiting[0].startswith("actors waiting for Redis: connection refused")
    assert room.status().last_error == "connection refused"
    room.replay.journal.error = ""
    room.replay.journal.mark_durable(0)
    assert [(ack.stored, ack.credit > 1) for ack in room.advance("A")] == [(1, True)]  # type: ignore[union-attr]


def test_unacknowledged_chunks_are_bounded_by_the_window() -> None:
    room = Room(make_run(limit="off"), durability="redis")
    room.open()
    room.hello("A", "a")
    for seq in range(1, 30):
        room.send("A", "a", seq)
        room.advance("A")
    status = room.status()
    assert status.unacknowledged_chunks == MAX_WINDOW_CHUNKS
    assert status.waiting[0].startswith("actors waiting for Redis to commit the chunks already sent")


def test_samples_are_kept_each_second_and_at_the_end() -> None:
    room = Room(durability="redis")
    room.open()
    room.fill("A", "a", 1)
    room.send("A", "a", 2)
    room.say("L", SampleRequest(1, 8))
    room.advance("L", 1.0)
    room.advance("L", 1.0)
    room.replay.drain()
    kept = [write for write in room.replay.journal.take_writes() if isinstance(write, StoreSamples)]
    assert kept == [StoreSamples(8)]


# ---- credit -------------------------------------------------------------------------------------------------------


def credits_of(room: Room, *actors: str) -> list[int]:
    return [room.replay.actors.sessions[actor].outstanding for actor in actors]


def test_what_is_granted_never_exceeds_the_room(room: Room) -> None:
    for letter in "ABCDEF":
        room.fill(letter, letter.lower(), 1)
    sessions = room.replay.actors.sessions.values()
    assert room.replay.table
    for _ in range(20):
        promised = sum(session.outstanding * session.chunk_rows for session in sessions)
        assert promised <= room.replay.table.limiter.room(room.replay.table.size)
        sender = max(sessions, key=lambda session: session.outstanding)
        if not sender.outstanding:
            break
        room.send(sender.actor.upper(), sender.actor, sender.received + 1)
        room.advance("A")
    assert room.status().waiting[0].startswith("actors waiting for the learner: ")


def test_credit_is_shared_fairly(room: Room) -> None:
    for letter in "ABC":
        room.hello(letter, letter.lower())
    for letter in "ABC":
        room.send(letter, letter.lower(), 1, 4)
    room.advance("A")
    assert sum(credits_of(room, "a", "b", "c")) > 3
    outstanding = credits_of(room, "a", "b", "c")
    assert max(outstanding) - min(outstanding) <= 1


def test_scarce_credit_goes_round() -> None:
    room = Room(make_run(min_size=1, error_buffer=20.0))
    room.open()
    received = dict.fromkeys("abcd", 0)
    for letter in received:
        room.hello(letter.upper(), letter)
    for request in range(400):
        room.say("L", SampleRequest(request, 8))
        room.advance("L")
        for letter, session in room.replay.actors.sessions.items():
            while session.outstanding:
                room.send(letter.upper(), letter, session.received + 1, 4)
                received[letter] += 1
    assert min(received.values()) > 90
    assert max(received.values()) - min(received.values()) <= 2


def test_a_lost_actors_credit_is_taken_back() -> None:
    room = Room(make_run(min_size=1, error_buffer=20.0))
    room.open()
    room.hello("A", "a")
    room.send("A", "a", 1, 5)
    room.hello("B", "b")
    room.advance("B")
    assert credits_of(room, "a", "b") == [0, 0]
    room.say("L", SampleRequest(1, 8))
    room.advance("L")
    assert credits_of(room, "a", "b") == [0, 1]
    room.now += LEASE_S + 1
    room.say("A", make_report("a", 0, 0.0))
    room.advance("A")
    assert credits_of(room, "a")[0] > 0
    # It comes back after all and uses what it was once promised.
    assert room.send("B", "b", 1, 5) == []
    assert room.replay.actors.sessions["b"].received == 1


def test_chunks_that_never_fit_are_told_and_stand_in_nobodys_way() -> None:
    room = Room(make_run(min_size=1, error_buffer=40.0))
    room.open()
    room.hello("A", "a")
    room.hello("B", "b")
    room.send("A", "a", 1, 30)
    room.send("B", "b", 1, 2)
    room.say("A", make_report("a", 0, 0.0))
    for request in range(20):
        room.say("L", SampleRequest(request, 8))
        acks = [ack for ack in room.advance("A") if isinstance(ack, Ack)]
        if request == 0:
            assert "chunks of 30 transitions need at least 60; it is 40" in acks[0].reason
    assert credits_of(room, "a")[0] == 0
    assert credits_of(room, "b")[0] > 0


def test_an_ending_server_grants_nothing(room: Room) -> None:
    room.fill("A", "a", 1)
    before = credits_of(room, "a")
    room.replay.drain()
    room.send("A", "a", 2)
    ack = room.advance("A")[0]
    assert credits_of(room, "a")[0] == before[0] - 1
    assert isinstance(ack, Ack)


# ---- learners -----------------------------------------------------------------------------------------------------


def test_a_run_is_defined_once(room: Room) -> None:
    room.fill("A", "a", 1)
    assert room.open("M") == Opened(10, 0, 10, 0)
    refused = room.open("N", make_run("run-2"))
    assert isinstance(refused, Refused)
    assert "10 transitions of the run run-1, not of run-2" in refused.reason
    assert "learner-L is connected" in refused.reason
    assert "--fresh" in refused.reason


def test_an_empty_replay_takes_another_run(room: Room) -> None:
    room.hello("A", "a")
    assert isinstance(room.open("M", make_run("run-2")), Refused), "the learner of the first run is connected"
    room.now += LEASE_S + 1.0
    assert isinstance(room.open("M", make_run("run-2")), Opened)
    assert room.say("L", SampleRequest(1, 8)) == [Unknown()]
    assert room.hello("A", "a").run.id == "run-2"  # type: ignore[union-attr]


def test_a_resumed_run_may_change_its_settings(room: Room) -> None:
    room.fill("A", "a", 3)
    assert isinstance(room.open("M", make_run(capacity=25, samples_per_insert=4.0)), Opened)
    status = room.status()
    assert (status.size, status.capacity, status.inserts, status.target_samples_per_insert) == (25, 25, 30, 4.0)


def test_a_run_that_changed_its_world_is_refused(room: Room) -> None:
    room.fill("A", "a", 1)
    assert isinstance(room.open("M", make_run(world={"size": 2.0})), Refused)


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (make_run(error_buffer=3.0), "would deadlock"),
        (make_run(capacity=2**31), "choose at most"),
    ],
)
def test_a_run_that_cannot_be_served_is_refused(run: Run, reason: str) -> None:
    room = Room()
    refused = room.open(run=run)
    assert isinstance(refused, Refused)
    assert reason in refused.reason
    assert isinstance(room.hello("A", "a"), NotReady)


def test_the_servers_own_settings_come_before_the_runs() -> None:
    room = Room(capacity=50, samples_per_insert=3.0)
    room.open()
    assert (room.status().capacity, room.status().target_samples_per_insert) == (50, 3.0)


def test_a_batch_comes_once_there_is_enough(room: Room) -> None:
    room.hello("A", "a")
    room.say("L", SampleRequest(1, 8))
    assert room.advance("L") == []
    (held,) = room.advance("L", 1.0)
    assert held == Held(1, 0, "actors: 0 of 20 transitions of the warm-up")
    assert room.advance("L", 0.5) == []
    assert len(room.advance("L", 0.5)) == 1
    room.send("A", "a", 1)
    assert room.advance("L") == []
    room.send("A", "a", 2, first=10)
    replies = room.replay.advance(room.now)
    (batch,) = [reply for reply in replies if isinstance(reply.message, Batch)]
    assert batch.message == Batch(1, 8, 20, 20)
    assert batch.payload is not None
    assert set(numbers(batch.payload)) <= set(range(20))


def test_the_learner_waits_at_the_edge_of_the_band(room: Room) -> None:
    room.fill("A", "a", 2)
    for request in range(40):
        room.say("L", SampleRequest(request, 8))
    served = [batch for batch in room.advance("L") if isinstance(batch, Batch)]
    assert room.replay.table
    limiter = room.replay.table.limiter
    assert -limiter.half_width <= limiter.error < -limiter.half_width + 8
    assert len(served) * 8 == limiter.samples
    held = room.advance("L", 1.0)
    assert len(held) == 40 - len(served)
    assert held[0].reason.startswith("actors: ")  # type: ignore[union-attr]
    assert "keep the ratio" in held[0].reason  # type: ignore[union-attr]
    assert room.status().waiting == (f"learner waiting for {held[0].reason} (1 s)",)  # type: ignore[union-attr]


def test_requests_of_one_learner_are_bounded(room: Room) -> None:
    for request in range(MAX_REQUESTS):
        assert room.say("L", SampleRequest(request, 8)) == []
    assert isinstance(room.say("L", SampleRequest(99, 8))[0], Refused)


def test_a_learner_that_opens_again_drops_its_old_requests(room: Room) -> None:
    room.say("L", SampleRequest(1, 8))
    room.say("M", Open("learner-L", room.run))
    room.say("M", SampleRequest(2, 8))
    room.fill("A", "a", 2)
    assert [learner.peer for learner, _ in room.replay.learners.waiting()] == []
    assert room.say("L", SampleRequest(3, 8)) == [Unknown()]


def test_learners_take_turns(room: Room) -> None:
    room.open("M")
    for request in range(10):
        room.say("L", SampleRequest(request, 8))
        room.say("M", SampleRequest(request, 8))
    room.fill("A", "a", 1)
    room.send("A", "a", 2)
    replies = room.replay.advance(room.now)
    served = [reply.peer for reply in replies if isinstance(reply.message, Batch)]
    assert abs(served.count(b"L") - served.count(b"M")) <= 1


def test_a_batch_that_never_fits_is_refused() -> None:
    room = Room(make_run(error_buffer=20.0))
    room.open()
    assert isinstance(room.say("L", SampleRequest(1, 100))[0], Refused)


@pytest.mark.parametrize("message", [SampleRequest(1, 8), PutWeights(1), make_report("x", 0, 0.0)])
def test_strangers_are_asked_to_introduce_themselves(room: Room, message: FromPeer) -> None:
    assert room.say("X", message, b"") == [Unknown()]


# ---- weights ------------------------------------------------------------------------------------------------------


def test_the_newest_weights_come_with_the_welcome_and_are_kept() -> None:
    room = Room(durability="redis")
    room.open()
    for version in (2, 3, 1):
        assert room.say("L", PutWeights(version), make_weights(room.run, version)) == []
    replies = room.replay.handle(b"A", Hello("a", 0, 0, ""), None, room.now)
    assert replies[0].payload == make_weights(room.run, 3)
    kept = [write.version for write in room.replay.journal.take_writes() if isinstance(write, StoreWeights)]
    assert kept == [2, 3]
    assert room.open("M").weights_version == 3  # type: ignore[union-attr]


def test_damaged_and_foreign_weights_are_refused(room: Room) -> None:
    frame = make_weights(room.run, 1)
    assert isinstance(room.say("L", PutWeights(1), frame[:-1])[0], Refused)
    assert isinstance(room.say("L", PutWeights(2), frame)[0], Refused)
    assert isinstance(room.say("L", PutWeights(1), make_weights(make_run("run-2"), 1))[0], Refused)
    assert room.replay.weights.frame is None


# ---- status -------------------------------------------------------------------------------------------------------


def test_the_status_before_any_run() -> None:
    status = Room().status()
    assert status.run is None
    assert math.isnan(status.return_mean)
    assert status.waiting == ("actors waiting for a learner: none has opened a run yet",)


def test_the_status_tells_of_returns_lag_and_rates(room: Room) -> None:
    room.say("L", PutWeights(5), make_weights(room.run, 5))
    room.hello("A", "a")
    room.say("A", make_report("a", 10, -100.0))
    room.say("A", make_report("a", 30, -200.0))
    for seq in (1, 2):
        room.send("A", "a", seq)
        room.advance("A", 1.0)
    status = room.status()
    assert (status.episodes, status.return_mean, status.return_means) == (30, -200 / 30, (-50 / 30, -150 / 30))
    assert status.policy_lag == 5.0
    assert status.inserts_per_s == pytest.approx(10.0)
    assert [(actor.actor, actor.episodes) for actor in status.actors] == [("a", 30)]


def test_episodes_from_before_a_restart_are_not_recent(room: Room) -> None:
    room.hello("A", "a", incarnation=3)
    room.say("A", make_report("a", 1_000, -50_000.0, incarnation=3))
    assert math.isnan(room.status().return_mean)
    room.say("A", make_report("a", 1_010, -50_100.0, incarnation=3))
    assert room.status().return_mean == -10.0


def test_reports_of_the_learner_are_shown(room: Room) -> None:
    report = LearnerReport("learner-L", 9, 1.0, 1, 0.5, 0.1, 0.2, "", 0.0, 1.0, False, "")
    assert room.say("L", report) == []
    room.now += 2.0
    assert room.status().learner == report
    assert room.status().learner_seconds_since_seen == 2.0


def test_silent_actors_are_not_shown(room: Room) -> None:
    room.fill("A", "a", 1)
    room.now += LEASE_S + 1
    assert room.status().actors == ()


def test_actors_are_told_the_replay_settings_that_hold_on_this_server():
    """An actor sizes its chunks by them: with the run's own ratio it would begin with chunks that never fit."""
    room = Room(make_run(min_size=1, error_buffer=64.0), samples_per_insert=8.0)
    room.open()
    welcome = room.hello("A", "a")
    assert isinstance(welcome, Welcome)
    assert welcome.run.spec.replay.samples_per_insert == 8.0
    assert welcome.run.data_hash == room.run.data_hash
    assert room.run.spec.replay.max_chunk_rows(8) == 32
    check_chunk_size(welcome.run, 8)
    with pytest.raises(ConfigError, match="allows 8 at 8 samples per insert"):
        check_chunk_size(welcome.run, 9)


def test_actors_without_weights_that_refuse_the_newest_are_counted():
    room = Room()
    room.open()
    reports = {"refuses": (0, "damaged"), "acts": (3, "damaged"), "waits": (0, "")}
    for peer, (version, refused) in reports.items():
        room.hello(peer, peer)
        report = make_report(peer, 1, 0.0)
        room.say(peer, msgspec.structs.replace(report, weights_version=version, weights_refused=refused))
    [status] = room.say("S", StatusRequest())
    assert isinstance(status, Status)
    assert status.actor_count == 3
    assert status.actors_without_weights == 1
    assert [actor.weights_refused for actor in status.actors] == ["damaged", "damaged", ""]
