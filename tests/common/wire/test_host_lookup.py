"""Hosts that cannot be found, and addresses of IPv6."""

from __future__ import annotations

import contextlib
import socket
import time
import urllib.request
from collections.abc import Iterator

import pytest
import zmq
from prometheus_client import CollectorRegistry

from common.errors import ConfigError, PeerError
from common.process.monitoring.health import Health, HttpPort
from common.wire.client import Client
from common.wire.host_lookup import HostLookup, host_of, is_ipv6, is_numeric
from common.wire.messages import Status, StatusRequest
from common.wire.sockets import bind, connect, is_local, make_socket
from tests.conftest import wait_until

NOWHERE = "nowhere.invalid"
"""A name that no resolver may know (RFC 6761)."""


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.mark.parametrize(
    ("endpoint", "host", "numeric", "ipv6"),
    [
        ("tcp://replay-0.shoal:5555", "replay-0.shoal", False, False),
        ("tcp://127.0.0.1:5555", "127.0.0.1", True, False),
        ("tcp://[::1]:5555", "::1", True, True),
        ("tcp://[fe80::1%eth0]:5555", "fe80::1%eth0", True, True),
        ("tcp://*:5555", "*", True, False),
        ("ipc:///tmp/a:b", "", True, False),
    ],
)
def test_the_host_of_an_address(endpoint: str, host: str, numeric: bool, ipv6: bool) -> None:
    assert host_of(endpoint) == host
    assert (is_numeric(host), is_ipv6(host)) == (numeric, ipv6)


def test_a_name_that_does_not_exist_is_said_and_one_that_does_is_not() -> None:
    lookups = [HostLookup(f"tcp://{host}:5555") for host in (NOWHERE, "localhost")]
    wait_until(lambda: lookups[0].error, "the lookup's end")
    assert lookups[0].error.startswith(f"{NOWHERE} cannot be resolved")
    assert not lookups[1].error


def test_a_client_says_that_the_host_cannot_be_resolved(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    client = Client(context, f"tcp://{NOWHERE}:5555")
    wait_until(client.connection_error, "the lookup's end")
    with pytest.raises(PeerError, match=rf"no replay server answers at .*: {NOWHERE} cannot be resolved"):
        client.ask(StatusRequest(), Status, timeout_s=0.1)
    client.close()


def test_ipv6_is_enabled_where_the_address_needs_it(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    for endpoint, wanted in (("tcp://[::1]:5555", 1), ("tcp://127.0.0.1:5555", 0), ("tcp://localhost:5555", 0)):
        made = make_socket(context, zmq.DEALER, max_frame_bytes=100)
        connect(made, endpoint, "--replay")
        assert made.getsockopt(zmq.IPV6) == wanted


@needs_ipv6
def test_peers_meet_over_ipv6(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    server = make_socket(context, zmq.ROUTER, max_frame_bytes=100)
    endpoint = bind(server, "tcp://[::1]:0", "--bind")
    assert is_local(endpoint)
    client = make_socket(context, zmq.DEALER, max_frame_bytes=100)
    connect(client, endpoint, "--replay")
    client.send(b"word")
    assert server.poll(10_000)
    assert server.recv_multipart()[1] == b"word"
    with pytest.raises(ConfigError, match="the address is in use"):
        bind(make_socket(context, zmq.ROUTER, max_frame_bytes=100), endpoint, "--bind")


@needs_ipv6
def test_metrics_are_served_over_ipv6() -> None:
    http = HttpPort("::1", 0, CollectorRegistry(), Health())
    try:
        assert http.url.startswith("http://[::1]:")
        with urllib.request.urlopen(http.url, timeout=10) as answer:
            assert answer.status == 200
    finally:
        http.close()


def test_a_lookup_is_not_repeated_at_once() -> None:
    lookup = HostLookup(f"tcp://{NOWHERE}:5555")
    wait_until(lambda: lookup.error, "the lookup's end")
    first = lookup._thread
    lookup.poll(time.monotonic())
    assert lookup._thread is first
    lookup.poll(time.monotonic() + 60.0)
    assert lookup._thread is not first
