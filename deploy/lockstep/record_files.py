"""The replay's transitions on disk: appended to as they come, in files of which the oldest is deleted as a whole.

A record's place counts all that were ever inserted in the run; a file is named by its first record's place. A state
names the files it needs and how much of each, with digests: what a crash left behind after that is cut off when they
are loaded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import numpy.typing as npt

FILE_BYTES = 64 * 2**20
"""A file that has so many is followed by another."""

RecordBlock = npt.NDArray[Any]
"""Records side by side `[n]`."""


class RecordFile(msgspec.Struct, frozen=True):
    """What one file holds."""

    first: int
    """Place of its first record."""
    count: int
    digest: str
    """blake2b, 128 bits, over those records."""

    @property
    def end(self) -> int:
        """The place after its last record."""
        return self.first + self.count


class RecordFiles:
    """The files of one run."""

    def __init__(self, directory: Path, record_bytes: int) -> None:
        self._directory, self._record_bytes = directory, record_bytes
        self._full: list[RecordFile] = []
        self._open: _OpenFile | None = None

    @property
    def end(self) -> int:
        """The place after the last record."""
        return self._open.segment.end if self._open else 0

    def append(self, first: int, blocks: Iterable[RecordBlock]) -> None:
        """Writes records from place `first` on; those between `end` and there are never asked for."""
        for block in blocks:
            self._file_for(first).write(block)
            first += len(block)

    def sync(self) -> tuple[RecordFile, ...]:
        """Has all of it on disk and returns what the files hold."""
        if self._open is None:
            return ()
        self._open.sync()
        _sync_directory(self._directory)
        return (*self._full, self._open.segment)

    def load(self, segments: Iterable[RecordFile], start: int) -> Iterator[npt.NDArray[np.uint8]]:
        """Yields the records from place `start` on, as rows of bytes `[n, record bytes]`; appending goes on after them.

        ValueError names a file that does not hold what it must, OSError one that is not there.
        """
        for segment in segments:
            self._seal()
            self._open = _OpenFile(self._path(segment.first), segment.first, self._record_bytes)
            content = self._open.reopen(segment)
            rows = np.frombuffer(content, np.uint8).reshape(-1, self._record_bytes)
            yield rows[max(start - segment.first, 0) :]

    def forget_before(self, place: int) -> None:
        """Deletes the files whose records all come before `place`, and those that are no part of this run's."""
        self._full = [segment for segment in self._full if segment.end > place]
        known = {self._path(segment.first) for segment in self._full}
        if self._open is not None:
            known.add(self._path(self._open.segment.first))
        for path in set(self._directory.glob("records-*.bin")) - known:
            path.unlink()

    def close(self) -> None:
        """Closes the file that is being written."""
        if self._open is not None:
            self._open.close()

    def _file_for(self, first: int) -> _OpenFile:
        """Returns the file that goes on at place `first`, a new one when the last does not or is full."""
        if self._open is None or self._open.segment.end != first or self._open.size >= FILE_BYTES:
            self._seal()
            self._open = _OpenFile(self._path(first), first, self._record_bytes)
            self._open.create()
        return self._open

    def _seal(self) -> None:
        if self._open is not None:
            self._open.sync()
            self._open.close()
            self._full.append(self._open.segment)
            self._open = None

    def _path(self, first: int) -> Path:
        return self._directory / f"records-{first:012}.bin"


class _OpenFile:
    """The one file that is appended to, and the digest of what it holds."""

    def __init__(self, path: Path, first: int, record_bytes: int) -> None:
        self._path, self._first, self._record_bytes = path, first, record_bytes
        self._digest = hashlib.blake2b(digest_size=16)
        self._file: IO[bytes]
        self.size = 0
        """Bytes."""

    @property
    def segment(self) -> RecordFile:
        return RecordFile(self._first, self.size // self._record_bytes, self._digest.hexdigest())

    def create(self) -> None:
        self._file = self._path.open("wb")

    def reopen(self, segment: RecordFile) -> bytes:
        """Returns what the segment names and cuts off the rest; ValueError when it is not there."""
        self._file = self._path.open("r+b")
        content = self._file.read(segment.count * self._record_bytes)
        self._note(content)
        if self.segment != segment:
            self.close()
            raise ValueError(f"{self._path} does not hold the {segment.count:,} transitions it must")
        self._file.truncate()
        return content

    def write(self, block: RecordBlock) -> None:
        content = block.tobytes()
        self._file.write(content)
        self._note(content)

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _note(self, content: bytes) -> None:
        self._digest.update(content)
        self.size += len(content)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
