"""Sockets with keys: who is admitted, what a refused client learns, and changes of the list while serving."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from common.errors import PeerError
from common.wire.authenticator import Authenticator
from common.wire.client import Client
from common.wire.codec import encode
from common.wire.keys import ClientKind, load_keys
from common.wire.messages import NotReady, Status, StatusRequest
from common.wire.sockets import bind, make_socket, receive_from, send
from learner_node.publishing.broadcast import MAX_SUBSCRIPTION_BYTES, Broadcast
from shoal.commands.keys import make_keys, revoke_client
from tests.common import zmtp
from tests.conftest import wait_until

FRAME_BYTES = 2**20


class Guarded:
    """A ROUTER of the test's own, with keys or without."""

    def __init__(self, directory: Path, *, locked: bool = True) -> None:
        self.context = zmq.Context()
        keys = load_keys(str(directory / "replay")) if locked else None
        self.authenticator = Authenticator(self.context, keys) if keys else None
        self.socket = make_socket(self.context, zmq.ROUTER, max_frame_bytes=FRAME_BYTES)
        if keys:
            keys.secure_server(self.socket)
        self.endpoint = bind(self.socket, "tcp://127.0.0.1:0", "--bind")

    def take(self, timeout_s: float = 5.0) -> ClientKind | None:
        """Answers one message and returns what its sender may do."""
        assert self.socket.poll(int(timeout_s * 1_000)), "nothing came"
        sender, _ = receive_from(self.socket)
        send(self.socket, [sender.bytes, *encode(NotReady("here"))])
        return self.authenticator.kind_of(sender) if self.authenticator else None

    def silent(self, timeout_ms: int = 50) -> bool:
        return not self.socket.poll(timeout_ms)

    def close(self) -> None:
        if self.authenticator:
            self.authenticator.close()
        self.context.destroy(linger=0)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys", ["carol"])
    return tmp_path / "keys"


@pytest.fixture
def serve(keys: Path) -> Iterator[Callable[..., Guarded]]:
    started: list[Guarded] = []

    def make(*, locked: bool = True) -> Guarded:
        started.append(Guarded(keys, locked=locked))
        return started[-1]

    yield make
    for server in started:
        server.close()


@pytest.fixture
def connect() -> Iterator[Callable[[Guarded, Path | None], Client]]:
    with zmq.Context() as context:
        yield lambda server, own: Client(context, server.endpoint, keys=load_keys(str(own)) if own else None)
        context.destroy(linger=0)


Serve = Callable[..., Guarded]
Connect = Callable[[Guarded, Path | None], Client]


def gets_in(client: Client) -> bool:
    client.connection_error()
    return client.send(StatusRequest())


@pytest.mark.parametrize(("name", "kind"), [("learner", "learner"), ("actor", "actor"), ("carol", "actor")])
def test_who_is_on_the_list_gets_in_and_is_known(
    serve: Serve, connect: Connect, keys: Path, name: str, kind: str
) -> None:
    server = serve()
    client = connect(server, keys / name)
    wait_until(lambda: gets_in(client), "a connection")
    assert server.take() == kind
    assert client.receive(5.0) == (NotReady("here"), None)
    assert client.connection_error() == ""


REASONS = {
    "stranger": r"add a line with 'stranger \S{40}' in the server's allowed_clients",
    "outdated": r"it has no keys, its key is not the one in '.*/outdated'",
    "": r"the server asks for a key.*pass --keys DIR \(`shoal keys` creates",
    # Either side may end the handshake first. If the server does, its reason is not known.
    "actor": r"(the server|it) has no keys",
}


@pytest.mark.parametrize("own", REASONS, ids=["not on the list", "another server's key", "no key", "a keyless server"])
def test_a_refused_client_learns_why_and_sends_nothing(serve: Serve, connect: Connect, keys: Path, own: str) -> None:
    server = serve(locked=own != "actor")
    make_keys(keys.parent / "others", ["stranger", "outdated"])
    for name in ("stranger", "outdated"):
        (keys.parent / "others" / name).rename(keys / name)
    (keys / "stranger" / "replay.key").write_text((keys / "actor" / "replay.key").read_text())
    client = connect(server, keys / own if own else None)

    wait_until(client.connection_error, "a reason")

    assert re.search(REASONS[own], client.connection_error())
    with pytest.raises(PeerError, match=REASONS[own]):
        client.ask(StatusRequest(), Status, timeout_s=0.05)
    assert server.silent()


