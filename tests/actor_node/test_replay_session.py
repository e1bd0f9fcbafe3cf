"""A worker's session with its replay server."""

import pytest

from actor_node.replay_session import ACK_TIMEOUT_S, HELLO_PERIOD_S, SILENCE_TIMEOUT_S, ReplaySession
from common.errors import ConfigError, PeerError, ShoalError
from common.wire.codec import checksum
from common.wire.messages import Ack, ActorReport, Bye, Chunk, Fenced, Gap, Hello, NotReady, Refused, Unknown
from tests.actor_node.peers import OTHERS, RUN
from tests.common.examples import BOXES, make_header, make_run

REPORT = ActorReport("a", 1, 0, 0, 0.0, (), 0, 0.0, "", 0.0, "")


# ---- waiting for a run --------------------------------------------------------------------------------------------


def test_it_asks_each_second_and_says_what_it_waits_for(peers):
    assert peers.session.waiting_for() == ("replay", f"the replay server at {peers.url}")
    assert peers.hears(Hello) == Hello("a", 0, 0, "")
    peers.pump(HELLO_PERIOD_S / 2)
    peers.hears_nothing(Hello)
    peers.pump(HELLO_PERIOD_S / 2)
    peers.hears(Hello)
    peers.says(NotReady("the replay has no run yet"))
    peers.until(lambda: peers.session.waiting_for() == ("replay", "the replay has no run yet"))
    peers.pump(HELLO_PERIOD_S)
    peers.hears(Hello)
    peers.welcome(weights=None)
    peers.until(lambda: peers.session.waiting_for() == ("weights", "the learner's first weights"))
    assert peers.session.run == RUN


def test_a_server_that_fell_silent_is_what_it_waits_for_not_what_that_said_last(peers):
    peers.hears(Hello)
    peers.says(NotReady("the replay has no run yet"))
    peers.until(lambda: peers.session.waiting_for()[1] == "the replay has no run yet")
    peers.pump(SILENCE_TIMEOUT_S + 0.1)
    assert peers.session.waiting_for() == ("replay", f"the replay server at {peers.url}")


def test_an_admission_with_weights_and_credit_lets_it_collect(peers):
    peers.admit()
    assert peers.session.waiting_for() == ("", "")
    assert peers.session.weights.header == make_header(RUN)
    assert peers.session.outbox.incarnation == 1


# ---- chunks -------------------------------------------------------------------------------------------------------


def test_chunks_go_out_within_the_credit_and_are_described_truly(peers):
    peers.admit(credit=2)
    peers.collect(2)
    first = peers.hears(Chunk)
    assert (first.actor, first.incarnation, first.seq, first.count, first.policy_version) == ("a", 1, 1, 5, 1)
    assert first.data_hash == RUN.data_hash
    assert first.crc32c == checksum(bytes([1] * 10))
    assert peers.chunks(1) == [2]
    assert peers.session.waiting_for() == ("credit", "acknowledgements of the replay server")
    peers.says(Ack(1, 1, 2, "the learner is behind"))
    peers.until(lambda: peers.session.waiting_for() == ("credit", "the learner is behind"))
    peers.says(Ack(1, 2, 3, ""))
    peers.until(lambda: peers.session.waiting_for() == ("", ""))
    assert (peers.session.outbox.acked, peers.session.outbox.unacked) == (2, 0)


def test_a_gap_makes_it_go_back(peers):
    peers.admit(credit=3)
    peers.collect(3)
    assert peers.chunks(3) == [1, 2, 3]
    peers.says(Gap(1, 1))
    assert peers.chunks(2) == [2, 3]
    assert peers.session.outbox.resent == 2


@pytest.mark.parametrize("message", [Ack(7, 3, 99, ""), Gap(7, 0)], ids=["ack", "gap"])
def test_what_is_meant_for_another_incarnation_changes_nothing(peers, message):
    peers.admit(credit=3)
    peers.collect(3)
    assert peers.chunks(3) == [1, 2, 3]
    peers.says(message)
    peers.pump_for(5)
    assert (peers.session.outbox.acked, peers.session.outbox.credit) == (0, 3)
    peers.hears_nothing(Chunk)


def test_a_server_that_forgot_is_told_what_it_had_and_sent_the_rest(peers):
    peers.admit(credit=3)
    peers.collect(3)
    peers.chunks(3)
    peers.says(Ack(1, 1, 3, ""))
    peers.until(lambda: peers.session.outbox.acked == 1)
    peers.now += HELLO_PERIOD_S
    peers.says(Unknown())
    assert peers.hears(Hello) == Hello("a", 1, 1, RUN.data_hash, RUN.id)
    assert peers.session.waiting_for()[0] == "replay"
    peers.welcome(stored=1, credit=2, weights=None)
    assert peers.chunks(1) == [2], "only what the new credit covers"
    peers.says(Ack(1, 2, 3, ""))
    assert peers.chunks(1) == [3]


def test_after_five_seconds_of_silence_it_introduces_itself_again(peers):
    peers.admit(credit=3)
    peers.collect(2)
    peers.chunks(2)
    peers.pump(SILENCE_TIMEOUT_S - 0.1)
    peers.hears_nothing(Hello)
    peers.pump(0.2)
    assert peers.hears(Hello) == Hello("a", 1, 0, RUN.data_hash, RUN.id)
    peers.welcome(stored=0, credit=3)
    assert peers.chunks(2) == [1, 2]


