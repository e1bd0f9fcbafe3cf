import re

import numpy as np
import pytest
import zmq

from common.errors import ConfigError, PeerError, ProtocolError
from common.wire.client import Client
from common.wire.codec import checksum, decode_from_peer, encode
from common.wire.messages import Ack, Bye, Chunk, Hello, NotReady, Refused, SampleRequest, Status, StatusRequest
from common.wire.sockets import ZERO_COPY_BYTES, bind, connect, is_local, make_socket, receive, require_local, send


@pytest.fixture
def context():
    with zmq.Context() as made:
        yield made
        made.destroy(linger=0)


@pytest.fixture
def server(context):
    """A ROUTER bound to a free port: a peer of the test's own."""
    return Server(context)


class Server:
    def __init__(self, context):
        self.socket = make_socket(context, zmq.ROUTER, max_frame_bytes=2**20)
        self.endpoint = bind(self.socket, "tcp://127.0.0.1:0", "--bind")

    def take(self):
        assert self.socket.poll(5_000), "nothing came"
        peer, *frames = receive(self.socket)
        return bytes(peer), decode_from_peer(frames)

    def answer(self, peer, message, payload=None):
        send(self.socket, [peer, *encode(message, payload)])


@pytest.fixture
def client(context, server):
    made = Client(context, server.endpoint)
    assert made.socket.poll(5_000, zmq.POLLOUT), "no connection"
    return made


@pytest.mark.parametrize("size", [1, ZERO_COPY_BYTES - 1, ZERO_COPY_BYTES, 700_000])
def test_a_message_with_its_payload_arrives(client, server, size):
    payload = np.random.default_rng(0).bytes(size)
    assert client.send(Chunk("a", 1, 1, 3, 0, checksum(payload), "00"), payload)
    peer, (message, received) = server.take()
    assert (message.count, bytes(received)) == (3, payload)
    server.answer(peer, Ack(1, 1, 2, ""))
    assert client.receive(timeout_s=5) == (Ack(1, 1, 2, ""), None)


def test_a_client_that_hears_nothing_says_so_at_once(client):
    assert client.receive() is None


def test_an_answer_that_is_malformed_is_a_protocol_error_and_the_next_one_is_read(client, server):
    client.send(StatusRequest())
    peer, _ = server.take()
    server.socket.send_multipart([peer, b"\xc1"])
    server.answer(peer, NotReady("no run"))
    with pytest.raises(ProtocolError):
        client.receive(timeout_s=5)
    assert client.receive(timeout_s=5) == (NotReady("no run"), None)


def test_a_client_without_a_server_keeps_nothing_for_it(context):
    alone = Client(context, "tcp://127.0.0.1:1")
    assert not alone.send(Hello("a", 0, 0, ""))


def test_a_full_queue_is_reported_without_a_wait(context):
    endpoint = "inproc://full"
    stuck = context.socket(zmq.ROUTER)
    stuck.setsockopt(zmq.RCVHWM, 1)
    stuck.bind(endpoint)
    client = Client(context, endpoint)
    sent = 0
    while client.send(SampleRequest(sent, 1)):
        sent += 1
        assert sent < 10_000, "an unbounded queue"


def test_a_frame_over_the_limit_ends_that_connection_only(context, server, client):
    rude = Client(context, server.endpoint)
    rude.socket.poll(5_000, zmq.POLLOUT)
    rude.send(Bye("rude", 1), b"x" * (2**20 + 1))
    client.send(Bye("polite", 1))
    assert server.take()[1][0] == Bye("polite", 1)
    assert not server.socket.poll(100)


def test_asking_returns_the_answer(client, server):
    client.send(StatusRequest())
    peer, _ = server.take()
    server.answer(peer, NotReady("later"))
    assert client.ask(StatusRequest(), NotReady, timeout_s=5) == NotReady("later")


def test_asking_nobody_is_an_error_that_names_the_endpoint(context):
    with pytest.raises(PeerError, match=r"no replay server answers at tcp://127\.0\.0\.1:1"):
        Client(context, "tcp://127.0.0.1:1").ask(StatusRequest(), Status, timeout_s=0.05)


def test_asking_someone_who_is_silent_is_an_error(client):
    with pytest.raises(PeerError, match="no replay server answers"):
        client.ask(StatusRequest(), Status, timeout_s=0.05)


def test_an_answer_of_another_kind_is_an_error_with_its_reason(client, server):
    client.send(StatusRequest())
    peer, _ = server.take()
    server.answer(peer, Refused("not today"))
    with pytest.raises(PeerError, match=r"Refused: not today"):
        client.ask(StatusRequest(), Status, timeout_s=5)


def test_a_port_in_use_is_a_config_error_with_a_way_out(context, server):
    with pytest.raises(ConfigError, match=rf"--bind {server.endpoint}: the address is in use\. .*another port"):
        bind(context.socket(zmq.ROUTER), server.endpoint, "--bind")


@pytest.mark.parametrize("endpoint", ["127.0.0.1:5555", "tcp://127.0.0.1", "http://127.0.0.1:1", "", "tcp://*:port"])
def test_a_malformed_address_is_a_config_error(context, endpoint):
    with pytest.raises(ConfigError, match=r"--replay .*Write tcp://HOST:PORT, .*or ipc://PATH"):
        connect(context.socket(zmq.DEALER), endpoint, "--replay")


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        ("tcp://127.0.0.1:5555", True),
        ("tcp://127.8.8.8:5555", True),
        ("tcp://[::1]:5555", True),
        ("tcp://localhost:5555", True),
        ("ipc:///tmp/replay", True),
        ("inproc://replay", True),
        ("tcp://*:5555", False),
        ("tcp://0.0.0.0:5555", False),
        ("tcp://[::]:5555", False),
        ("tcp://eth0:5555", False),
        ("tcp://10.0.0.1:5555", False),
        ("tcp://localhost.example.org:5555", False),
        ("udp://127.0.0.1:5555", False),
        ("127.0.0.1:5555", False),
    ],
)
def test_an_address_that_strangers_could_reach_needs_to_be_asked_for(endpoint, local):
    assert is_local(endpoint) is local
    require_local(endpoint, "--bind", insecure=True)
    if local:
        require_local(endpoint, "--bind", insecure=False)
    else:
        with pytest.raises(ConfigError, match=re.escape(f"--bind {endpoint} can be reached from other machines")):
            require_local(endpoint, "--bind", insecure=False)


def test_port_zero_is_any_free_port(server):
    assert int(server.endpoint.rpartition(":")[2]) > 0