@pytest.mark.slow
def test_the_list_is_changed_without_a_restart(
    serve: Serve, connect: Connect, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    revoke_text = (keys / "replay" / "allowed_clients").read_text()
    (keys / "replay" / "allowed_clients").write_text("")
    client = connect(server, keys / "carol")
    with caplog.at_level(logging.WARNING):
        wait_until(client.connection_error, "a reason")
        own = load_keys(str(keys / "carol"))
        assert own
        wait_until(lambda: own.public.decode() in caplog.text, "the server's log to name the key")

    (keys / "replay" / "allowed_clients").write_text(revoke_text)
    wait_until(lambda: gets_in(client), "the client to connect again")
    assert server.take() == "actor"

    revoke_client(keys, "carol")

    def shut_out() -> bool:
        client.send(StatusRequest())
        return server.take() is None

    wait_until(shut_out, "the client that is in to be shut out")


def test_a_name_that_gets_another_key_shuts_the_old_key_out(serve: Serve, connect: Connect, keys: Path) -> None:
    server = serve()
    client, own = connect(server, keys / "carol"), load_keys(str(keys / "carol"))
    wait_until(lambda: gets_in(client), "a connection")
    assert server.take() == "actor"
    assert own
    allowed = keys / "replay" / "allowed_clients"
    new, _ = zmq.curve_keypair()
    allowed.write_text(allowed.read_text().replace(own.public.decode(), new.decode()))

    def shut_out() -> bool:
        client.send(StatusRequest())
        return server.take() is None

    wait_until(shut_out, "the old key to be shut out")


def test_while_the_list_cannot_be_read_nobody_new_gets_in_and_the_others_stay(
    serve: Serve, connect: Connect, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    inside = connect(server, keys / "actor")
    wait_until(lambda: gets_in(inside), "a connection")
    assert server.take() == "actor"

    with (keys / "replay" / "allowed_clients").open("a") as file:
        file.write("actor dora\n")
    outside = connect(server, keys / "carol")
    wait_until(outside.connection_error, "a reason")

    assert "line 6" in caplog.text
    assert inside.send(StatusRequest())
    assert server.take() == "actor"


def test_without_its_authenticator_a_server_admits_nobody(serve: Serve, connect: Connect, keys: Path) -> None:
    server = serve()
    assert server.authenticator
    server.authenticator.close()
    client = connect(server, keys / "actor")
    wait_until(client.connection_error, "a reason")
    assert server.silent()


def test_a_peer_without_keys_is_cut_off_before_it_has_sent_anything(serve: Serve) -> None:
    server = serve()
    with contextlib.suppress(OSError), zmtp.greet(server.endpoint) as peer:
        for _ in range(64):
            peer.sendall(zmtp.frame(b"x" * 2**16, zmtp.MORE))
        pytest.fail("4 MiB of a message without end were taken")
    assert server.silent()


def test_a_broadcast_takes_only_small_subscriptions() -> None:
    broadcast = Broadcast("tcp://127.0.0.1:*")
    with contextlib.closing(broadcast), zmtp.greet(broadcast.endpoint, b"SUB") as peer:
        peer.sendall(bytes([2]) + (MAX_SUBSCRIPTION_BYTES + 1).to_bytes(8, "big"))
        received = b"?"
        while received:  # the rest of its greeting, then the end
            received = peer.recv(4096)


def test_a_frame_is_bounded_by_what_it_claims(serve: Serve) -> None:
    server = serve(locked=False)
    with zmtp.greet(server.endpoint) as peer:
        peer.sendall(bytes([2]) + (FRAME_BYTES + 1).to_bytes(8, "big"))
        received = b"?"
        while received:  # the rest of its greeting, then the end, at the length, before any of it is sent
            received = peer.recv(4096)
