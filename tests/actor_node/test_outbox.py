"""The window against a simple model: a network that loses and repeats messages but keeps their order, and a server
that stores exactly the next seq, answers holes, lags behind with durability, and is started again now and then."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actor_node.outbox import Outbox, make_chunk


def pending(seq, incarnation=1):
    payload = f"chunk {seq}".encode()
    return make_chunk(
        payload, actor="a", incarnation=incarnation, seq=seq, count=1, policy_version=0, data_hash="00", run="r"
    )


class Server:
    """Stores exactly the next seq; acknowledges what is durable; takes the actor's word when it has forgotten."""

    def __init__(self):
        self.lives = [[]]
        """The seqs each life has stored, in order."""
        self.received = self.durable = self.credit = 0
        self.knows_actor = False

    def hello(self, acked):
        if not self.knows_actor:
            self.received = self.durable = max(self.durable, acked)
            self.knows_actor = True
        self.credit = max(self.credit, self.received)
        return ("welcome", self.durable, self.credit)

    def chunk(self, seq):
        if not self.knows_actor:
            return ("unknown",)
        if seq > self.received + 1:
            return ("gap", self.received)
        if seq == self.received + 1 and seq <= self.credit:
            self.received = seq
            self.lives[-1].append(seq)
        return self.ack()

    def ack(self):
        return ("ack", self.durable, self.credit)

    def restart(self, *, forgets):
        self.lives.append([])
        self.knows_actor = False
        self.credit = 0
        if forgets:
            self.received = self.durable = 0
        self.received = self.durable


class Delivery:
    """One worker's outbox as its session drives it, and all that may befall it."""

    def __init__(self):
        self.outbox, self.server = Outbox(), Server()
        self.to_server, self.to_actor = deque(), deque()
        self.admitted = False
        self.granted = 0
        """Credit as the actor was told."""
        self.covered = 0
        """Highest seq that an acknowledgement which reached the actor covered."""

    # ---- the actor

    def collect(self, count):
        for _ in range(count):
            if self.outbox.has_credit:
                assert self.outbox.next_seq <= self.granted, "a chunk more than the replay allowed"
                self.outbox.add(pending(self.outbox.next_seq))
        self.send()

    def send(self):
        while self.admitted and (one := self.outbox.next_to_send()):
            assert one.chunk.seq <= self.granted, "sent more than the replay allowed"
            assert one.payload == f"chunk {one.chunk.seq}".encode()
            assert one.chunk.seq > self.covered, "sent again what is acknowledged"
            self.to_server.append(("chunk", one.chunk.seq))
            self.outbox.mark_sent()

    def introduce(self, _=0):
        self.admitted = False
        self.to_server.append(("hello", self.outbox.acked))

    # ---- the server

    def grant(self, more):
        if self.server.knows_actor:
            self.server.credit = max(self.server.credit, min(self.server.received + more, self.server.durable + 8))
            self.to_actor.append(self.server.ack())

    def commit(self, _=0):
        self.server.durable = self.server.received
        if self.server.knows_actor:
            self.to_actor.append(self.server.ack())

    def restart(self, choice):
        """Ends every connection with it: what was under way is lost."""
        self.server.restart(forgets=choice % 2 == 0)
        self.to_server.clear()
        self.to_actor.clear()

    # ---- the network

    def exchange(self, count):
        for _ in range(count):
            if self.to_server and (count % 2 or not self.to_actor):
                self.to_server_arrives()
            elif self.to_actor:
                self.to_actor_arrives()

    def to_server_arrives(self):
        kind, number = self.to_server.popleft()
        self.to_actor.append(self.server.hello(number) if kind == "hello" else self.server.chunk(number))

    def to_actor_arrives(self):
        kind, *numbers = self.to_actor.popleft()
        if kind == "welcome":
            stored, self.granted = numbers
            self.covered = max(self.covered, stored)
            self.outbox.on_welcome(1, stored, self.granted)
            self.admitted = True
        elif kind == "ack":
            stored, credit = numbers
            self.covered = max(self.covered, stored)
            self.granted = max(self.granted, credit)
            self.outbox.on_ack(stored, credit)
        elif kind == "gap":
            self.outbox.on_gap(*numbers)
        else:
            self.admitted = False

    def lose(self, at):
        queue = self.to_server if at % 2 else self.to_actor
        if queue:
            del queue[at % len(queue)]

    def repeat(self, at):
        queue = self.to_server if at % 2 else self.to_actor
        if queue:
            queue.insert(at % len(queue), queue[at % len(queue)])

    # ---- what must hold

    def check(self):
        for life in self.server.lives:
            assert life == list(range(life[0], life[0] + len(life))) if life else True, "once each, and in order"
        assert self.outbox.acked <= self.covered, "dropped before it was acknowledged"
        assert self.outbox.unacked == self.outbox.next_seq - 1 - self.outbox.acked
        assert 0 <= self.outbox.in_flight <= self.outbox.unacked
        assert self.outbox.unacked <= 8, "more than a window"

    def settle(self):
        """Lets a network that works again carry everything there."""
        self.introduce()
        for _ in range(20):
            for step in (self.grant, self.commit):
                self.exchange_all()
                self.send()
                self.exchange_all()
                step(8)
                self.check()

    def exchange_all(self):
        while self.to_server or self.to_actor:
            self.exchange(1)


