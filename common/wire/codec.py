"""Messages <-> frames, and the limits of both.

A message is one msgpack header frame, validated against its struct, and at most one raw payload frame. Nothing is
unpickled or evaluated. ZMQ_MAXMSGSIZE bounds a frame before it is allocated and `_decode` the parts of a whole message;
libzmq itself does not bound the parts of a message that never ends, so a server off loopback lets in only those whose
keys it knows (authenticator.py), and what is left of it stands in docs/security.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import crc32c as crc32c_library
import msgspec

from common.errors import ProtocolError
from common.wire.messages import FromPeer, Message, ToPeer

MAX_HEADER_BYTES = 256 * 2**10

MAX_PEER_FRAME_BYTES = 64 * 2**20
"""Largest frame a server takes from a peer."""

MAX_SERVER_FRAME_BYTES = 1024 * 2**20
"""Largest frame a peer takes from its server: a batch."""

Buffer = bytes | memoryview

Frames = list[Buffer]

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
