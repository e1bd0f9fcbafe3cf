"""`shoal train --dashboard`: the run's report, served live to browsers on this machine.

The page is rebuilt when a browser requests it, at most every MAX_PAGE_AGE_S, so an unwatched page costs nothing. Its
script requests it every REFRESH_PERIOD_S and shows what is new; the last answer is the final report, so that the page
stays open as the report. The server listens on 127.0.0.1 only. It refuses requests with another Host header, so that a
foreign web page cannot read the dashboard through the user's browser (DNS rebinding).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from common.process.durations import format_duration
from common.process.monitoring.http_server import TEXT, HttpServer, Request, Response
from common.wire.messages import Status
from deploy.local.live_display import Display, TimeLeft, status_rows
from shoal.commands.report import REPORT_FILE

HOST = "127.0.0.1"
REFRESH_PERIOD_S = 5
"""Period in which a browser requests the page again [s]."""
WATCHED_S = 2.0 * REFRESH_PERIOD_S
"""Age of the last request [s] up to which a browser counts as watching."""
MAX_PAGE_AGE_S = 2.0
"""Age at which a page is rebuilt [s]."""

_POLL_PERIOD_S = 0.1


class Dashboard:
    """A display that forwards everything to another display, and serves the newest status with the run's report."""

    def __init__(self, port: int = 0) -> None:
        """Opens the port (0: any free one); raises ConfigError if it is in use."""
        self._pages = _PageCache()
        self._server = HttpServer(HOST, port, partial(_answer, self._pages), "--dashboard-port")
        self.url = self._server.url

    def serve(self, run: Path, display: Display) -> None:
        """Starts serving the page of a run and forwarding to a display."""
        self._pages.run, self._display = run, display
        self._time_left = TimeLeft()
        self._server.start()

    def show(self, status: Status | None, problems: Sequence[str]) -> None:
        """Shows the newest status in the display and on the page."""
        rows = status_rows(status) if status is not None else [("state", "waiting for the replay server")]
        left_s = self._time_left.estimate_s(status, time.monotonic())
        if left_s is not None:
            rows.insert(1, ("time left", format_duration(left_s)))
        progress = status.learner.progress if status is not None and status.learner else None
        self._pages.now = _Now((*rows, *(("problem", problem) for problem in problems)), progress)
        self._display.show(status, problems)

    def print(self, text: str) -> None:
        """Prints a line in the display."""
        self._display.print(text)

    def close(self) -> None:
        """Closes the display; the page remains available during the evaluation."""
        self._pages.now = _Now((("state", "training has ended; evaluation, film and report follow"),))
        self._display.close()

    def finish(self, report: Path, stopped: Callable[[], bool]) -> None:
        """Hands the final report to the browsers that watch, then stops serving.

        Waits for them at most REFRESH_PERIOD_S and a second, and not at all after a request to stop.
        """
        try:
            self._pages.final = report.read_bytes()
        except OSError:
            pass  # no report could be made; the browser shows what it has
        else:
            give_up_at = time.monotonic() + REFRESH_PERIOD_S + 1.0
            while self._pages.is_watched and not stopped() and time.monotonic() < give_up_at:
                if self._pages.final_sent.wait(_POLL_PERIOD_S):
                    break
        self.stop_serving()

    def stop_serving(self) -> None:
        """Stops serving and frees the port."""
        self._server.close()


class _Now(NamedTuple):
    """The newest status of the run: names and values, and the fraction of the budget used if it is known."""

    rows: Sequence[tuple[str, str]] = ()
    progress: float | None = None


class _PageCache:
    """Caches the live page, with and without updates."""

    def __init__(self) -> None:
        self.run = Path()
        self.now = _Now()
        self.final: bytes | None = None
        """The final report, once it is written."""
        self.final_sent = threading.Event()
        self._watched_at = -WATCHED_S
        self._lock = threading.Lock()
        self._made: dict[bool, tuple[float, bytes]] = {}

    @property
    def is_watched(self) -> bool:
        """Whether a browser has requested the page lately."""
        return time.monotonic() - self._watched_at < WATCHED_S

    def get(self, *, refreshing: bool) -> bytes:
        """Returns the page, rebuilt if it is too old; concurrent requests wait for one build."""
        from shoal.commands.report.page import LiveStatus, make_page  # noqa: PLC0415  (slow to import: Jinja)
        from shoal.commands.report.run_record import read_record  # noqa: PLC0415

        self._watched_at = time.monotonic()
        if self.final is not None:
            return self.final
        with self._lock:
            made_at, page = self._made.get(refreshing, (-MAX_PAGE_AGE_S, b""))
            if time.monotonic() - made_at >= MAX_PAGE_AGE_S:
                report = str((self.run / REPORT_FILE).resolve())
                live = LiveStatus(REFRESH_PERIOD_S if refreshing else 0, self.now.rows, self.now.progress, report)
                page = make_page([read_record(self.run)], live).encode()
                self._made[refreshing] = time.monotonic(), page
            return page


def _answer(pages: _PageCache, request: Request) -> Response:
    if request.host.rpartition(":")[0] not in (HOST, "localhost"):
        return Response(403, TEXT, b"Open this page in a browser on the machine that trains.\n")
    if request.path != "/":
        return Response(404, TEXT, b"The only page is /.\n")
    page = pages.get(refreshing=request.query != "paused")
    return Response(200, "text/html; charset=utf-8", page, pages.final_sent.set if page is pages.final else None)