EVENTS = ["collect"] * 4 + ["exchange"] * 6 + ["grant", "commit", "commit", "introduce", "restart", "lose", "repeat"]


@pytest.mark.slow
@settings(max_examples=120)
@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(1, 12)), min_size=30, max_size=100))
def test_whatever_happens_on_the_way_every_chunk_is_stored_once_and_in_order(events):
    delivery = Delivery()
    delivery.settle()
    for event, number in events:
        getattr(delivery, event)(number)
        delivery.check()
    delivery.settle()
    outbox, server = delivery.outbox, delivery.server
    assert outbox.unacked == 0
    assert server.received == outbox.next_seq - 1 == outbox.acked


@pytest.fixture
def outbox():
    """A window of four chunks, three of them under way."""
    made = Outbox()
    made.on_welcome(5, 0, 10)
    for seq in range(1, 5):
        made.add(pending(seq, 5))
    for _ in range(3):
        made.mark_sent()
    return made


def sends(outbox):
    """Returns the seqs it sends now."""
    sent = []
    while one := outbox.next_to_send():
        outbox.mark_sent()
        sent.append(one.chunk.seq)
    return sent


def test_before_an_admission_nothing_may_be_added():
    assert not Outbox().has_credit


def test_chunks_are_added_in_order(outbox):
    with pytest.raises(ValueError, match="chunk 7 added, but 5 is next"):
        outbox.add(pending(7))


def test_an_acknowledgement_frees_all_it_covers(outbox):
    outbox.on_ack(2, 10)
    assert (outbox.acked, outbox.unacked, outbox.in_flight) == (2, 2, 1)
    outbox.on_ack(1, 4)
    assert (outbox.acked, outbox.credit) == (2, 10), "a late one changes nothing"
    outbox.on_ack(99, 10)
    assert (outbox.acked, outbox.unacked, outbox.next_seq) == (4, 0, 5), "no more than there is"


def test_a_gap_sends_again_from_the_hole_and_counts_it(outbox):
    outbox.on_gap(1)
    assert sends(outbox) == [2, 3, 4]
    assert outbox.resent == 2
    outbox.on_ack(3, 10)
    outbox.on_gap(0)
    assert sends(outbox) == [4], "what is acknowledged is not sent again"


def test_a_gap_beyond_the_last_chunk_skips_none(outbox):
    outbox.on_gap(99)
    outbox.add(pending(5, 5))
    assert sends(outbox) == [5]


def test_an_admission_sends_all_again_that_is_not_stored(outbox):
    outbox.on_welcome(5, 1, 10)
    assert sends(outbox) == [2, 3, 4]


def test_what_is_acknowledged_after_an_admission_is_not_sent_again(outbox):
    outbox.on_welcome(5, 0, 10)
    outbox.on_ack(2, 10)
    assert sends(outbox) == [3, 4]
    outbox.on_welcome(5, 2, 10)
    outbox.on_ack(4, 10)
    assert sends(outbox) == []


def test_an_admission_may_lower_the_credit(outbox):
    outbox.on_welcome(5, 1, 3)
    assert sends(outbox) == [2, 3]
    assert not outbox.has_credit
    outbox.on_ack(1, 5)
    assert sends(outbox) == [4]
    assert outbox.has_credit


def test_another_incarnations_admission_is_refused(outbox):
    with pytest.raises(ValueError, match="admitted as incarnation 6, not 5"):
        outbox.on_welcome(6, 0, 10)
