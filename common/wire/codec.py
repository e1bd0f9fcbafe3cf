"""The codec: messages to frames and back, and the size limits of both.

A message is one msgpack header frame, validated against its struct, and at most one raw payload frame. Nothing is
unpickled or evaluated. ZMQ_MAXMSGSIZE bounds a frame before it is allocated, and `_decode` bounds the number of frames
of a complete message. libzmq does not bound the frames of a message that never ends, so a server off loopback admits
only clients with known keys (authenticator.py). docs/security.md describes the remaining risk.
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
"""Largest frame that a server accepts from a peer."""
MAX_SERVER_FRAME_BYTES = 1024 * 2**20
"""Largest frame that a peer accepts from its server: a batch."""

Buffer = bytes | memoryview
Frames = list[Buffer]

# Created once: creating a decoder of all message types takes twenty times as long as using it.
_FROM_PEER: msgspec.msgpack.Decoder[FromPeer] = msgspec.msgpack.Decoder(FromPeer)
_TO_PEER: msgspec.msgpack.Decoder[ToPeer] = msgspec.msgpack.Decoder(ToPeer)


def encode(message: Message, payload: Buffer | None = None) -> Frames:
    """Returns the frames of a message."""
    header = msgspec.msgpack.encode(message)
    return [header] if payload is None else [header, payload]


def decode_from_peer(frames: Sequence[Buffer]) -> tuple[FromPeer, Buffer | None]:
    """Decodes a message that a server received; ProtocolError if it is malformed."""
    return _decode(frames, _FROM_PEER)


def decode_to_peer(frames: Sequence[Buffer]) -> tuple[ToPeer, Buffer | None]:
    """Decodes a message that a server sent; ProtocolError if it is malformed."""
    return _decode(frames, _TO_PEER)


def _decode(frames: Sequence[Buffer], decoder: msgspec.msgpack.Decoder[Any]) -> tuple[Any, Buffer | None]:
    if not 1 <= len(frames) <= 2:
        raise ProtocolError(f"a message of {len(frames)} frames; expected 1 or 2")
    header = frames[0]
    if len(header) > MAX_HEADER_BYTES:
        raise ProtocolError(f"a header of {len(header)} bytes; at most {MAX_HEADER_BYTES} are allowed")
    try:
        message = decoder.decode(header)
    except (ValueError, RecursionError, msgspec.DecodeError) as e:
        raise ProtocolError(f"header: {e}") from e
    return message, frames[1] if len(frames) == 2 else None


def checksum(payload: Buffer) -> int:
    """Returns the CRC-32C of a payload."""
    return int(crc32c_library.crc32c(payload))
