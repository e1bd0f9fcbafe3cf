"""The failure note: a file in which a process reports to its parent why it failed, one JSON object a line.

An exit code and the last line of a log do not contain what a user must know: the whole text of an error, and whether a
retry can fix it. The parent passes each child a path in an environment variable. The child appends a line for each
failure, also for the failure of a worker that it restarts itself.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

NOTE_VARIABLE = "SHOAL_FAILURE_NOTE"
"""Environment variable with the path of the file."""


class Failure(msgspec.Struct, frozen=True):
    """One failure of a process or of one of its workers."""

    lasting: bool
    """Whether a retry would fail again, as after a `LastingError`."""
    message: str
    """Whole text of the error, possibly several lines."""
    handled: bool = msgspec.field(default=False, name="mended")
    """Whether the process itself restarts the worker that failed (`mended` in the file); otherwise the failure ends the
    process."""


class FailureNote:
    """The failure note of one process: the process writes it, and its parent reads it."""

    def __init__(self, path: Path | None) -> None:
        """Takes the path of the note's file; a note without a path is never written."""
        self._path = path
        self._read_bytes = 0

    @classmethod
    def from_environment(cls) -> FailureNote:
        """Returns the note whose path this process's parent passed."""
        path = os.environ.get(NOTE_VARIABLE)
        return cls(Path(path) if path else None)

    def append(self, message: str, *, lasting: bool, handled: bool = False) -> None:
        """Appends a failure; errors while writing are ignored, because the process is failing already."""
        if self._path is None:
            return
        with contextlib.suppress(OSError), self._path.open("ab") as file:
            file.write(msgspec.json.encode(Failure(lasting, message, handled)) + b"\n")

    def read_new(self) -> list[Failure]:
        """Returns the failures that were appended since the last call, oldest first."""
        if self._path is None or not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            content = file.read()
        complete_lines = content[: content.rfind(b"\n") + 1]
        self._read_bytes += len(complete_lines)
        failures = []
        for line in complete_lines.splitlines():
            with contextlib.suppress(msgspec.MsgspecError):
                failures.append(msgspec.json.decode(line, type=Failure))
        return failures
