"""What every Shoal process shares: logging, signals and exit codes, dying with its parent, the HTTP port.

Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 3 a peer could not be reached, 130 interrupted.
Signals: SIGTERM and SIGINT ask for a clean end; a second SIGINT ends the process at once.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import NoReturn

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from common.errors import ConfigError
from common.host_lookup import is_ipv6

DONE, FAILED, BAD_USAGE, NO_PEER, INTERRUPTED = 0, 1, 2, 3, 130
MOST_FILES = 65_536

_log = logging.getLogger(__name__)
_ON_LINUX = sys.platform.startswith("linux")
_PR_SET_PDEATHSIG = 1


def start_logging(role: str, level: str = "INFO", file: Path | None = None) -> None:
    """Sends the log to stderr, one line an event: time, level, role, module, message with key=value context.

    file: is appended to from INFO on, whatever the level of what is shown.
    """
    logging.Formatter.converter = time.gmtime
    shown = logging.StreamHandler()
    shown.setLevel(level)
    logging.basicConfig(
        level="INFO" if file else level,
        handlers=[shown, logging.FileHandler(file)] if file else [shown],
        format=f"%(asctime)s.%(msecs)03dZ %(levelname)-7s {role} %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
        force=True,
    )


class Stop:
    """A request to end, made by a signal or by code: both clock and exit of every loop."""

    def __init__(self) -> None:
        self.exit_code = DONE
        self.requested = False
        """Whether the process shall end."""
        # A bare lock that the request opens. threading.Event would hang for ever when a signal interrupts its wait()
        # in the wrong place: its set() then waits for a lock that the interrupted code holds.
        self._gate = threading.Lock()
        self._gate.acquire()
        self._interrupts = 0

    def request(self, exit_code: int = DONE) -> None:
        """Asks the loops to end; the first request decides the exit code."""
        if self.requested:
            return
        self.exit_code, self.requested = exit_code, True
        with contextlib.suppress(RuntimeError):  # a signal came in between and has opened it
            self._gate.release()

    def wait(self, timeout_s: float) -> bool:
        """Waits up to `timeout_s` and returns whether the process shall end."""
        if not self.requested and self._gate.acquire(timeout=max(timeout_s, 0.0)):
            self._gate.release()  # for the next one that waits
        return self.requested

    def on_signals(self) -> None:
        """Takes SIGINT (exit code 130) and SIGTERM (exit code 0); a second SIGINT ends the process at once."""
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        # What an environment forks is an ordinary process: its terminate() must end it.
        os.register_at_fork(after_in_child=self.release_signals)

    def release_signals(self) -> None:
        """Gives the signals back their usual meaning: SIGINT raises KeyboardInterrupt, SIGTERM ends the process."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            os._exit(INTERRUPTED)
        self.request(INTERRUPTED if number == signal.SIGINT else DONE)


def leave(code: int) -> NoReturn:
    """Ends the process with an exit code; threads and processes that an environment left behind do not hold it up.

    The usual end waits for both without a limit.
    """
    left = [thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()]
    children = multiprocessing.active_children()
    if not left and not children:
        sys.exit(code)
    for child in children:
        child.kill()
    # os._exit runs none of them.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


class WaitLog:
    """Says in the log what a loop waits for, once it has waited 10 s and every 10 s from then on."""

    def __init__(self, log: logging.Logger, period_s: float = 10.0) -> None:
        self._log, self._period_s = log, period_s
        self._reason = ""
        self._since = self._said = self._counted = 0.0
        self.total_s = 0.0
        """Waiting time in all, of the wait that goes on too."""

    @property
    def reason(self) -> str:
        """What is being waited for; empty when nothing is."""
        return self._reason

    def waiting(self, reason: str, now: float) -> None:
        """Notes that the loop waits at monotonic time `now`."""
        if not self._reason:
            self._since = self._said = self._counted = now
        self._reason = reason
        self._count(now)
        if now - self._said >= self._period_s:
            self._said = now
            self._log.warning("waiting since %.0f s for %s", now - self._since, reason)

    def done(self, now: float) -> None:
        """Notes that the wait, if there was one, is over."""
        if self._reason:
            self._count(now)
            if self._said > self._since:
                self._log.info("waited %.1f s for %s; going on", now - self._since, self._reason)
        self._reason = ""

    def _count(self, now: float) -> None:
        self.total_s += now - self._counted
        self._counted = now


def die_with_parent(parent_pid: int) -> None:
    """Ends this process (SIGTERM) when its parent is gone, however the parent ends; returns at once.

    On Linux the kernel sends the signal when the *thread* that started us ends, so parents start children from their
    main thread. Elsewhere a thread looks once a second.
    """
    if _ON_LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent_pid:
            os.kill(os.getpid(), signal.SIGTERM)
        return

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def allow_many_connections() -> None:
    """Raises the limit of open files, which is 1,024 by custom, towards what this process may have: one a peer."""
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


class Health:
    """What /healthz and /readyz answer: the reason this process is not alive or not ready, empty when it is.

    Alive means that the loop turns: it calls `beat` at least every `stall_s`. Ready is what the role says of itself.
    """

    def __init__(self, stall_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_s, self._clock = stall_s, clock
        self._beat = clock()
        self.not_ready = "starting"

    def beat(self) -> None:
        """Notes that the loop has turned."""
        self._beat = self._clock()

    @property
    def not_alive(self) -> str:
        """Why the process counts as stuck; empty when it does not."""
        silent_s = self._clock() - self._beat
        return f"the loop has not turned for {silent_s:.0f} s" if silent_s > self._stall_s else ""


class HttpPort:
    """Serves /metrics (Prometheus), /healthz and /readyz from a daemon thread."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health) -> None:
        """Binds at once (port 0 = any free one); ConfigError when the port cannot be had."""

        class Handler(BaseHTTPRequestHandler):
            timeout = 10.0  # seconds: a client that says nothing does not hold a thread

            def do_GET(self) -> None:
                status, kind, body = _answer(self.path.partition("?")[0], registry, health)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name is http.server's)
                _log.debug(format, *args)

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if is_ipv6(host) else socket.AF_INET

        try:
            self._server = Server((host, port), Handler)
        except OSError as e:
            raise ConfigError(
                f"--metrics-port {port}: cannot listen on {host}:{port} ({e.strerror}); choose another (0 = any free)"
            ) from e
        self._server.daemon_threads = True
        # To others every address of this machine is none: they look for it by its name.
        shown = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104  (compared, not bound)
        self.url = f"http://{f'[{shown}]' if is_ipv6(shown) else shown}:{self._server.server_address[1]}/metrics"
        # Looks every tenth of a second whether it shall stop: what close() takes.
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="http", daemon=True).start()

    def close(self) -> None:
        """Stops serving and frees the port."""
        self._server.shutdown()
        self._server.server_close()


def _answer(path: str, registry: CollectorRegistry, health: Health) -> tuple[int, str, bytes]:
    plain = "text/plain; charset=utf-8"
    if path == "/metrics":
        return 200, CONTENT_TYPE_LATEST, generate_latest(registry)
    if path in ("/healthz", "/readyz"):
        reason = health.not_alive if path == "/healthz" else health.not_ready
        return (503, plain, f"{reason}\n".encode()) if reason else (200, plain, b"ok\n")
    return 404, plain, b"try /metrics, /healthz or /readyz\n"
