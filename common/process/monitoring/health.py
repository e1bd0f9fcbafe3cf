"""Health and metrics over HTTP: /metrics for Prometheus, /healthz and /readyz for supervisors and probes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from common.process.monitoring.http_server import TEXT, HttpServer, Request, Response


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
    """Serves /metrics (Prometheus), /healthz and /readyz from daemon threads."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health) -> None:
        """Serves at once; port 0 takes any free port. ConfigError if the port cannot be bound."""
        self._server = HttpServer(host, port, partial(_answer, registry, health), "--metrics-port")
        self.url = f"{self._server.url}metrics"
        self._server.start()

    def close(self) -> None:
        """Stops serving and releases the port."""
        self._server.close()


def _answer(registry: CollectorRegistry, health: Health, request: Request) -> Response:
    if request.path == "/metrics":
        return Response(200, CONTENT_TYPE_LATEST, generate_latest(registry))
    if request.path in ("/healthz", "/readyz"):
        reason = health.not_alive if request.path == "/healthz" else health.not_ready
        return Response(503, TEXT, f"{reason}\n".encode()) if reason else Response(200, TEXT, b"ok\n")
    return Response(404, TEXT, b"try /metrics, /healthz or /readyz\n")
