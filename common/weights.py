"""The weights message: one frame that a policy can act on, or refuse.

    magic "SHW1" | header length u16 | msgpack header | float32 weights | blake2b-128 over all before it

One frame, because a subscriber that keeps only the newest message (ZMQ_CONFLATE) cannot take several parts.
"""

from __future__ import annotations

import hashlib
import struct

import msgpack
import msgspec
import numpy as np
import numpy.typing as npt

from common.errors import ProtocolError

MAGIC = b"SHW1"
_PREFIX = struct.Struct("<4sH")
_DIGEST_BYTES = 16
MAX_WEIGHTS_BYTES = 256 * 2**20


class WeightsHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands beside the numbers: whose they are, which, and how to explore with them."""

    run: str
    """Run.id."""
    data_hash: str
    """Run.data_hash."""
    version: int
    """Rises with every publication, across restarts of the learner too."""
    updates: int
    exploration_scale: float
    """Scale of the exploration noise that goes with these weights."""
    random_share: float
    """Probability that a copy acts uniformly at random in a step: 1 while warming up."""


class Weights(msgspec.Struct, frozen=True):
    """Checked weights: header and flat float32 `[weight_count]` (see common/policy.py for the layout)."""

    header: WeightsHeader
    flat: npt.NDArray[np.float32]


def pack_weights(header: WeightsHeader, flat: npt.NDArray[np.float32]) -> bytes:
    """Returns the frame; refuses non-finite weights with ValueError, so that none is ever published."""
    if not np.isfinite(flat).all():
        raise ValueError("weights are not finite")
    head: bytes = msgpack.packb(msgspec.to_builtins(header))
    body = _PREFIX.pack(MAGIC, len(head)) + head + np.ascontiguousarray(flat, "<f4").tobytes()
    return body + hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()


def unpack_weights(frame: bytes | memoryview) -> Weights:
    """Checks and opens a frame; ProtocolError says what is wrong with it."""
    data = memoryview(frame)
    if not _PREFIX.size + _DIGEST_BYTES <= len(data) <= MAX_WEIGHTS_BYTES:
        raise ProtocolError(f"weights frame of {len(data)} bytes")
    magic, head_length = _PREFIX.unpack_from(data)
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if magic != MAGIC or len(body) < _PREFIX.size + head_length:
        raise ProtocolError("weights frame does not begin as one")
    if hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() != digest:
        raise ProtocolError("weights frame fails its digest")
    head, numbers = body[_PREFIX.size : _PREFIX.size + head_length], body[_PREFIX.size + head_length :]
    try:
        header = msgspec.convert(msgpack.unpackb(head, strict_map_key=True), WeightsHeader)
        flat = np.frombuffer(numbers, "<f4")
    except (ValueError, msgspec.ValidationError, msgpack.UnpackException) as e:
        raise ProtocolError(f"weights frame: {e}") from e
    if not np.isfinite(flat).all():
        raise ProtocolError("weights frame holds non-finite numbers")
    return Weights(header, flat)
