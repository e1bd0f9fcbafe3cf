"""The file of a unix socket: libzmq makes it and leaves it, so that whoever bound it removes it at the end.

libzmq also removes whatever lies there before it binds, so that is looked at first.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from common.errors import ConfigError

_SCHEME = "ipc://"


class SocketFile:
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


def refuse_taken(endpoint: str, option: str) -> None:
    """Raises ConfigError where binding would take an ipc:// path from a server that runs, or remove a file."""
    path = Path(endpoint.removeprefix(_SCHEME))
    if not endpoint.startswith(_SCHEME) or not path.exists():
        return
    if not path.is_socket():
        raise ConfigError(f"{option} {endpoint}: {path} is there and no socket; remove it, or choose another path")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            pass  # somebody listens, and is busy
        except OSError:
            return  # left behind by a process that was killed, or no path of ours to tell about: libzmq will
    raise ConfigError(
        f"{option} {endpoint}: the address is in use; stop the process that holds it or choose another path"
    )
