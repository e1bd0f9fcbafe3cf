"""A ZMTP 3.0 peer by hand (ZeroMQ's RFC 23), for what libzmq itself would never send."""

from __future__ import annotations

import socket

SIGNATURE = b"\xff" + b"\0" * 8 + b"\x7f"
GREETING = SIGNATURE + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" * 32
"""Version 3.0, no security, not as server."""
MORE = 1


def command(name: bytes, body: bytes) -> bytes:
    content = bytes([len(name)]) + name + body
    return b"\x04" + bytes([len(content)]) + content


def attribute(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value


def ready(kind: bytes) -> bytes:
    return command(b"READY", attribute(b"Socket-Type", kind))


def frame(content: bytes, flags: int = 0) -> bytes:
    """A frame with a length of eight bytes."""
    return bytes([flags | 2]) + len(content).to_bytes(8, "big") + content


def dial(endpoint: str) -> socket.socket:
    """Opens a TCP connection to tcp://HOST:PORT and says nothing."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def greet(endpoint: str, kind: bytes = b"DEALER") -> socket.socket:
    """Opens a connection and makes the handshake of a peer without keys; raises OSError where it is cut off."""
    peer = dial(endpoint)
    peer.sendall(GREETING + ready(kind))
    received = b""
    while len(received) < len(GREETING) + 2:
        part = peer.recv(4096)
        if not part:
            raise ConnectionResetError("cut off during the handshake")
        received += part
    return peer