@pytest.mark.slow
def test_chunks_lost_with_a_connection_are_sent_again_even_while_the_server_answers(peers):
    """Reports are answered, so there is no silence; no later chunk comes, so there is no gap; only time tells."""
    peers.admit(credit=2)
    peers.collect(2)
    peers.chunks(2)
    for _ in range(int(ACK_TIMEOUT_S)):
        peers.pump(1.0)
        peers.session.report(REPORT)
        peers.hears(ActorReport)
        peers.says(Ack(1, 0, 2, ""))
        peers.pump_for(5)
    assert peers.heard == []
    peers.pump(1.0)
    assert peers.hears(Hello) == Hello("a", 1, 0, RUN.data_hash, RUN.id)
    peers.welcome(stored=0, credit=2, weights=None)
    assert peers.chunks(2) == [1, 2]


def test_acknowledgements_that_get_further_are_no_time_out(peers):
    peers.admit(credit=8)
    peers.collect(8)
    peers.chunks(8)
    for stored in range(1, 8):
        peers.pump(4.0)
        peers.says(Ack(1, stored, 8, ""))
        peers.until(lambda stored=stored: peers.session.outbox.acked == stored)
    peers.hears_nothing(Hello)


def test_waiting_for_credit_with_nothing_in_flight_is_no_time_out(peers):
    peers.admit(credit=0)
    for _ in range(int(2 * ACK_TIMEOUT_S / 4)):
        peers.pump(4.0)
        peers.says(Ack(1, 0, 0, "the learner is behind"))
        peers.pump_for(5)
    peers.hears_nothing(Hello)
    assert peers.session.waiting_for() == ("credit", "the learner is behind")


def test_an_answer_that_is_malformed_is_passed_over(peers):
    peers.admit(credit=1)
    peers.collect()
    peers.chunks(1)
    peers.socket.send_multipart([peers.peer, b"\xc1"])
    peers.says(Ack(1, 1, 2, ""))
    peers.until(lambda: peers.session.outbox.acked == 1)


def test_at_the_end_it_says_good_bye(peers):
    peers.admit()
    session, peers.session = peers.session, ReplaySession("b", peers.url, peers.weights_url)
    session.close()
    assert peers.hears(Bye) == Bye("a", 1)


def test_a_chunk_before_the_run_is_a_defect(peers):
    with pytest.raises(RuntimeError, match="before the run is known"):
        peers.session.add_chunk(1, 1, b"")


# ---- when it cannot continue --------------------------------------------------------------------------------------


def test_a_worker_that_another_one_replaced_ends(peers):
    peers.admit()
    peers.says(Fenced(2))
    with pytest.raises(PeerError, match="another worker named a replaced this one; give each node its own --name"):
        peers.pump_for(100)


def test_a_refusal_that_repeats_is_a_peer_error(peers):
    peers.admit()
    for _ in range(2):
        peers.says(Refused("10,000 actors are connected"))
        peers.now += HELLO_PERIOD_S
        peers.hears(Hello)
        peers.welcome()
    peers.says(Refused("10,000 actors are connected"))
    with pytest.raises(PeerError, match="refuses this actor: 10,000 actors are connected"):
        peers.pump_for(100)


def test_refusals_between_stored_chunks_do_not_end_a_worker(peers):
    """A network that damages a message now and then."""
    peers.admit(credit=10)
    for count in range(1, 5):
        peers.says(Refused("header: damaged"))
        peers.now += HELLO_PERIOD_S
        peers.hears(Hello)
        peers.welcome(stored=count - 1, credit=10)
        peers.until(lambda: peers.session.waiting_for() == ("", ""))
        peers.session.add_chunk(1, 1, b"\0")
        peers.says(Ack(1, count, 10, ""))
        peers.until(lambda count=count: peers.session.outbox.acked == count)


@pytest.mark.parametrize("what", OTHERS)
def test_a_worker_restarts_for_another_run(peers, what):
    peers.admit()
    peers.now += HELLO_PERIOD_S
    peers.says(Unknown())
    peers.hears(Hello)
    peers.welcome(run=OTHERS[what])
    with pytest.raises(ShoalError, match="the worker restarts") as error:
        peers.pump_for(100)
    assert error.value.exit_code == 1, "so that its supervisor starts it again"


def test_a_worker_continues_with_a_run_of_another_budget(peers):
    peers.admit()
    peers.now += HELLO_PERIOD_S
    peers.says(Unknown())
    peers.hears(Hello)
    longer = make_run(BOXES, budget={"steps": 10**9}, replay={"batch": 7})
    peers.welcome(run=longer)
    peers.until(lambda: peers.session.waiting_for() == ("", ""))
    assert peers.session.run == longer


def test_a_worker_that_is_assigned_another_incarnation_restarts(peers):
    peers.admit(incarnation=1)
    peers.welcome(incarnation=2)
    with pytest.raises(ShoalError, match="the worker restarts"):
        peers.pump_for(100)


@pytest.mark.parametrize(
    ("urls", "option"),
    [(("nowhere", "tcp://127.0.0.1:1"), "--replay"), (("tcp://127.0.0.1:1", "nowhere"), "--weights")],
)
def test_an_invalid_address_is_a_usage_error(urls, option):
    with pytest.raises(ConfigError, match=f"{option} nowhere"):
        ReplaySession("a", *urls)
