"""A chunk's value in the log: a header that names the chunk, then its records as they arrived.

magic "SHC1" | actor length u16 | steps length u16 | count u32 | crc32c of the records u32 | policy version u32
| number u64 | incarnation u64 | seq u64 | actor | steps | crc32c of the header before it u32 | records

steps: copies u32, then one bit a record that is set where an episode ends; empty if the actor sent neither.
"""

from __future__ import annotations

import struct

from common.errors import ProtocolError
from common.wire.codec import checksum
from common.wire.messages import Chunk
from replay_server.durability.chunk_log import LoggedChunk
from replay_server.durability.redis_protocol import SplitValue
from replay_server.table.n_step import has_valid_steps

MAGIC = b"SHC1"
_FIXED = struct.Struct("<4sHHIIIQQQ")
_CRC = struct.Struct("<I")
_COPIES = struct.Struct("<I")


def pack_chunk(logged: LoggedChunk) -> SplitValue:
    """Returns a chunk's value in the log as header and records."""
    chunk, actor = logged.chunk, logged.chunk.actor.encode()
    steps = _COPIES.pack(chunk.copies) + chunk.ends if chunk.copies else b""
    fixed = _FIXED.pack(
        MAGIC,
        len(actor),
        len(steps),
        chunk.count,
        chunk.crc32c,
        chunk.policy_version,
        logged.number,
        chunk.incarnation,
        chunk.seq,
    )
    header = fixed + actor + steps
    return header + _CRC.pack(checksum(header)), logged.payload


def unpack_chunk(value: bytes, number: int, record_bytes: int) -> tuple[Chunk, memoryview]:
    """Returns message and payload of chunk `number` from its value in the log; ProtocolError says how it is damaged.

    The message's `data_hash` and `run` are empty: a log contains chunks of one run only.
    """
    if len(value) < _FIXED.size:
        raise ProtocolError("too short")
    magic, actor_bytes, steps_bytes, count, crc32c, policy_version, packed_number, incarnation, seq = (
        _FIXED.unpack_from(value)
    )
    actor_end = _FIXED.size + actor_bytes
    header_end = actor_end + steps_bytes
    if magic != MAGIC or 0 < steps_bytes < _COPIES.size or len(value) != header_end + _CRC.size + count * record_bytes:
        raise ProtocolError(f"{len(value)} bytes are not a chunk")
    data = memoryview(value)
    if _CRC.unpack_from(value, header_end)[0] != checksum(data[:header_end]) or packed_number != number:
        raise ProtocolError("its header is damaged or another chunk's")
    payload = data[header_end + _CRC.size :]
    if checksum(payload) != crc32c:
        raise ProtocolError("its records fail their checksum")
    copies = _COPIES.unpack_from(value, actor_end)[0] if steps_bytes else 0
    ends = value[actor_end + _COPIES.size : header_end]
    try:
        actor = value[_FIXED.size : actor_end].decode()
    except UnicodeDecodeError as e:
        raise ProtocolError("its actor's name is not text") from e
    chunk = Chunk(actor, incarnation, seq, count, policy_version, crc32c, "", copies, ends)
    if not has_valid_steps(chunk):
        raise ProtocolError("its steps do not match its records")
    return chunk, payload
