"""Messages <-> frames, the limits of both, and the sockets they travel on.

A message is one msgpack header frame, validated against its struct, and at most one raw payload frame. Nothing is
unpickled or evaluated. ZMQ_MAXMSGSIZE bounds a frame before it is allocated and `_decode` the parts of a whole message;
libzmq itself does not bound the parts of a message that never ends, so a server off loopback lets in only those whose
keys it knows (gate.py), and what is left of it stands in docs/security.md.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import crc32c as crc32c_library
import msgspec
import zmq

from common.errors import ConfigError, PeerError, ProtocolError
from common.handshake import Handshake
from common.host_lookup import host_of, is_ipv6
from common.ipc_file import refuse_taken
from common.keys import Keys, ServerName, require_safe_libzmq
from common.messages import FromPeer, Message, ToPeer

MAX_HEADER_BYTES = 256 * 2**10
MAX_PEER_FRAME_BYTES = 64 * 2**20
"""Largest frame a server takes from a peer."""
MAX_SERVER_FRAME_BYTES = 1024 * 2**20
"""Largest frame a peer takes from its server: a batch."""

HEARTBEAT_MS = 2_000
HEARTBEAT_TIMEOUT_MS = 6_000
HEARTBEAT_TTL_MS = 10_000
HANDSHAKE_MS = 5_000
RECONNECT_MAX_MS = 2_000
ZERO_COPY_BYTES = 65_536

Buffer = bytes | memoryview
Frames = list[Buffer]
_M = TypeVar("_M")

# Made once: a decoder of all kinds takes twenty times as long to make as to use.
_FROM_PEER: msgspec.msgpack.Decoder[FromPeer] = msgspec.msgpack.Decoder(FromPeer)
_TO_PEER: msgspec.msgpack.Decoder[ToPeer] = msgspec.msgpack.Decoder(ToPeer)


def encode(message: Message, payload: Buffer | None = None) -> Frames:
    """Returns the frames of a message."""
    header = msgspec.msgpack.encode(message)
    return [header] if payload is None else [header, payload]


def decode_from_peer(frames: Sequence[Buffer]) -> tuple[FromPeer, Buffer | None]:
    """Opens what a server received; ProtocolError says why it cannot."""
    return _decode(frames, _FROM_PEER)


def decode_to_peer(frames: Sequence[Buffer]) -> tuple[ToPeer, Buffer | None]:
    """Opens what a server sent; ProtocolError says why it cannot."""
    return _decode(frames, _TO_PEER)


def _decode(frames: Sequence[Buffer], decoder: msgspec.msgpack.Decoder[Any]) -> tuple[Any, Buffer | None]:
    if not 1 <= len(frames) <= 2:
        raise ProtocolError(f"message of {len(frames)} parts")
    header = frames[0]
    if len(header) > MAX_HEADER_BYTES:
        raise ProtocolError(f"header of {len(header)} bytes")
    try:
        message = decoder.decode(header)
    except (ValueError, RecursionError, msgspec.DecodeError) as e:
        raise ProtocolError(f"header: {e}") from e
    return message, frames[1] if len(frames) == 2 else None


def checksum(payload: Buffer) -> int:
    """Returns the CRC-32C of a payload."""
    return int(crc32c_library.crc32c(payload))


def send(socket: zmq.Socket[bytes], frames: Sequence[Buffer], *, flags: int = 0) -> None:
    """Sends frames, large ones without copying: they must not change afterwards."""
    *parts, last = frames
    for part in parts:
        socket.send(part, flags | zmq.SNDMORE, copy=len(part) < ZERO_COPY_BYTES)
    socket.send(last, flags, copy=len(last) < ZERO_COPY_BYTES)


def receive(socket: zmq.Socket[bytes]) -> list[memoryview]:
    """Receives one whole message without copying; raises zmq.Again when there is none."""
    # recv_multipart() takes three times as long: it asks the socket after each frame what the frame itself tells.
    frame = socket.recv(zmq.NOBLOCK, copy=False)
    frames = [memoryview(frame.buffer)]
    while frame.more:
        frame = socket.recv(copy=False)
        frames.append(memoryview(frame.buffer))
    return frames


def receive_from(socket: zmq.Socket[bytes]) -> tuple[zmq.Frame, list[memoryview]]:
    """Receives one whole message of a ROUTER without copying: its sender, and the rest. zmq.Again if there is none."""
    sender = frame = socket.recv(zmq.NOBLOCK, copy=False)
    frames = []
    while frame.more:
        frame = socket.recv(copy=False)
        frames.append(memoryview(frame.buffer))
    return sender, frames


def make_socket(context: zmq.Context[zmq.Socket[bytes]], kind: int, *, max_frame_bytes: int) -> zmq.Socket[bytes]:
    """Returns a socket with heartbeats, bounded frames, and no lingering after close."""
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
    """Says whether only this machine can reach a ZeroMQ endpoint."""
    scheme = endpoint.partition("://")[0]
    if scheme != "tcp":
        return scheme in ("ipc", "inproc")
    host = host_of(endpoint)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_local(endpoint: str, option: str, *, insecure: bool, keys: bool = False) -> None:
    """Raises ConfigError for an address that strangers could reach, unless keys guard it or it is asked for."""
    if is_local(endpoint):
        return
    if not (keys or insecure):
        raise ConfigError(
            f"{option} {endpoint} can be reached from other machines and nothing guards it; give it keys (`shoal keys"
            " DIR` makes them, then --keys), bind to 127.0.0.1, or write --insecure if the network is private"
        )
    require_safe_libzmq(f"{option} {endpoint}")


def bind(socket: zmq.Socket[bytes], endpoint: str, option: str) -> str:
    """Binds and returns the endpoint as resolved (port 0 = any free one); ConfigError gives a way out."""
    refuse_taken(endpoint, option)
    return _attach(socket.bind, socket, endpoint, option)


def connect(socket: zmq.Socket[bytes], endpoint: str, option: str) -> str:
    """Connects, in the background; ConfigError when the endpoint cannot be one."""
    return _attach(socket.connect, socket, endpoint, option)


def knock(socket: zmq.Socket[bytes], endpoint: str, option: str, keys: Keys | None, server: ServerName) -> Handshake:
    """Connects, with keys if there are any, and returns what tells why the server does not let us in; ConfigError."""
    if keys:
        keys.introduce(socket, server)
    handshake = Handshake(socket, endpoint, keys)
    connect(socket, endpoint, option)
    return handshake


def _attach(attach: Callable[[str], Any], socket: zmq.Socket[bytes], endpoint: str, option: str) -> str:
    if is_ipv6(host_of(endpoint)):
        # Only where the address needs it: with this option on, libzmq makes IPv6 sockets for IPv4 addresses, too.
        socket.setsockopt(zmq.IPV6, 1)
    try:
        attach(endpoint)
    except zmq.ZMQError as e:
        if e.errno == zmq.EADDRINUSE:
            raise ConfigError(
                f"{option} {endpoint}: the address is in use; stop the process that holds it or choose another port"
            ) from e
        raise ConfigError(
            f"{option} {endpoint}: {e.strerror}; write tcp://HOST:PORT, tcp://[IPV6]:PORT or ipc://PATH"
        ) from e
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


class Client:
    """A DEALER to one replay server: sends messages, receives answers, and asks once whether anyone is there."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        option: str = "--replay",
        *,
        keys: Keys | None = None,
    ) -> None:
        """Connects in the background; ConfigError when the endpoint cannot be one."""
        self.endpoint = endpoint
        self.socket = make_socket(context, zmq.DEALER, max_frame_bytes=MAX_SERVER_FRAME_BYTES)
        # What the peer has not taken is dropped with the connection: the sender's own window is what is re-sent.
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.socket.setsockopt(zmq.SNDHWM, 1_000)
        self._handshake = knock(self.socket, endpoint, option, keys, "replay")

    def trouble(self, log: logging.Logger | None = None) -> str:
        """Returns why the server does not let us in, empty when nothing is known; to be asked now and then."""
        return self._handshake.tell(log) if log else self._handshake.look()

    def send(self, message: Message, payload: Buffer | None = None) -> bool:
        """Sends unless no peer is connected or its queue is full; returns whether it did."""
        try:
            send(self.socket, encode(message, payload), flags=zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, timeout_s: float = 0.0) -> tuple[ToPeer, Buffer | None] | None:
        """Returns the next answer, or None when none came within the timeout; ProtocolError when it is malformed."""
        if not self.socket.poll(int(timeout_s * 1_000)):
            return None
        try:
            return decode_to_peer(receive(self.socket))
        except zmq.Again:
            return None

    def ask(self, message: Message, answer: type[_M], timeout_s: float) -> _M:
        """Sends a message and returns the answer of the given kind; PeerError when none comes in time."""
        self.socket.setsockopt(zmq.SNDTIMEO, int(timeout_s * 1_000))
        try:
            send(self.socket, encode(message))
        except zmq.Again:
            raise PeerError(f"no replay server answers at {self.endpoint}{self._because()}") from None
        reply = self.receive(timeout_s)
        if reply is None:
            raise PeerError(f"no replay server answers at {self.endpoint} within {timeout_s:g} s{self._because()}")
        if not isinstance(reply[0], answer):
            raise PeerError(f"{self.endpoint} answered {type(reply[0]).__name__}: {getattr(reply[0], 'reason', '')}")
        return reply[0]

    def close(self) -> None:
        """Closes the socket; nothing lingers."""
        self._handshake.close()
        self.socket.close()

    def _because(self) -> str:
        trouble = self.trouble()
        return f": {trouble}" if trouble else ""
