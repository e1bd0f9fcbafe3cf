"""Random histories of actors, network, log and kills: every acknowledged chunk is stored once and in order (P1)."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from common.wire.messages import Ack, Chunk, Fenced, Gap, Hello, NotReady, Open, Unknown, Welcome
from replay_server.config import ReplayConfig
from replay_server.durability.recovery import recover
from replay_server.replay import Replay
from replay_server.sessions.session import Reply
from tests.replay_server.durability.dict_log import DictLog
from tests.replay_server.runs import make_chunk, make_run, numbers

RUN = make_run(limit="off", capacity=100_000)
ROWS = 2
ACTORS = st.sampled_from("abc")


def identity(actor: str, incarnation: int, seq: int) -> int:
    """Returns what the records of a chunk carry; float32 holds it exactly."""
    return (ord(actor) - ord("a")) * 1_000_000 + incarnation * 10_000 + seq * 10


@dataclass
class Worker:
    """An actor that keeps to the protocol."""

    name: str
    peer: bytes
    incarnation: int = 0
    acked: int = 0
    credit: int = 0
    collected: int = 0
    admitted: bool = False
    inbox: deque[Reply] = field(default_factory=deque)

    def chunk(self, seq: int) -> tuple[Chunk, bytes]:
        number = identity(self.name, self.incarnation, seq)
        return make_chunk(RUN, self.name, seq, ROWS, first=number, incarnation=self.incarnation)


class Delivery(RuleBasedStateMachine):
    """Lets hypothesis decide what happens next."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.log = DictLog()
        self.peers = 0
        self.workers: dict[str, Worker] = {}
        self.wire: list[tuple[bytes, Chunk, bytes]] = []
        self.acknowledged: dict[tuple[str, int], int] = defaultdict(int)
        self.start_server()
        for name in "abc":
            self.start_worker(name)

    def start_server(self) -> None:
        self.replay = Replay(ReplayConfig(durability="redis"), self.now)
        recover(self.log, self.replay, lambda _: None)
        self.replay.handle(b"learner", Open("learner", RUN), None, self.now)

    def start_worker(self, name: str) -> None:
        self.peers += 1
        self.workers[name] = Worker(name, b"%d" % self.peers)

    def hear(self, replies: list[Reply]) -> None:
        for reply in replies:
            for worker in self.workers.values():
                if worker.peer == reply.peer:
                    worker.inbox.append(reply)

    # ---- what may happen

    @rule(
        name=ACTORS,
        rounds=st.integers(1, 4),
        fault=st.sampled_from(["none", "lost", "again", "damaged", "skipped"]),
        answered=st.booleans(),
        committed=st.booleans(),
    )
    def flow(self, name: str, rounds: int, fault: str, answered: bool, committed: bool) -> None:
        """Takes one worker through rounds with at most one fault each: the others hit a flow, not a standstill."""
        for _ in range(rounds):
            if self.workers[name].admitted:
                self.collect(name, 3)
                self.send(name, 8, int(fault == "skipped"))
            else:
                self.introduce(name)
            if place := self._on_its_way(name):
                self._disturb(place - 1, fault)
            while place := self._on_its_way(name):
                self.hear(self.replay.handle(*self.wire.pop(place - 1), self.now))
            if committed:
                self.commit(20)
            self.turn(2.0)
            if answered:
                self.read_answers(name, lost=False)

    @rule(name=ACTORS)
    def introduce(self, name: str) -> None:
        worker = self.workers[name]
        hello = Hello(name, worker.incarnation, worker.acked, RUN.data_hash)
        self.hear(self.replay.handle(worker.peer, hello, None, self.now))

    @rule(name=ACTORS, count=st.integers(1, 8))
    def collect(self, name: str, count: int) -> None:
        worker = self.workers[name]
        if worker.incarnation:
            worker.collected = min(worker.collected + count, max(worker.credit, worker.collected))

    @rule(name=ACTORS, how_many=st.integers(1, 8), skip=st.integers(0, 3))
    def send(self, name: str, how_many: int, skip: int) -> None:
        """Sends kept chunks from any of them on: holes, duplicates and re-sending are all of this."""
        worker = self.workers[name]
        for seq in range(worker.acked + 1 + skip, min(worker.acked + skip + how_many, worker.collected) + 1):
            self.wire.append((worker.peer, *worker.chunk(seq)))

    @rule(data=st.data(), count=st.integers(1, 10))
    def deliver(self, data: st.DataObject, count: int) -> None:
        """Delivers messages, of different workers in any order, of one worker in the order they were sent."""
        for _ in range(min(count, len(self.wire))):
            peer = data.draw(st.sampled_from(sorted({peer for peer, _, _ in self.wire})))
            place = next(i for i, sent in enumerate(self.wire) if sent[0] == peer)
            self.hear(self.replay.handle(*self.wire.pop(place), self.now))

    @rule(data=st.data(), fault=st.sampled_from(["lost", "again", "damaged"]))
    def disturb(self, data: st.DataObject, fault: str) -> None:
        if self.wire:
            self._disturb(data.draw(st.integers(0, len(self.wire) - 1)), fault)

    @rule(seconds=st.sampled_from([0.0, 0.5, 20.0]))
    def turn(self, seconds: float) -> None:
        self.now += seconds
        self.hear(self.replay.advance(self.now))

    @rule(how_many=st.integers(1, 20))
    def commit(self, how_many: int) -> None:
        """Has the log take all writes so far but acknowledge only some: the others' answer is yet to come."""
        if writes := self.replay.journal.take_writes():
            transaction = self.log.prepare(writes)
            self.log.execute(transaction)
            self.log.execute(transaction)
        self.replay.journal.mark_durable(min(self.log.index.head - 1, self._confirmed() + how_many))

    @rule(name=ACTORS, lost=st.booleans())
    def read_answers(self, name: str, lost: bool) -> None:
        worker = self.workers[name]
        while worker.inbox:
            message = worker.inbox.popleft().message
            if lost:
                continue
            self._take(worker, message)

    @rule(name=ACTORS)
    def reconnect(self, name: str) -> None:
        """Gives a worker another routing id: what was on its way is lost."""
        worker = self.workers[name]
        self.peers += 1
        self.wire = [sent for sent in self.wire if sent[0] != worker.peer]
        worker.peer = b"%d" % self.peers
        worker.inbox.clear()

    @rule(name=ACTORS)
    def kill_worker(self, name: str) -> None:
        self.start_worker(name)

    @rule()
    def kill_server(self) -> None:
        """Loses everything but the log."""
        self.wire.clear()
        self.log = self.log.after_restart()
        self.start_server()

    # ---- what must hold

    @invariant()
    def acknowledged_chunks_are_stored_once_and_in_order(self) -> None:
        assert self.replay.table
        rows = numbers(self.replay.table.ring.in_order())
        chunks: dict[tuple[str, int], list[int]] = defaultdict(list)
        for first in rows[::ROWS]:
            actor, rest = divmod(first, 1_000_000)
            chunks[chr(ord("a") + actor), rest // 10_000].append(rest % 10_000 // 10)
        assert rows[1::ROWS] == [row + 1 for row in rows[::ROWS]]
        for seqs in chunks.values():
            assert seqs == list(range(1, len(seqs) + 1))
        for (name, incarnation), acked in self.acknowledged.items():
            assert len(chunks[name, incarnation]) >= acked

    @invariant()
    def the_log_tells_of_no_chunk_it_does_not_hold(self) -> None:
        kept = self.log.read()
        if kept:
            assert all(value is not None for _, value in self.log.chunks(kept.state))

    def _disturb(self, place: int, fault: str) -> None:
        peer, chunk, payload = self.wire[place]
        if fault == "lost":
            del self.wire[place]
        elif fault == "again":
            self.wire.append(self.wire[place])
        elif fault == "damaged":
            self.wire[place] = peer, chunk, payload[:-1] + bytes([payload[-1] ^ 1])

    def _on_its_way(self, name: str) -> int:
        """Returns the place of a worker's next message on the wire, counted from 1; 0 when there is none."""
        return next((i for i, sent in enumerate(self.wire, 1) if sent[1].actor == name), 0)

    def _confirmed(self) -> int:
        return self.replay.journal.next_number - 1 - len(self.replay.journal)

    def _take(self, worker: Worker, message: object) -> None:
        match message:
            case Welcome():
                if worker.incarnation not in (0, message.incarnation):
                    return
                worker.incarnation, worker.credit, worker.admitted = message.incarnation, message.credit, True
                self._acked(worker, message.stored)
            case Ack() if message.incarnation == worker.incarnation:
                worker.credit = max(worker.credit, message.credit)
                self._acked(worker, message.stored)
            case Fenced():
                self.start_worker(worker.name)
            case Unknown():
                worker.admitted = False
            case Gap() | NotReady() | Ack():
                pass
            case _:
                raise AssertionError(f"an actor never expects {message}")

    def _acked(self, worker: Worker, stored: int) -> None:
        assert stored <= worker.collected
        worker.acked = max(worker.acked, stored)
        key = worker.name, worker.incarnation
        self.acknowledged[key] = max(self.acknowledged[key], worker.acked)


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
