"""The audit: which chunks an actor sent and had acknowledged, and which a replay server stored, in files of their own.

One file for each life of a process, one event a line, one write(2) an event: what was written survives the process
however it ends, and only a file's last line can be torn. Nothing is written unless a process is told where to.
`shoal audit` compares the files with each other (`shoal/commands/audit/`).
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


class Life(msgspec.Struct, frozen=True, array_like=True, tag="life"):
    """Begins a file."""

    role: str
    """actor or replay."""
    name: str
    durability: str = ""
    """Of a replay server: what an acknowledgement of this life promises."""


class Sent(msgspec.Struct, frozen=True, array_like=True, tag="sent"):
    """Says that an actor is about to send a chunk for the first time."""

    actor: str
    incarnation: int
    seq: int
    rows: int
    digest: str


class Acknowledged(msgspec.Struct, frozen=True, array_like=True, tag="acknowledged"):
    """Says that an actor has been told: everything up to `seq` is stored."""

    actor: str
    incarnation: int
    seq: int


class Stored(msgspec.Struct, frozen=True, array_like=True, tag="stored"):
    """Says that a replay server has put a chunk into its ring of `capacity` transitions."""

    actor: str
    incarnation: int
    seq: int
    rows: int
    digest: str
    capacity: int


class Recovered(msgspec.Struct, frozen=True, array_like=True, tag="recovered"):
    """Says that a replay server found a chunk in its log when it started."""

    actor: str
    incarnation: int
    seq: int
    rows: int
    digest: str


class Serving(msgspec.Struct, frozen=True, array_like=True, tag="serving"):
    """Says that a replay server has read all of its log: until then what it found is not all that there is."""


Event = Life | Sent | Acknowledged | Stored | Recovered | Serving


class AuditFile:
    """One life's file, appended to."""

    def __init__(self, directory: Path, life: Life) -> None:
        """Makes the next file of this role and name; ConfigError when the directory cannot be written."""
        owner = f"{life.role}-{file_name(life.name)}"
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
            raise ConfigError(f"--audit {directory} cannot be written: {e.strerror}; name another directory") from e
        self.write(life)

    def write(self, event: Event) -> None:
        """Appends an event; ShoalError when that fails, for an audit with holes proves nothing."""
        line = msgspec.json.encode(event) + b"\n"
        try:
            written = os.write(self._file, line)
        except OSError as e:
            raise ShoalError(f"the audit cannot be written: {e.strerror}; make room, or leave --audit out") from e
        if written != len(line):
            raise ShoalError("the audit cannot be written: no space left; make room, or leave --audit out")

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


def digest(payload: Buffer) -> str:
    """Returns what tells one chunk's records from any other's."""
    return hashlib.blake2b(payload, digest_size=_DIGEST_BYTES).hexdigest()


def read_events(file: Path) -> tuple[list[Event], bool]:
    """Returns a file's events and whether its last line was torn; ConfigError for what is no audit file."""
    *lines, rest = file.read_bytes().split(b"\n")
    decoder = msgspec.json.Decoder(Event)
    try:
        return [decoder.decode(line) for line in lines], bool(rest)
    except msgspec.DecodeError as e:
        raise ConfigError(f"{file} is no audit of this version of Shoal: {e}") from e
