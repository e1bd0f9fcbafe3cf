"""The file of a unix socket: libzmq makes it and leaves it, so that whoever bound it removes it at the end."""

from __future__ import annotations

import contextlib
from pathlib import Path

_SCHEME = "ipc://"


class IpcFile:
    """What lies in the file system for an endpoint that has just been bound; nothing where it is no ipc:// one."""

    def __init__(self, endpoint: str) -> None:
        self._path = Path(endpoint.removeprefix(_SCHEME)) if endpoint.startswith(_SCHEME) else None
        self._inode = self._found()

    def remove(self) -> None:
        """Removes the file, unless another process has bound the same address meanwhile."""
        if self._path is not None and self._inode and self._found() == self._inode:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _found(self) -> int:
        try:
            return self._path.stat().st_ino if self._path is not None else 0
        except OSError:
            return 0
