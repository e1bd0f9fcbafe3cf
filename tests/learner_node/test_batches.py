"""Batches come prefetched, in turn from several servers, and again after a server was lost."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from common.errors import ConfigError, PeerError
from common.messages import LearnerReport, Open, PutWeights, SampleRequest
from common.run import Run
from learner_node import source
from learner_node.batches import BatchStream
from learner_node.source import Records

from .fake_replay import FakeReplay, small_run, until


@pytest.fixture
def run() -> Run:
    return small_run()


@pytest.fixture
def replay(run: Run) -> Iterator[FakeReplay]:
    with FakeReplay(run) as fake:
        yield fake


@pytest.fixture
def stream(run: Run, replay: FakeReplay) -> Iterator[BatchStream]:
    opened = BatchStream(run, "learner", (replay.endpoint,), 4, pin=False, clock=(70, 900))
    yield opened
    opened.close()


def drain(stream: BatchStream) -> None:
    """Takes batches for as long as they come."""
    while stream.next(20.0) is not None:
        pass


def take(stream: BatchStream) -> Records:
    batch = stream.next(20.0)
    assert batch is not None
    return batch


def test_a_batch_is_the_records_the_server_sent(run: Run, replay: FakeReplay) -> None:
    sent: list[bytes] = []

    def payload(count: int) -> bytes:
        sent.append(replay.sample(count))
        return sent[-1]

    replay.payload = payload
    stream = BatchStream(run, "learner", (replay.endpoint,), 4, pin=False)
    for i in range(6):
        batch = take(stream)
        assert batch.words.numpy().tobytes() == sent[i]
        assert batch.words.dtype == torch.float32
        assert len(batch.words) == run.spec.replay.batch
    until(lambda: stream.env_steps == replay.inserts, "the clock")
    stream.close()


def test_four_batches_are_asked_for_ahead_and_no_more(replay: FakeReplay, stream: BatchStream) -> None:
    for taken in range(1, 4):
        take(stream)
        until(lambda taken=taken: len(replay.of(SampleRequest)) == 4 + taken, "the next request")  # type: ignore[misc]


def test_the_learner_tells_how_far_it_knows_the_run(replay: FakeReplay, stream: BatchStream) -> None:
    take(stream)
    opening = replay.of(Open)[0]
    assert isinstance(opening, Open)
    assert (opening.inserts, opening.samples, opening.run) == (70, 900, replay.run)


def test_why_no_batch_comes_is_what_the_server_says(replay: FakeReplay, stream: BatchStream) -> None:
    replay.holding = "32 transitions, 12 are there"
    until(lambda: stream.waiting_for == replay.holding, "the reason")
    assert stream.opened


def test_without_a_server_it_names_the_address(run: Run) -> None:
    stream = BatchStream(run, "learner", ("tcp://127.0.0.1:1",), 4, pin=False)
    assert stream.next(0.01) is None
    assert stream.waiting_for == "the replay server at tcp://127.0.0.1:1"
    assert not stream.opened
    stream.close()


def test_an_address_that_is_none_is_the_users_mistake(run: Run) -> None:
    with pytest.raises(ConfigError, match="--replay somewhere"):
        BatchStream(run, "learner", ("somewhere",), 4, pin=False)


def test_a_server_that_forgot_the_learner_is_opened_again(replay: FakeReplay, stream: BatchStream) -> None:
    take(stream)
    replay.forget()
    for _ in range(10):
        take(stream)
    assert len(replay.of(Open)) == 2


def test_a_server_that_died_is_found_again_at_its_address(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "SILENCE_S", 0.5)
    first = FakeReplay(run)
    stream = BatchStream(run, "learner", (first.endpoint,), 4, pin=False)
    take(stream)
    first.close()
    while stream.next(0.05) is not None:
        pass
    with FakeReplay(run, first.endpoint, inserts=5_000) as second:
        for _ in range(10):
            take(stream)
        until(lambda: stream.env_steps == second.inserts, "the new clock")
    stream.close()


def test_a_server_that_hears_but_does_not_answer_is_opened_again(
    replay: FakeReplay, stream: BatchStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "SILENCE_S", 0.5)
    take(stream)
    replay.silent = True
    until(lambda: len(replay.of(Open)) >= 2, "the second Open")
    replay.silent = False
    for _ in range(10):
        take(stream)


def test_a_refusal_ends_the_learner_with_its_reason(replay: FakeReplay, stream: BatchStream) -> None:
    replay.refusing = "another run is trained here"
    replay.forget()
    with pytest.raises(PeerError, match="another run is trained here"):
        drain(stream)


def test_a_batch_of_the_wrong_size_ends_the_learner(replay: FakeReplay, stream: BatchStream) -> None:
    replay.payload = lambda count: replay.sample(count)[:-4]
    with pytest.raises(PeerError, match="same version"):
        drain(stream)


def test_non_finite_numbers_never_reach_the_networks(replay: FakeReplay, stream: BatchStream) -> None:
    def payload(count: int) -> bytes:
        words = np.frombuffer(replay.sample(count), np.float32).copy()
        words[5] = np.nan if len(replay.of(SampleRequest)) % 2 else 0.0
        return words.tobytes()

    replay.payload = payload
    batches = [take(stream) for _ in range(12)]
    assert stream.rejected > 0
    assert all(torch.isfinite(batch.words[:, :-1]).all() for batch in batches[4:])


def test_a_batch_is_complete_when_every_agent_acts_and_goes_on(replay: FakeReplay, stream: BatchStream) -> None:
    assert take(stream).complete
    replay._records["discount"][:, 1] = 0.0
    for _ in range(5):
        batch = take(stream)
    assert not batch.complete


def test_versions_that_are_no_floats_do_no_harm(replay: FakeReplay, stream: BatchStream) -> None:
    def payload(count: int) -> bytes:
        words = np.frombuffer(replay.sample(count), np.uint32).reshape(count, -1).copy()
        words[:, -1] = 0x7FC0_0000
        return words.tobytes()

    replay.payload = payload
    for _ in range(8):
        take(stream)
    assert stream.rejected == 0


def test_messages_reach_every_server_and_payloads_with_weights_only(run: Run) -> None:
    with FakeReplay(run) as one, FakeReplay(run, inserts=1_000) as other:
        stream = BatchStream(run, "learner", (one.endpoint, other.endpoint), 4, pin=False)
        while not (one.of(SampleRequest) and other.of(SampleRequest)):
            take(stream)
        before = [len(fake.of(SampleRequest)) for fake in (one, other)]
        for _ in range(40):
            take(stream)
        grown = [len(fake.of(SampleRequest)) - count for fake, count in zip((one, other), before, strict=True)]
        assert min(grown) >= 16, "drawn from in turn"
        stream.send(PutWeights(3), b"frame")
        stream.send(report())
        until(lambda: one.of(LearnerReport) and other.of(LearnerReport), "the report at both")
        assert one.weights == other.weights == [b"frame"]
        assert stream.env_steps > 1_000
        stream.close()


def report() -> LearnerReport:
    return LearnerReport("learner", 1, 1.0, 1, 0.5, 0.0, 0.0, "", 0.0, -1.0, False, "")
