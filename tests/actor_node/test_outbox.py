"""The window against a simple model: a network that loses and repeats messages but keeps their order, and a server
that stores exactly the next seq, answers holes, lags behind with durability, and is started again now and then."""

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actor_node.outbox import Outbox, Parcel
from common.messages import Chunk


def parcel(seq, incarnation=1):
    return Parcel(Chunk("a", incarnation, seq, 1, 0, 0, "00"), f"chunk {seq}".encode())


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


class Delivery(RuleBasedStateMachine):
    """One worker's outbox, as its link drives it."""

    @initialize()
    def begin(self):
        self.outbox, self.server = Outbox(), Server()
        self.to_server, self.to_actor = deque(), deque()
        self.admitted = False
        self.granted = 0
        """Credit as the actor was told."""
        self.acked_to_actor = 0
        """Highest seq that an acknowledgement which reached the actor covered."""
        self.introduce()
        self.exchange_all()
        self.grant(5)
        self.exchange_all()

    # ---- the actor --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.outbox.may_add)
    @rule(count=st.integers(1, 5))
    def collect(self, count):
        for _ in range(count):
            if self.outbox.may_add:
                self.outbox.add(parcel(self.outbox.next_seq))
        self.send()

    @rule()
    def send(self):
        while self.admitted and (one := self.outbox.next_to_send()):
            assert one.chunk.seq <= self.granted, "more than the replay allowed"
            assert one.payload == f"chunk {one.chunk.seq}".encode()
            self.to_server.append(("chunk", one.chunk.seq))
            self.outbox.sent()

    @rule()
    def introduce(self):
        self.admitted = False
        self.to_server.append(("hello", self.outbox.acked))

    # ---- the server -------------------------------------------------------------------------------------------

    @rule(more=st.integers(1, 5))
    def grant(self, more):
        if self.server.knows_actor:
            self.server.credit = max(self.server.credit, min(self.server.received + more, self.server.durable + 8))
            self.to_actor.append(self.server.ack())

    @rule()
    def commit(self):
        self.server.durable = self.server.received
        if self.server.knows_actor:
            self.to_actor.append(self.server.ack())

    @rule(forgets=st.booleans())
    def restart(self, forgets):
        """Ends every connection with it: what was under way is lost."""
        self.server.restart(forgets=forgets)
        self.to_server.clear()
        self.to_actor.clear()

    # ---- the network ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.to_server or self.to_actor)
    @rule(count=st.integers(1, 12))
    def exchange(self, count):
        for _ in range(count):
            if self.to_server:
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
            self.acked_to_actor = max(self.acked_to_actor, stored)
            self.outbox.on_welcome(1, stored, self.granted)
            self.admitted = True
        elif kind == "ack":
            stored, credit = numbers
            self.acked_to_actor = max(self.acked_to_actor, stored)
            self.granted = max(self.granted, credit)
            self.outbox.on_ack(stored, credit)
        elif kind == "gap":
            self.outbox.on_gap(*numbers)
        else:
            self.admitted = False

    @precondition(lambda self: self.to_server or self.to_actor)
    @rule(data=st.data(), repeat=st.booleans())
    def lose_or_repeat(self, data, repeat):
        queue = data.draw(st.sampled_from([queue for queue in (self.to_server, self.to_actor) if queue]))
        at = data.draw(st.integers(0, len(queue) - 1))
        if repeat:
            queue.insert(at, queue[at])
        else:
            del queue[at]

    # ---- what must hold ---------------------------------------------------------------------------------------

    @invariant()
    def every_life_stores_each_chunk_once_and_in_order(self):
        for life in self.server.lives:
            assert life == list(range(life[0], life[0] + len(life))) if life else True

    @invariant()
    def nothing_is_dropped_before_it_is_acknowledged(self):
        assert self.outbox.acked <= self.acked_to_actor
        assert self.outbox.unacked == self.outbox.next_seq - 1 - self.outbox.acked
        assert 0 <= self.outbox.under_way <= self.outbox.unacked

    @invariant()
    def the_window_stays_within_the_credit(self):
        assert self.outbox.unacked <= max(8, self.outbox.next_seq - 1 - self.server.durable)

    def exchange_all(self):
        while self.to_server or self.to_actor:
            while self.to_server:
                self.to_server_arrives()
            while self.to_actor:
                self.to_actor_arrives()

    def teardown(self):
        """With a network that works again, everything gets there."""
        if not hasattr(self, "outbox"):
            return
        self.exchange_all()
        self.introduce()
        self.exchange_all()
        for _ in range(100):
            self.grant(5)
            self.exchange_all()
            self.send()
            self.exchange_all()
            self.commit()
            self.exchange_all()
        assert self.outbox.unacked == 0
        assert self.server.received == self.outbox.next_seq - 1 == self.outbox.acked
        self.every_life_stores_each_chunk_once_and_in_order()


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestDelivery = pytest.mark.slow(TestDelivery)


@pytest.fixture
def outbox():
    """A window of four chunks, three of them under way."""
    made = Outbox()
    made.on_welcome(5, 0, 10)
    for seq in range(1, 5):
        made.add(parcel(seq, 5))
    for _ in range(3):
        made.sent()
    return made


def sends(outbox):
    """Returns the seqs it sends now."""
    sent = []
    while one := outbox.next_to_send():
        outbox.sent()
        sent.append(one.chunk.seq)
    return sent


def test_before_an_admission_nothing_may_be_added():
    assert not Outbox().may_add


def test_chunks_are_added_in_order(outbox):
    with pytest.raises(ValueError, match="chunk 7 added where 5 was next"):
        outbox.add(parcel(7))


def test_an_acknowledgement_frees_all_it_covers(outbox):
    outbox.on_ack(2, 10)
    assert (outbox.acked, outbox.unacked, outbox.under_way) == (2, 2, 1)
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


def test_an_admission_sends_all_again_that_is_not_stored(outbox):
    outbox.on_welcome(5, 1, 10)
    assert sends(outbox) == [2, 3, 4]


def test_an_admission_may_lower_the_credit(outbox):
    outbox.on_welcome(5, 1, 3)
    assert sends(outbox) == [2, 3]
    assert not outbox.may_add
    outbox.on_ack(1, 5)
    assert sends(outbox) == [4]
    assert outbox.may_add


def test_another_incarnations_admission_is_refused(outbox):
    with pytest.raises(ValueError, match="admitted as incarnation 6, not 5"):
        outbox.on_welcome(6, 0, 10)
