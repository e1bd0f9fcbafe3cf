"""The file of a Unix socket (ipc://): libzmq creates it and leaves it behind, so the process that bound it removes it.

Before it binds, libzmq also removes whatever the path contains; `require_unused` checks the path first.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from common.errors import ConfigError

_SCHEME = "ipc://"


class SocketFile:
    """The file of an endpoint that was just bound; without effect unless the endpoint is an ipc:// one."""

    def __init__(self, endpoint: str) -> None:
        self._path = Path(endpoint.removeprefix(_SCHEME)) if endpoint.startswith(_SCHEME) else None
        self._inode = self._current_inode()

    def remove(self) -> None:
        """Removes the file, unless another process has bound the same address in the meantime."""
        if self._path is not None and self._inode and self._current_inode() == self._inode:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _current_inode(self) -> int:
        try:
            return self._path.stat().st_ino if self._path is not None else 0
        except OSError:
            return 0


def require_unused(endpoint: str, option: str) -> None:
    """Raises ConfigError if binding an ipc:// path would take it from a running server or remove another file."""
    path = Path(endpoint.removeprefix(_SCHEME))
    if not endpoint.startswith(_SCHEME) or not path.exists():
        return
    if not path.is_socket():
        raise ConfigError(f"{option} {endpoint}: '{path}' exists and is not a socket. Remove it or pass another path.")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            pass  # a server listens and is busy
        except OSError:
            return  # a killed process left the file behind, or the path is unusable, which libzmq reports
    raise ConfigError(
        f"{option} {endpoint}: the address is in use. Stop the process that uses it or pass another path."
    )
