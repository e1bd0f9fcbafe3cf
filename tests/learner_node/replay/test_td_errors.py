"""TD errors go back to where their records came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from common.errors import PeerError
from learner_node.replay import replay_session as source
from learner_node.replay.replay_client import ShardedReplayClient
from tests.conftest import wait_until
from tests.learner_node.fake_replay import FakeReplay, small_run

from .test_replay_client import call_until, drain, take

Connect = Callable[..., ShardedReplayClient]


@pytest.fixture
def prioritised() -> Iterator[FakeReplay]:
    replay = {"batch": 16, "min_size": 32, "capacity": 1_000, "priority_exponent": 0.6}
    with FakeReplay(small_run(replay=replay)) as fake:
        yield fake


@pytest.fixture
def connect(prioritised: FakeReplay) -> Iterator[Connect]:
    """Makes clients from servers, closed with the test."""
    clients: list[ShardedReplayClient] = []

    def make(*servers: FakeReplay) -> ShardedReplayClient:
        endpoints = tuple(server.endpoint for server in servers)
        clients.append(ShardedReplayClient(prioritised.run, "learner", endpoints, 4, pin=False))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def test_errors_go_back_with_the_places_of_their_records(prioritised: FakeReplay, connect: Connect) -> None:
    client = connect(prioritised)
    batch = take(client)
    assert batch.probabilities is not None
    assert batch.sample_info is not None
    assert batch.records.shape[0] == 16
    assert batch.probabilities.dtype == torch.float32
    assert batch.probabilities.tolist() == [slot / 256 for slot in batch.sample_info["slot"]]
    errors = torch.linspace(0.0, 3.0, 16, requires_grad=True)
    client.update_priorities(batch, errors)
    wait_until(lambda: prioritised.told, "the errors")
    told = prioritised.told[0]
    assert told["value"].tolist() == errors.tolist()
    assert (told[["slot", "generation"]] == batch.sample_info[["slot", "generation"]]).all()


def test_errors_may_change_once_they_are_handed_over(prioritised: FakeReplay, connect: Connect) -> None:
    client, errors = connect(prioritised), torch.ones(16)
    client.update_priorities(take(client), errors)
    errors.fill_(9.0)
    wait_until(lambda: prioritised.told, "the errors")
    assert set(prioritised.told[0]["value"].tolist()) == {1.0}


def test_errors_go_to_the_server_their_records_came_from(prioritised: FakeReplay, connect: Connect) -> None:
    with FakeReplay(prioritised.run) as other:
        other.generation = 8
        client = connect(prioritised, other)
        for _ in range(20):
            client.update_priorities(take(client), torch.zeros(16))
        wait_until(lambda: len(prioritised.told) + len(other.told) == 20, "all errors")
        assert prioritised.told
        assert other.told
        assert {generation for places in prioritised.told for generation in places["generation"]} == {7}
        assert {generation for places in other.told for generation in places["generation"]} == {8}


@pytest.mark.slow
def test_errors_for_a_server_that_is_gone_are_dropped(
    prioritised: FakeReplay, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "SILENCE_S", 0.5)
    client = connect(prioritised)
    batch = take(client)
    prioritised.close()
    call_until(client, lambda: not client.opened, "the loss")
    client.update_priorities(batch, torch.zeros(16))


@pytest.mark.parametrize("spare", [b"", bytes(24 * 16)], ids=["none", "too many"])
def test_a_batch_with_other_places_than_its_own_ends_the_learner(
    prioritised: FakeReplay, connect: Connect, spare: bytes
) -> None:
    places = 12 * 16
    prioritised.payload = lambda count: prioritised.sample(count)[:-places] + spare
    with pytest.raises(PeerError, match="same version"):
        drain(connect(prioritised))


def test_without_priorities_batches_carry_no_probabilities() -> None:
    with FakeReplay(small_run()) as replay:
        client = ShardedReplayClient(replay.run, "learner", (replay.endpoint,), 4, pin=False)
        assert take(client).probabilities is None
        client.close()
