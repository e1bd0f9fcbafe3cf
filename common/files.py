"""Files: safe and unique file names for names from data, and atomic writing."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from common.errors import LastingError

MAX_NAME_CHARACTERS = 150
"""Maximum length of a name [characters]: file systems allow 255 bytes, and suffixes and temporary names are added."""

_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9._-]+")

_NOT_ALLOWED_IN_SETTINGS = re.compile(r"[^A-Za-z0-9._=-]+")

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|\Z)", re.IGNORECASE)
"""Names that Windows reserves for devices, with any extension."""

_LOCKED_BYTE = 2**20
"""Position of the byte that stands for the whole file [bytes] on Windows."""


def file_name(name: str) -> str:
    """Returns a name of letters, digits, `.`, `_` and `-` that is one path component on every file system.

    Other characters become `_`. The result is not empty, does not start with a dot or a dash, and is not a reserved
    name.
    """
    return _one_component(_NOT_ALLOWED.sub("_", name))


def settings_name(settings: str) -> str:
    """Returns a `file_name` that may contain `=`, for directories that are named after KEY=VALUE."""
    return _one_component(_NOT_ALLOWED_IN_SETTINGS.sub("_", settings))


def file_names(names: Sequence[str], suffix: str = "") -> list[str]:
    """Returns `file_name(name) + suffix` for each name; all results differ, also where case is ignored.

    A duplicate gets the first number that makes it unique: `_2`, `_3` and so on. Names that are file names already
    are processed first, so that they do not change.
    """
    used: set[str] = set()
    found = [""] * len(names)
    for i in sorted(range(len(names)), key=lambda i: file_name(names[i]) != names[i]):
        wanted = unique = file_name(names[i])
        number = 1
        while unique.casefold() in used:
            number += 1
            unique = f"{wanted}_{number}"
        used.add(unique.casefold())
        found[i] = unique + suffix
    return found


def _one_component(name: str) -> str:
    found = name[:MAX_NAME_CHARACTERS].rstrip(".")
    return f"_{found}" if not found or found[0] in ".-" or _RESERVED.match(found) else found


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Converts an OSError while writing at `path`, such as a full disk, to a LastingError that says what to do."""
    try:
        yield
    except OSError as e:
        raise LastingError(
            f"{e.filename or path} cannot be written: {e.strerror or e}. Free disk space or fix the permissions, then"
            " continue with --resume. Files written earlier are intact."
        ) from e


def lock_file(file: TextIO) -> None:
    """Locks an open file until this process closes it or ends; raises OSError while another process has the lock."""
    try:
        import fcntl  # noqa: PLC0415  (Windows has no such module)
    except ImportError:
        import msvcrt  # noqa: PLC0415  (other systems have no such module)

        # Windows lets nobody else read a locked byte, so the locked one lies beyond the text.
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that readers, also after a crash, see the old content or the new content, never a part of it."""
    # Processes on several machines may write the same file of a shared directory.
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Waits until a directory's entries are on disk, so that a new file's name survives a crash of the machine."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no directories
        return
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
