"""The replay's transitions on disk: records are appended to a series of files, and the oldest files are deleted.

The index of a record counts all records ever inserted in the run. A file is named by the index of its first record. A
snapshot lists the files it needs, with the number of records and the digest of each. Loading cuts off records that were
written after the snapshot.
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

from common.files import sync_directory

FILE_BYTES = 64 * 2**20
"""Size [bytes] from which a new file is started."""

RecordBlock = npt.NDArray[Any]
"""A block of records `[n]`."""


class RecordFile(msgspec.Struct, frozen=True):
    """One file: the range and the digest of its records."""

    first: int
    """Index of the first record."""
    count: int
    digest: str
    """blake2b of the records, 128 bits."""

    @property
    def end(self) -> int:
        """Index after the last record."""
        return self.first + self.count


class RecordFiles:
    """The files of one run."""

    def __init__(self, directory: Path, record_bytes: int) -> None:
        self._directory, self._record_bytes = directory, record_bytes
        self._full: list[RecordFile] = []
        self._open: _OpenFile | None = None

    @property
    def end(self) -> int:
        """Index after the last record."""
        return self._open.contents.end if self._open else 0

    def append(self, first: int, blocks: Iterable[RecordBlock]) -> None:
        """Writes records from index `first` on; records between `end` and `first` are never loaded."""
        for block in blocks:
            self._file_for(first).write(block)
            first += len(block)

    def sync(self) -> tuple[RecordFile, ...]:
        """Flushes all records to disk and returns the content of the files."""
        if self._open is None:
            return ()
        self._open.sync()
        sync_directory(self._directory)
        return (*self._full, self._open.contents)

    def load(self, record_files: Iterable[RecordFile], start: int) -> Iterator[npt.NDArray[np.uint8]]:
        """Yields the records from index `start` on, as rows of bytes `[n, record bytes]`; `append` continues there.

        ValueError for a file with other content than `record_files` lists, OSError for a missing file.
        """
        for record_file in record_files:
            self._seal()
            self._open = _OpenFile(self._path(record_file.first), record_file.first, self._record_bytes)
            content = self._open.reopen(record_file)
            rows = np.frombuffer(content, np.uint8).reshape(-1, self._record_bytes)
            yield rows[max(start - record_file.first, 0) :]

    def delete_before(self, index: int) -> None:
        """Deletes the files whose records all precede `index`, and files that do not belong to this run."""
        self._full = [record_file for record_file in self._full if record_file.end > index]
        known = {self._path(record_file.first) for record_file in self._full}
        if self._open is not None:
            known.add(self._path(self._open.contents.first))
        for path in set(self._directory.glob("records-*.bin")) - known:
            path.unlink()

    def close(self) -> None:
        """Closes the file that is being written."""
        if self._open is not None:
            self._open.close()

    def _file_for(self, first: int) -> _OpenFile:
        """Returns the file that continues at index `first`: a new one if the open one ends elsewhere or is full."""
        if self._open is None or self._open.contents.end != first or self._open.size >= FILE_BYTES:
            self._seal()
            self._open = _OpenFile(self._path(first), first, self._record_bytes)
            self._open.create()
        return self._open

    def _seal(self) -> None:
        if self._open is not None:
            self._open.sync()
            self._open.close()
            self._full.append(self._open.contents)
            self._open = None

    def _path(self, first: int) -> Path:
        return self._directory / f"records-{first:012}.bin"


class _OpenFile:
    """The file to which records are appended, with their digest."""

    def __init__(self, path: Path, first: int, record_bytes: int) -> None:
        self._path, self._first, self._record_bytes = path, first, record_bytes
        self._digest = hashlib.blake2b(digest_size=16)
        self._file: IO[bytes]
        self.size = 0
        """Size [bytes]."""

    @property
    def contents(self) -> RecordFile:
        return RecordFile(self._first, self.size // self._record_bytes, self._digest.hexdigest())

    def create(self) -> None:
        self._file = self._path.open("wb")

    def reopen(self, record_file: RecordFile) -> bytes:
        """Returns the records that `record_file` lists and cuts off the rest; ValueError if the digest differs."""
        self._file = self._path.open("r+b")
        content = self._file.read(record_file.count * self._record_bytes)
        self._count(content)
        if self.contents != record_file:
            self.close()
            raise ValueError(f"{self._path} does not contain the {record_file.count:,} transitions that were written")
        self._file.truncate()
        return content

    def write(self, block: RecordBlock) -> None:
        content = block.tobytes()
        self._file.write(content)
        self._count(content)

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _count(self, content: bytes) -> None:
        self._digest.update(content)
        self.size += len(content)
