"""How a chunk stands in the log: a header that tells whose it is and which, then the records as they came.

magic "SHC1" | actor length u16 | steps length u16 | count u32 | crc32c of the records u32 | policy version u32
| number u64 | incarnation u64 | seq u64 | actor | steps | crc32c of the header before it u32 | records

steps: copies u32, then one bit a record that tells an episode's end; nothing where they are not told.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from common.errors import ProtocolError
from common.wire.codec import checksum
from replay_server.durability.redis_protocol import Split
from replay_server.instructions import StoreChunk
from replay_server.table.next_steps import Origin

MAGIC = b"SHC1"
_FIXED = struct.Struct("<4sHHIIIQQQ")
_CRC = struct.Struct("<I")
_COPIES = struct.Struct("<I")


class KeptChunk(NamedTuple):
    """A chunk read back."""

    origin: Origin
    rows: int
    policy_version: int
    records: memoryview
    header: bytes
    """All that stands before the records."""


def pack_chunk(write: StoreChunk) -> Split:
    """Returns a chunk as the log keeps it: header and records."""
    chunk, actor = write.chunk, write.chunk.actor.encode()
    steps = _COPIES.pack(chunk.copies) + chunk.ends if chunk.copies else b""
    fixed = _FIXED.pack(
        MAGIC,
        len(actor),
        len(steps),
        chunk.count,
        chunk.crc32c,
        chunk.policy_version,
        write.number,
        chunk.incarnation,
        chunk.seq,
    )
    header = fixed + actor + steps
    return header + _CRC.pack(checksum(header)), write.payload


def unpack_chunk(value: bytes, number: int, record_bytes: int) -> KeptChunk:
    """Opens what `pack_chunk` made of chunk `number`; ProtocolError says how it is damaged."""
    if len(value) < _FIXED.size:
        raise ProtocolError("too short")
    magic, actor_bytes, steps_bytes, count, crc32c, policy_version, own_number, incarnation, seq = _FIXED.unpack_from(
        value
    )
    actor_end = _FIXED.size + actor_bytes
    header_end = actor_end + steps_bytes
    if magic != MAGIC or 0 < steps_bytes < _COPIES.size or len(value) != header_end + _CRC.size + count * record_bytes:
        raise ProtocolError(f"{len(value)} bytes do not hold a chunk")
    data = memoryview(value)
    if _CRC.unpack_from(value, header_end)[0] != checksum(data[:header_end]) or own_number != number:
        raise ProtocolError("its header is damaged or another chunk's")
    records = data[header_end + _CRC.size :]
    if checksum(records) != crc32c:
        raise ProtocolError("its records fail their checksum")
    copies = _COPIES.unpack_from(value, actor_end)[0] if steps_bytes else 0
    ends = value[actor_end + _COPIES.size : header_end]
    try:
        actor = value[_FIXED.size : actor_end].decode()
    except UnicodeDecodeError as e:
        raise ProtocolError("its actor's name is no text") from e
    origin = Origin(actor, incarnation, seq, copies, ends)
    if not origin.fits(count):
        raise ProtocolError("its steps are not those of its records")
    return KeptChunk(origin, count, policy_version, records, value[: header_end + _CRC.size])
