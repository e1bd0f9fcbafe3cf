"""`shoal train --dashboard`: the run's report, served live to browsers on this machine.

The page is rebuilt when a browser asks, at most every few seconds; nobody looking costs nothing. It is served on
127.0.0.1 only, and only to requests that name this host: a page from elsewhere cannot read it through the browser.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from common.errors import ConfigError
from common.wire.messages import Status
from deploy.local.live_display import Display, status_rows

HOST = "127.0.0.1"
REFRESH_S = 5
"""How often a browser asks."""
REMAKE_S = 2.0
"""How old a page may be before it is rebuilt."""

_log = logging.getLogger(__name__)


class Dashboard:
    """A display that passes on what it is shown, and serves it with the run's report."""

    def __init__(self, port: int = 0) -> None:
        """Takes the port (0 = any free one), before there is a run; ConfigError if it is in use."""
        self._pages = _Pages()
        try:
            self._server = _Server((HOST, port), self._pages)
        except OSError as e:
            raise ConfigError(
                f"--dashboard-port {port}: cannot listen on {HOST}:{port} ({e.strerror}); choose another (0 = any free)"
            ) from e
        self.url = f"http://{HOST}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="dashboard", daemon=True)

    def serve(self, run: Path, display: Display) -> None:
        """Begins to serve a run's page, and to pass on to the display."""
        self._pages.run, self._display = run, display
        self._thread.start()

    def show(self, status: Status | None, problems: Sequence[str]) -> None:
        """Shows the newest status here and on the page."""
        now = status_rows(status) if status is not None else [("state", "waiting for the replay server")]
        self._pages.now = [*now, *(("problem", problem) for problem in problems)]
        self._display.show(status, problems)

    def print(self, text: str) -> None:
        """Passes it on."""
        self._display.print(text)

    def close(self) -> None:
        """Ends the display; the page is served on, while the run is evaluated."""
        self._pages.now = [("state", "training has ended")]
        self._display.close()

    def stop_serving(self) -> None:
        """Stops serving and frees the port."""
        if self._thread.is_alive():  # else shutdown() would wait for it for ever
            self._server.shutdown()
        self._server.server_close()


class _Pages:
    """The live page, with and without refreshing, rebuilt when it is too old."""

    def __init__(self) -> None:
        self.run = Path()
        self.now: Sequence[tuple[str, str]] = ()
        self._lock = threading.Lock()
        self._made: dict[bool, tuple[float, bytes]] = {}

    def get(self, *, refreshing: bool) -> bytes:
        """Returns the page; one request at a time makes it."""
        from shoal.commands.report.page import LiveStatus, make_page  # noqa: PLC0415  (slow to import: Jinja)
        from shoal.commands.report.run_record import read_record  # noqa: PLC0415

        with self._lock:
            made_at, page = self._made.get(refreshing, (-REMAKE_S, b""))
            if time.monotonic() - made_at >= REMAKE_S:
                live = LiveStatus(REFRESH_S if refreshing else 0, self.now)
                page = make_page([read_record(self.run)], live).encode()
                self._made[refreshing] = time.monotonic(), page
            return page


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], pages: _Pages) -> None:
        self.pages = pages
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "shoal", ""
    timeout = 10.0  # seconds: a client that says nothing does not hold a thread

    def do_GET(self) -> None:
        """Answers with the page."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answers as for GET, without the page itself."""
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name is http.server's)
        """Logs requests for those who look for them."""
        _log.debug(format, *args)

    def _answer(self, *, with_body: bool) -> None:
        status, kind, body = self._page()
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")):
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _page(self) -> tuple[int, str, bytes]:
        plain = "text/plain; charset=utf-8"
        if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):
            return 403, plain, b"this page is for browsers on the machine that trains\n"
        path, _, query = self.path.partition("?")
        if path != "/":
            return 404, plain, b"there is one page: /\n"
        return 200, "text/html; charset=utf-8", self.server.pages.get(refreshing=query != "paused")
