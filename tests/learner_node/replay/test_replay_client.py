"""Batches come prefetched, in turn from several servers, and again after a server was lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pytest
import torch

from common.errors import ConfigError, PeerError
from common.run.run import Run
from common.wire.messages import LearnerReport, Open, PutWeights, SampleRequest
from learner_node.replay import replay_session as source
from learner_node.replay.replay_client import ShardedReplayClient
from learner_node.replay.replay_session import SampledBatch
from tests.conftest import wait_until
from tests.learner_node.fake_replay import FakeReplay, small_run

WAIT_S = 20.0
Connect = Callable[..., ShardedReplayClient]


@pytest.fixture
def run() -> Run:
    return small_run()


@pytest.fixture
def replay(run: Run) -> Iterator[FakeReplay]:
    with FakeReplay(run) as fake:
        yield fake


@pytest.fixture
def connect(run: Run) -> Iterator[Connect]:
    """Makes clients from servers or addresses, closed with the test."""
    clients: list[ShardedReplayClient] = []

    def make(*servers: FakeReplay | str) -> ShardedReplayClient:
        endpoints = tuple(server if isinstance(server, str) else server.endpoint for server in servers)
        clients.append(ShardedReplayClient(run, "learner", endpoints, 4, pin=False, inserts=70, samples=900))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(replay: FakeReplay, connect: Connect) -> ShardedReplayClient:
    return connect(replay)


def drain(client: ShardedReplayClient) -> None:
    """Takes batches for as long as they come."""
    while client.next(WAIT_S) is not None:
        pass


def take(client: ShardedReplayClient) -> SampledBatch:
    batch = client.next(WAIT_S)
    assert batch is not None
    return batch


def call_until(client: ShardedReplayClient, predicate: Callable[[], object], what: str) -> None:
    """Calls `next`, as a learner does, until the predicate holds; fails when it does not in time."""
    give_up_at = time.monotonic() + WAIT_S
    while not predicate():
        assert time.monotonic() < give_up_at, f"{what}: not within {WAIT_S:g} s"
        client.next(0.002)


def test_a_batch_is_the_records_the_server_sent(run: Run, connect: Connect, replay: FakeReplay) -> None:
    sent: list[bytes] = []

    def payload(count: int) -> bytes:
        sent.append(replay.sample(count))
        return sent[-1]

    replay.payload = payload
    client = connect(replay)
    for i in range(6):
        batch = take(client)
        assert batch.records.numpy().tobytes() == sent[i]
        assert batch.records.dtype == torch.float32
        assert len(batch.records) == run.spec.replay.batch
    replay.inserts_per_batch = 0
    call_until(client, lambda: client.env_steps == replay.inserts, "the clock")


def test_it_starts_no_thread_that_would_contend_for_the_interpreter(connect: Connect, replay: FakeReplay) -> None:
    before = threading.enumerate()
    client = connect(replay)
    take(client)
    assert threading.enumerate() == before


def test_batches_come_while_the_learner_is_busy(replay: FakeReplay, client: ShardedReplayClient) -> None:
    take(client)
    wait_until(lambda: len(replay.of(SampleRequest)) == 5, "the requests")
    replay.silent = True
    for _ in range(4):
        take(client)
    assert client.next(0.0) is None


def test_next_waits_no_longer_than_it_is_given(replay: FakeReplay, client: ShardedReplayClient) -> None:
    replay.silent = True
    started_at = time.monotonic()
    assert client.next(0.3) is None
    assert 0.3 <= time.monotonic() - started_at < 5.0


def test_four_batches_are_asked_for_ahead_and_no_more(replay: FakeReplay, client: ShardedReplayClient) -> None:
    for taken in range(1, 4):
        take(client)
        wait_until(lambda taken=taken: len(replay.of(SampleRequest)) == 4 + taken, "the next request")  # type: ignore[misc]


def test_the_learner_tells_how_far_it_knows_the_run(replay: FakeReplay, client: ShardedReplayClient) -> None:
    take(client)
    opening = replay.of(Open)[0]
    assert isinstance(opening, Open)
    assert (opening.inserts, opening.samples, opening.run) == (70, 900, replay.run)


def test_why_no_batch_comes_is_what_the_server_says(replay: FakeReplay, client: ShardedReplayClient) -> None:
    replay.holding = "32 transitions, 12 are there"
    call_until(client, lambda: client.waiting_for == replay.holding, "the reason")
    assert client.opened


def test_without_a_server_it_names_the_address(connect: Connect) -> None:
    client = connect("tcp://127.0.0.1:1")
    assert client.next(0.01) is None
    assert client.waiting_for == "the replay server at tcp://127.0.0.1:1"
    assert not client.opened


def test_an_address_that_is_none_is_the_users_mistake(connect: Connect) -> None:
    with pytest.raises(ConfigError, match="--replay somewhere"):
        connect("somewhere")


@pytest.mark.slow
def test_a_server_that_forgot_the_learner_is_opened_again(replay: FakeReplay, client: ShardedReplayClient) -> None:
    take(client)
    replay.forget()
    for _ in range(10):
        take(client)
    assert len(replay.of(Open)) == 2


def test_only_the_first_opening_discards_another_run(replay: FakeReplay, run: Run) -> None:
    """A learner that opens its run again must not discard a run that has replaced it meanwhile."""
    client = ShardedReplayClient(run, "learner", (replay.endpoint,), 4, pin=False, fresh=True)
    try:
        take(client)
        replay.forget()
        for _ in range(10):
            take(client)
    finally:
        client.close()
    assert [message.fresh for message in replay.of(Open)] == [True, False]  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_server_that_died_is_found_again_at_its_address(
    run: Run, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "SILENCE_S", 0.5)
    first = FakeReplay(run)
    client = connect(first)
    take(client)
    first.close()
    while client.next(0.05) is not None:
        pass
    with FakeReplay(run, first.endpoint, inserts=5_000) as second:
        for _ in range(10):
            take(client)
        second.inserts_per_batch = 0
        call_until(client, lambda: client.env_steps == second.inserts, "the new clock")


@pytest.mark.slow
def test_a_server_that_hears_but_does_not_answer_is_opened_again(
    replay: FakeReplay, client: ShardedReplayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "SILENCE_S", 0.5)
    take(client)
    replay.silent = True
    call_until(client, lambda: len(replay.of(Open)) >= 2, "the second Open")
    replay.silent = False
    for _ in range(10):
        take(client)


def test_a_refusal_ends_the_learner_with_its_reason(replay: FakeReplay, client: ShardedReplayClient) -> None:
    replay.refusing = "another run is trained here"
    replay.forget()
    with pytest.raises(PeerError, match="another run is trained here"):
        drain(client)


def test_a_batch_of_the_wrong_size_ends_the_learner(replay: FakeReplay, client: ShardedReplayClient) -> None:
    replay.payload = lambda count: replay.sample(count)[:-4]
    with pytest.raises(PeerError, match="same version"):
        drain(client)


def test_non_finite_numbers_never_reach_the_networks(replay: FakeReplay, client: ShardedReplayClient) -> None:
    def payload(count: int) -> bytes:
        words = np.frombuffer(replay.sample(count), np.float32).copy()
        words[5] = np.nan if len(replay.of(SampleRequest)) % 2 else 0.0
        return words.tobytes()

    replay.payload = payload
    batches = [take(client) for _ in range(12)]
    assert client.rejected > 0
    assert all(torch.isfinite(batch.records[:, :-1]).all() for batch in batches[4:])


def test_a_batch_is_complete_when_every_agent_acts_and_goes_on(replay: FakeReplay, client: ShardedReplayClient) -> None:
    assert take(client).complete
    replay._records["discount"][:] = 0.95**2  # spans of three steps
    for _ in range(5):
        batch = take(client)
    assert batch.complete
    replay._records["discount"][:, 1] = 0.0
    for _ in range(5):
        batch = take(client)
    assert not batch.complete


def test_versions_that_are_no_floats_do_no_harm(replay: FakeReplay, client: ShardedReplayClient) -> None:
    def payload(count: int) -> bytes:
        words = np.frombuffer(replay.sample(count), np.uint32).reshape(count, -1).copy()
        words[:, -1] = 0x7FC0_0000
        return words.tobytes()

    replay.payload = payload
    for _ in range(8):
        take(client)
    assert client.rejected == 0


def drawn(client: ShardedReplayClient, batches: int, *fakes: FakeReplay) -> list[int]:
    """Takes batches, and returns how many each server was asked for meanwhile."""
    while not all(fake.of(SampleRequest) for fake in fakes):
        take(client)
    before = [len(fake.of(SampleRequest)) for fake in fakes]
    for _ in range(batches):
        take(client)
    return [len(fake.of(SampleRequest)) - count for fake, count in zip(fakes, before, strict=True)]


def test_messages_reach_every_server_and_payloads_with_weights_only(run: Run, connect: Connect) -> None:
    with FakeReplay(run) as one, FakeReplay(run, inserts=1_000) as other:
        client = connect(one, other)
        assert min(drawn(client, 40, one, other)) >= 16, "drawn from in turn"
        client.send(PutWeights(3), b"frame")
        client.send(report())
        wait_until(lambda: one.of(LearnerReport) and other.of(LearnerReport), "the report at both")
        assert one.weights == other.weights == [b"frame"]
        assert client.env_steps > 1_000


def test_the_end_of_a_run_is_reported_until_every_server_confirms_it(run: Run, connect: Connect) -> None:
    last = msgspec.structs.replace(report(), finished=True)
    with FakeReplay(run) as one, FakeReplay(run) as other:
        client = connect(one, other)
        drawn(client, 4, one, other)
        other.silent = True
        assert not client.report_finished(last, 0.3)
        # It has restarted meanwhile, and knows neither the learner nor its report.
        other.silent = False
        other.heard.clear()
        other.forget()
        assert client.report_finished(last, 10.0)
        assert [message.finished for message in other.of(LearnerReport)[-1:]] == [True]  # type: ignore[union-attr]


def test_servers_are_drawn_from_in_proportion_to_what_they_hold(run: Run, connect: Connect) -> None:
    with FakeReplay(run, size=100) as small, FakeReplay(run, size=400) as large:
        client = connect(small, large)
        of_small, of_large = drawn(client, 100, small, large)
        assert of_small == pytest.approx(20, abs=5)
        assert of_large == pytest.approx(80, abs=5)


def test_a_server_that_holds_its_batches_back_keeps_nobody_from_the_others(run: Run, connect: Connect) -> None:
    with FakeReplay(run) as one, FakeReplay(run) as other:
        client = connect(one, other)
        drawn(client, 10, one, other)
        one.holding = "more transitions"
        call_until(client, lambda: client.waiting_for == one.holding, "the reason")
        for _ in range(40):
            take(client)
        reason, one.holding = one.holding, ""
        one.answer_held()
        call_until(client, lambda: client.waiting_for != reason, "the batches held back")
        assert min(drawn(client, 40, one, other)) >= 16, "drawn from in turn again, with no catching up"


def test_a_server_that_died_keeps_nobody_from_the_others(
    run: Run, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "SILENCE_S", 0.5)
    one = FakeReplay(run)
    with FakeReplay(run) as other:
        client = connect(one, other)
        drawn(client, 10, one, other)
        one.close()
        for _ in range(200):
            take(client)


def report() -> LearnerReport:
    return LearnerReport("learner", 1, 1.0, 1, 0.5, 0.0, 0.0, "", 0.0, -1.0, False, "")
