"""A replay server that waits for Redis says so to whoever asks; and Redis servers that cannot be used are named."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from common.wire.client import Client
from common.wire.keys import load_keys
from common.wire.messages import Bye, Hello, NotReady, Open, Opened, Status, StatusRequest, ToPeer, Unknown
from replay_server.config import ReplayConfig
from replay_server.not_ready import NotReadyServer
from replay_server.replay import Replay
from shoal.commands.keys import make_keys
from tests.conftest import PATIENCE_S, wait_until
from tests.replay_server.conftest import Valkey
from tests.replay_server.peers import Server
from tests.replay_server.runs import make_run


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


def answer_to(client: Client, message: Hello | Open | StatusRequest | Bye) -> ToPeer:
    """Returns what comes back; sent again until something does, as peers do."""
    found: list[ToPeer] = []

    def answered() -> bool:
        client.send(message)
        received = client.receive(0.2)
        if received:
            found.append(received[0])
        return bool(received)

    wait_until(answered, f"an answer to {message}")
    while client.receive(0.2):
        pass
    return found[0]


def test_everybody_is_told_that_redis_is_awaited_and_served_once_it_is_there(
    valkey: Valkey, tmp_path_factory: pytest.TempPathFactory, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    valkey.kill()
    valkey.socket.unlink(missing_ok=True)
    server = Server(tmp_path_factory.mktemp("r"), "--redis", valkey.url)
    server.start()
    client = Client(context, server.endpoint)
    run = make_run()
    try:
        waits = f"waiting for Redis at {valkey.url}"
        status = answer_to(client, StatusRequest())
        assert isinstance(status, Status)
        assert status.waiting[0].startswith(f"the replay server is {waits}")
        for message in (Hello("actor-0", 0, 0, ""), Open("learner", run, 0, 0)):
            not_ready = answer_to(client, message)
            assert isinstance(not_ready, NotReady), not_ready
            assert not_ready.reason.startswith(f"the replay server, which is {waits}")
        assert isinstance(answer_to(client, Bye("actor-0", 1)), Unknown)

        valkey.start()

        def opened() -> bool:
            return isinstance(answer_to(client, Open("learner", run, 0, 0)), Opened)

        wait_until(opened, f"the server serves; {server.log.read_text()}")
        assert server.status().run == run
    finally:
        client.close()
        server.end(signal.SIGTERM)


def test_it_answers_only_those_that_have_a_key(tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    make_keys(tmp_path / "keys", [])
    keys = load_keys(str(tmp_path / "keys" / "replay"))
    waiting = NotReadyServer(Replay(ReplayConfig(durability="ram"), 0.0), "tcp://127.0.0.1:0", keys)
    waiting.set_reason("waiting for Redis")
    stranger = Client(context, waiting.endpoint)
    actor = Client(context, waiting.endpoint, keys=load_keys(str(tmp_path / "keys" / "actor")))
    try:
        assert isinstance(answer_to(actor, Hello("a", 0, 0, "")), NotReady)
        assert not stranger.send(StatusRequest())
        assert "the server asks for a key" in stranger.connection_error()
    finally:
        stranger.close()
        actor.close()
        waiting.close()


def test_a_server_that_never_waits_holds_no_address(tmp_path: Path) -> None:
    waiting = NotReadyServer(Replay(ReplayConfig(durability="ram"), 0.0), f"ipc://{tmp_path / 's'}", None)
    waiting.close()
    assert not (tmp_path / "s").exists()


def ends_with(directory: Path, url: str) -> str:
    """Returns the last line of a replay server that ends by itself with exit code 2."""
    server = Server(directory, "--redis", url)
    server.start()
    assert server._process
    assert server._process.wait(PATIENCE_S) == 2, server.log.read_text()
    return server.log.read_text().splitlines()[-1]


def test_a_database_that_does_not_exist_is_named(valkey: Valkey, tmp_path: Path) -> None:
    assert "not have a database of that number" in ends_with(tmp_path, f"{valkey.url}?db=99")


def test_a_read_only_replica_is_named_at_the_start(make_valkey: Callable[..., Valkey], tmp_path: Path) -> None:
    replica = make_valkey("--replicaof", "127.0.0.1 1")
    assert "is a read-only replica of 127.0.0.1:1; pass the address of its primary" in ends_with(tmp_path, replica.url)


def test_a_cluster_is_named(make_valkey: Callable[..., Valkey], tmp_path: Path) -> None:
    node = make_valkey("--cluster-enabled", "yes")
    server = Server(tmp_path, "--redis", node.url)
    server.start()
    assert server._process
    assert server._process.wait(PATIENCE_S) == 3, server.log.read_text()
    assert "it is one node of a Redis Cluster" in server.log.read_text()
