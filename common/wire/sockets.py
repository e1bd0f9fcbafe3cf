"""ZeroMQ sockets with Shoal's bounds and heartbeats: create, bind, connect, and require keys for remote addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from common.errors import ConfigError
from common.wire.codec import Buffer
from common.wire.handshake import HandshakeMonitor
from common.wire.host_lookup import host_of, is_ipv6
from common.wire.keys import Keys, ServerName, require_safe_libzmq
from common.wire.socket_file import require_unused

HEARTBEAT_MS = 2_000
HEARTBEAT_TIMEOUT_MS = 6_000
HEARTBEAT_TTL_MS = 10_000
HANDSHAKE_MS = 5_000
RECONNECT_MAX_MS = 2_000
ZERO_COPY_BYTES = 65_536
"""Frames from this size on are sent without a copy."""


def send(socket: zmq.Socket[bytes], frames: Sequence[Buffer], *, flags: int = 0) -> None:
    """Sends one message. Large frames are not copied, so the caller must not change them afterwards."""
    *parts, last = frames
    for part in parts:
        socket.send(part, flags | zmq.SNDMORE, copy=len(part) < ZERO_COPY_BYTES)
    socket.send(last, flags, copy=len(last) < ZERO_COPY_BYTES)


def receive(socket: zmq.Socket[bytes]) -> list[memoryview]:
    """Receives one whole message without a copy; raises zmq.Again if there is none."""
    # recv_multipart() takes three times as long: it queries the socket for what the frame itself states (more).
    frame = socket.recv(zmq.NOBLOCK, copy=False)
    frames = [memoryview(frame.buffer)]
    while frame.more:
        frame = socket.recv(copy=False)
        frames.append(memoryview(frame.buffer))
    return frames


def receive_from(socket: zmq.Socket[bytes]) -> tuple[zmq.Frame, list[memoryview]]:
    """Receives one whole message of a ROUTER without a copy: the sender's routing id, and the other frames.

    Raises zmq.Again if there is none.
    """
    sender = frame = socket.recv(zmq.NOBLOCK, copy=False)
    frames = []
    while frame.more:
        frame = socket.recv(copy=False)
        frames.append(memoryview(frame.buffer))
    return sender, frames


def make_socket(context: zmq.Context[zmq.Socket[bytes]], kind: int, *, max_frame_bytes: int) -> zmq.Socket[bytes]:
    """Returns a new socket with heartbeats, bounded frames, and no linger after close."""
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, max_frame_bytes)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TTL_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    return socket


def is_local(endpoint: str) -> bool:
    """Returns whether only processes of this machine can reach a ZeroMQ endpoint."""
    scheme = endpoint.partition("://")[0]
    if scheme != "tcp":
        return scheme in ("ipc", "inproc")
    host = host_of(endpoint)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_local(endpoint: str, option: str, *, insecure: bool, keys: bool = False) -> None:
    """Raises ConfigError for an address that other machines can reach, unless there are keys or --insecure is given."""
    if is_local(endpoint):
        return
    if not (keys or insecure):
        raise ConfigError(
            f"{option} {endpoint} can be reached from other machines without authentication. Create keys with `shoal"
            " keys DIR` and pass --keys, bind to 127.0.0.1, or pass --insecure if the network is private."
        )
    require_safe_libzmq(f"{option} {endpoint}")


def bind(socket: zmq.Socket[bytes], endpoint: str, option: str) -> str:
    """Binds a socket and returns the resolved endpoint; port 0 takes any free port. ConfigError if it cannot bind."""
    require_unused(endpoint, option)
    return _attach(socket.bind, socket, endpoint, option)


def connect(socket: zmq.Socket[bytes], endpoint: str, option: str) -> str:
    """Connects a socket in the background and returns the endpoint; ConfigError if the endpoint is malformed."""
    return _attach(socket.connect, socket, endpoint, option)


def connect_secure(
    socket: zmq.Socket[bytes], endpoint: str, option: str, keys: Keys | None, server: ServerName
) -> HandshakeMonitor:
    """Connects a socket, encrypted if keys are given, and returns the monitor of its handshake.

    Raises ConfigError if the endpoint is malformed, or if `keys` lacks the public key of the server.
    """
    if keys:
        keys.secure_client(socket, server)
    monitor = HandshakeMonitor(socket, endpoint, keys)
    connect(socket, endpoint, option)
    return monitor


def _attach(attach: Callable[[str], Any], socket: zmq.Socket[bytes], endpoint: str, option: str) -> str:
    if is_ipv6(host_of(endpoint)):
        # Only where the address needs it: with this option, libzmq creates IPv6 sockets for IPv4 addresses, too.
        socket.setsockopt(zmq.IPV6, 1)
    try:
        attach(endpoint)
    except zmq.ZMQError as e:
        if e.errno == zmq.EADDRINUSE:
            raise ConfigError(
                f"{option} {endpoint}: the address is in use. Stop the process that uses it or pass another port."
            ) from e
        raise ConfigError(
            f"{option} {endpoint}: {e.strerror}. Write tcp://HOST:PORT, tcp://[IPV6]:PORT or ipc://PATH."
        ) from e
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)
