"""The audit files: the chunks that an actor sent and had acknowledged, and the chunks that a replay server stored.

Each process start writes one file, one event a line, one write(2) an event. So every written event survives the
process, even a killed one, and only a file's last line can be truncated. Without `--audit` a process writes nothing.
`shoal audit` compares the files (`shoal/commands/audit/`).
"""

from __future__ import annotations

import hashlib
import itertools
import os
from pathlib import Path

import msgspec

from common.errors import ConfigError, ShoalError
from common.files import file_name
from common.wire.codec import Buffer

SUFFIX = ".jsonl"
_DIGEST_BYTES = 12


class ProcessStart(msgspec.Struct, frozen=True, array_like=True, tag="life"):
    """The first line of a file: the process that started to write it."""

    role: str
    """actor or replay."""
    name: str
    durability: str = ""
    """Durability level of a replay server: what its acknowledgements promise."""


class Sent(msgspec.Struct, frozen=True, array_like=True, tag="sent"):
    """An actor is about to send a chunk for the first time."""

    actor: str
    incarnation: int
    seq: int
    rows: int
    digest: str


class Acknowledged(msgspec.Struct, frozen=True, array_like=True, tag="acknowledged"):
    """An actor received an acknowledgement of every chunk up to `seq`."""

    actor: str
    incarnation: int
    seq: int


class Stored(msgspec.Struct, frozen=True, array_like=True, tag="stored"):
    """A replay server stored a chunk in its ring of `capacity` transitions."""

    actor: str
    incarnation: int
    seq: int
    rows: int
    digest: str
    capacity: int


class Recovered(msgspec.Struct, frozen=True, array_like=True, tag="recovered"):
    """A replay server read a chunk from its log when it started."""

    actor: str
    incarnation: int
    seq: int
    rows: int
    digest: str


class Serving(msgspec.Struct, frozen=True, array_like=True, tag="serving"):
    """A replay server has read its whole log. Before this event, its list of recovered chunks is incomplete."""


Event = ProcessStart | Sent | Acknowledged | Stored | Recovered | Serving


class AuditFile:
    """The audit file of one process start; events are appended."""

    def __init__(self, directory: Path, start: ProcessStart) -> None:
        """Creates the next file of this role and name; ConfigError if the directory cannot be written."""
        owner = f"{start.role}-{file_name(start.name)}"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for number in itertools.count():
                try:
                    self._file = os.open(directory / f"{owner}.{number:06d}{SUFFIX}", flags, 0o644)
                except FileExistsError:
                    continue
                break
        except OSError as e:
            raise ConfigError(f"--audit {directory} cannot be written: {e.strerror}. Pass another directory.") from e
        self.write(start)

    def write(self, event: Event) -> None:
        """Appends an event; ShoalError if that fails, because an incomplete audit proves nothing."""
        line = msgspec.json.encode(event) + b"\n"
        try:
            written = os.write(self._file, line)
        except OSError as e:
            raise ShoalError(f"--audit cannot be written: {e.strerror}. Free disk space, or omit --audit.") from e
        if written != len(line):
            raise ShoalError("--audit cannot be written: the disk is full. Free disk space, or omit --audit.")

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


def digest(payload: Buffer) -> str:
    """Returns the digest of a chunk's records, 24 hex digits."""
    return hashlib.blake2b(payload, digest_size=_DIGEST_BYTES).hexdigest()


def read_events(file: Path) -> tuple[list[Event], bool]:
    """Returns a file's events and whether its last line is truncated; ConfigError if it is not an audit file."""
    *lines, rest = file.read_bytes().split(b"\n")
    decoder = msgspec.json.Decoder(Event)
    try:
        return [decoder.decode(line) for line in lines], bool(rest)
    except msgspec.DecodeError as e:
        raise ConfigError(
            f"{file} is not an audit file of this version of Shoal: {e}. Pass a directory of --audit."
        ) from e
