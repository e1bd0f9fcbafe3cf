"""The weights frame: how a learner broadcasts policies and how an actor checks them.

    magic "SHW1" | header length u16 | msgpack header | float32 weights | blake2b-128 of all preceding bytes

The message is a single frame, because a subscriber that keeps only the newest message (ZMQ_CONFLATE) cannot receive
several.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Annotated

import msgpack
import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from common.errors import ProtocolError

MAGIC = b"SHW1"
_PREFIX = struct.Struct("<4sH")
_DIGEST_BYTES = 16
MAX_WEIGHTS_BYTES = 64 * 2**20
"""The learner also sends a copy to the replay server, which accepts no larger frame from a peer."""


class WeightsHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The header of a weights frame: its run, its version, and the exploration that goes with it."""

    run: Annotated[str, Meta(max_length=64)]
    """Run.id."""
    data_hash: Annotated[str, Meta(max_length=16)]
    """Run.data_hash."""
    version: Annotated[int, Meta(ge=0, lt=2**32)]
    """Increases with every publication, also across restarts of the learner; every transition carries it as a u4."""
    updates: Annotated[int, Meta(ge=0, le=2**62)]
    exploration_scale: Annotated[float, Meta(ge=0, le=1e12)]
    """Scale of the exploration noise to use with these weights, in units of half the action's range."""
    random_share: Annotated[float, Meta(ge=0, le=1)]
    """Probability that a copy acts uniformly at random in a step: 1 in the first `exploration.random_steps`, then 0.
    Functions call it `random_fraction`."""


class Weights(msgspec.Struct, frozen=True):
    """Checked weights: header and flat float32 `[weight_count]` in the layout of common/policy/network.py."""

    header: WeightsHeader
    flat: npt.NDArray[np.float32]


def pack_weights(header: WeightsHeader, flat: npt.NDArray[np.float32]) -> bytes:
    """Returns the frame; ValueError for weights that every actor would refuse: not finite, or too large."""
    numbers = np.ascontiguousarray(flat, "<f4")
    if not np.isfinite(numbers).all():
        raise ValueError("weights are not finite")
    fields = msgspec.to_builtins(header)
    msgspec.convert(fields, WeightsHeader)
    head: bytes = msgpack.packb(fields)
    body = _PREFIX.pack(MAGIC, len(head)) + head + numbers.tobytes()
    if len(body) + _DIGEST_BYTES > MAX_WEIGHTS_BYTES:
        raise ValueError(f"weights of {len(body)} bytes; at most {MAX_WEIGHTS_BYTES} can be published")
    return body + hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()


def unpack_weights(frame: bytes | memoryview) -> Weights:
    """Checks and decodes a frame; ProtocolError names what is wrong with it."""
    data = memoryview(frame)
    if not _PREFIX.size + _DIGEST_BYTES <= len(data) <= MAX_WEIGHTS_BYTES:
        raise ProtocolError(f"weights frame of {len(data)} bytes")
    magic, head_length = _PREFIX.unpack_from(data)
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if magic != MAGIC or len(body) < _PREFIX.size + head_length:
        raise ProtocolError("weights frame does not start with its magic and header")
    if hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() != digest:
        raise ProtocolError("weights frame fails its digest")
    head, numbers = body[_PREFIX.size : _PREFIX.size + head_length], body[_PREFIX.size + head_length :]
    try:
        header = msgspec.convert(msgpack.unpackb(head, strict_map_key=True), WeightsHeader)
        # Copied to an aligned array: matmul would copy unaligned weights in every step.
        flat = np.frombuffer(numbers, "<f4").copy()
    except (ValueError, msgspec.ValidationError, msgpack.UnpackException) as e:
        raise ProtocolError(f"weights frame: {e}") from e
    if not np.isfinite(flat).all():
        raise ProtocolError("weights frame contains numbers that are not finite")
    return Weights(header, flat)
