"""Health and metrics over HTTP: /metrics for Prometheus, /healthz and /readyz for supervisors and probes."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from common.errors import ConfigError
from common.wire.host_lookup import is_ipv6

_log = logging.getLogger(__name__)


class Health:
    """The state behind /healthz and /readyz: why this process is not alive or not ready; empty if it is.

    A process is alive while its loop calls `beat` at least every `stall_s` seconds. The role sets `not_ready`.
    """

    def __init__(self, stall_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_s, self._clock = stall_s, clock
        self._beat = clock()
        self.not_ready = "starting"

    def beat(self) -> None:
        """Records an iteration of the loop."""
        self._beat = self._clock()

    @property
    def not_alive(self) -> str:
        """Why the process counts as stuck; empty while it does not."""
        silent_s = self._clock() - self._beat
        return f"the loop has not run for {silent_s:.0f} s" if silent_s > self._stall_s else ""


class HttpPort:
    """Serves /metrics (Prometheus), /healthz and /readyz from a daemon thread."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health) -> None:
        """Binds at once; port 0 takes any free port. ConfigError if the port cannot be bound."""

        class Handler(BaseHTTPRequestHandler):
            timeout = 10.0  # seconds: a silent client does not block a thread

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
                f"--metrics-port {port}: cannot listen on {host}:{port} ({e.strerror}). Pass another port, or 0 for any"
                " free one."
            ) from e
        self._server.daemon_threads = True
        # Other machines cannot use the wildcard address, so the URL contains the host name.
        shown = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104  (compared, not bound)
        self.url = f"http://{f'[{shown}]' if is_ipv6(shown) else shown}:{self._server.server_address[1]}/metrics"
        # Polls for shutdown every tenth of a second, which bounds the duration of close().
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="http", daemon=True).start()

    def close(self) -> None:
        """Stops serving and releases the port."""
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
