"""A small HTTP server in daemon threads: one function answers all GET and HEAD requests.

/metrics, /healthz and /readyz of every process (health.py) and the dashboard of `shoal train` are served by it.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from common.errors import ConfigError
from common.wire.host_lookup import is_ipv6

TEXT = "text/plain; charset=utf-8"
"""The content type of plain text."""

_log = logging.getLogger(__name__)


class Request(NamedTuple):
    """What a request asks for."""

    path: str
    query: str
    host: str
    """The header Host, empty without one."""


class Response(NamedTuple):
    """What a request is answered with."""

    status: int
    content_type: str
    body: bytes
    on_sent: Callable[[], object] | None = None
    """Called after the body was sent; not for a HEAD request."""


class HttpServer:
    """Serves one address.

    Example:
        server = HttpServer("127.0.0.1", 0, lambda request: Response(200, TEXT, b"ok"), "--metrics-port")
        server.start()
        print(server.url)
        server.close()
    """

    def __init__(self, host: str, port: int, answer: Callable[[Request], Response], option: str) -> None:
        """Binds at once, but answers only after `start`; port 0 takes any free port.

        answer: is called in several threads. ConfigError that names `option` if the port cannot be bound.
        """

        class Handler(BaseHTTPRequestHandler):
            server_version, sys_version = "shoal", ""
            timeout = 10.0  # seconds: a silent client does not occupy a thread for longer

            def do_GET(self) -> None:
                response = self._send_headers()
                self.wfile.write(response.body)
                if response.on_sent:
                    response.on_sent()

            def do_HEAD(self) -> None:
                self._send_headers()

            def _send_headers(self) -> Response:
                path, _, query = self.path.partition("?")
                try:
                    response = answer(Request(path, query, self.headers.get("Host", "")))
                except Exception as e:  # noqa: BLE001  (the client must get an answer, whatever fails)
                    _log.warning("request failed path=%s error=%r", path, e)
                    response = Response(500, TEXT, b"The answer failed; see the log.\n")
                self.send_response(response.status)
                self.send_header("Content-Type", response.content_type)
                self.send_header("Content-Length", str(len(response.body)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                return response

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name is http.server's)
                _log.debug(format, *args)

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if is_ipv6(host) else socket.AF_INET
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
                # A client may go away before it has its answer: that is not worth a traceback on the terminal.
                _log.debug("connection failed client=%s", client_address, exc_info=True)

        try:
            self._server = Server((host, port), Handler)
        except OSError as e:
            raise ConfigError(
                f"{option} {port}: cannot listen on {host}:{port} ({e.strerror}). Pass another port, or 0 for any free"
                " one."
            ) from e
        # Other machines cannot use the wildcard address, so the URL contains the host name.
        shown = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104  (compared, not bound)
        self.url = f"http://{f'[{shown}]' if is_ipv6(shown) else shown}:{self._server.server_address[1]}/"
        """The URL of the path /."""
        # Polls for shutdown every tenth of a second, which bounds the duration of close().
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="http", daemon=True)

    def start(self) -> None:
        """Starts to answer requests."""
        self._thread.start()

    def close(self) -> None:
        """Stops serving and releases the port."""
        if self._thread.is_alive():  # otherwise shutdown() would wait forever
            self._server.shutdown()
        self._server.server_close()
