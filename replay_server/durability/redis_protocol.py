"""Redis commands as bytes (RESP 2). Sends large values without a copy, unlike redis-py."""

from __future__ import annotations

from collections.abc import Iterable

from common.wire.codec import Buffer

SplitValue = tuple[bytes, Buffer]
"""One value in two parts: a few bytes, then many that must not be copied."""
CommandPart = bytes | str | int | SplitValue
RedisCommand = tuple[CommandPart, ...]


def pack(commands: Iterable[RedisCommand]) -> list[Buffer]:
    """Returns the buffers to send for a series of commands."""
    buffers: list[Buffer] = []
    text = bytearray()
    for command in commands:
        text += b"*%d\r\n" % len(command)
        for part in command:
            if isinstance(part, tuple):
                first, rest = part
                text += b"$%d\r\n%b" % (len(first) + len(rest), first)
                buffers += (bytes(text), rest)
                text = bytearray(b"\r\n")
            else:
                value = part if isinstance(part, bytes) else str(part).encode()
                text += b"$%d\r\n%b\r\n" % (len(value), value)
    buffers.append(bytes(text))
    return buffers
