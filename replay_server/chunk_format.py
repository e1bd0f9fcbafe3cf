"""How a chunk stands in the log: a header that tells whose it is and which, then the records as they came.

magic "SHC1" | actor length u16 | 2 bytes | count u32 | crc32c of the records u32 | policy version u32
| number u64 | incarnation u64 | seq u64 | actor | crc32c of the header before it u32 | records
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from common.errors import ProtocolError
from common.wire import checksum
from replay_server.instructions import StoreChunk
from replay_server.resp import Split

MAGIC = b"SHC1"
_FIXED = struct.Struct("<4sH2xIIIQQQ")
_CRC = struct.Struct("<I")


class KeptChunk(NamedTuple):
    """A chunk read back."""

    actor: str
    incarnation: int
    seq: int
    rows: int
    policy_version: int
    records: memoryview


def pack_chunk(write: StoreChunk) -> Split:
    """Returns a chunk as the log keeps it: header and records."""
    chunk, actor = write.chunk, write.chunk.actor.encode()
    fixed = _FIXED.pack(
        MAGIC,
        len(actor),
        chunk.count,
        chunk.crc32c,
        chunk.policy_version,
        write.number,
        chunk.incarnation,
        chunk.seq,
    )
    header = fixed + actor
    return header + _CRC.pack(checksum(header)), write.payload


def unpack_chunk(value: bytes, number: int, record_bytes: int) -> KeptChunk:
    """Opens what `pack_chunk` made of chunk `number`; ProtocolError says how it is damaged."""
    if len(value) < _FIXED.size:
        raise ProtocolError("too short")
    magic, actor_bytes, count, crc32c, policy_version, own_number, incarnation, seq = _FIXED.unpack_from(value)
    header_end = _FIXED.size + actor_bytes
    if magic != MAGIC or len(value) != header_end + _CRC.size + count * record_bytes:
        raise ProtocolError(f"{len(value)} bytes do not hold a chunk")
    data = memoryview(value)
    if _CRC.unpack_from(value, header_end)[0] != checksum(data[:header_end]) or own_number != number:
        raise ProtocolError("its header is damaged or another chunk's")
    records = data[header_end + _CRC.size :]
    if checksum(records) != crc32c:
        raise ProtocolError("its records fail their checksum")
    return KeptChunk(value[_FIXED.size : header_end].decode(), incarnation, seq, count, policy_version, records)
