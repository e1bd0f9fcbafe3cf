"""How a process tells the one that started it why it failed: lines of JSON in a file that the parent names.

An exit code and the last line of a log do not say what a user must know: the whole text of an error, and whether a
repetition can mend it. A parent gives each child a path by the environment variable below; the child appends a line
for each failure, also for one that it mends itself by starting a worker again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

VARIABLE = "SHOAL_FAILURE_NOTE"


class Failure(msgspec.Struct, frozen=True):
    """One failure of a process or of one of its workers."""

    lasting: bool
    """Repetition cannot mend it."""
    message: str
    """Whole text, several lines where there are."""
    mended: bool = False
    """It is of a worker that the process starts again itself; else it ends the process."""


class FailureNote:
    """The file of one process: written by the process, read by its parent."""

    def __init__(self, path: Path | None) -> None:
        """Takes the file's path; with None nothing is noted."""
        self._path = path
        self._read_to = 0

    @classmethod
    def from_environment(cls) -> FailureNote:
        """Returns the note that this process's parent asked for."""
        path = os.environ.get(VARIABLE)
        return cls(Path(path) if path else None)

    def append(self, message: str, *, lasting: bool, mended: bool = False) -> None:
        """Appends a failure; a file that cannot be written is passed over, since the process is failing already."""
        if self._path is None:
            return
        with contextlib.suppress(OSError), self._path.open("ab") as file:
            file.write(msgspec.json.encode(Failure(lasting, message, mended)) + b"\n")

    def read_new(self) -> list[Failure]:
        """Returns the failures that were left since the last call, oldest first."""
        if self._path is None or not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read_to)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read_to += len(whole)
        found = []
        for line in whole.splitlines():
            with contextlib.suppress(msgspec.MsgspecError):
                found.append(msgspec.json.decode(line, type=Failure))
        return found
