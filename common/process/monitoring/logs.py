"""Logging: the log of a process, and the log lines of a loop that waits."""

from __future__ import annotations

import logging
import time
from pathlib import Path


def start_logging(role: str, level: str = "INFO", file: Path | None = None) -> None:
    """Writes the log to stderr, one line an event: time, level, role, module, message with key=value context.

    file: also receives the events from INFO on, whatever `level` is.
    """
    logging.Formatter.converter = time.gmtime
    console = logging.StreamHandler()
    console.setLevel(level)
    logging.basicConfig(
        level="INFO" if file else level,
        handlers=[console, logging.FileHandler(file)] if file else [console],
        format=f"%(asctime)s.%(msecs)03dZ %(levelname)-7s {role} %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
        force=True,
    )


class WaitLog:
    """Logs what a loop waits for, after 10 s of waiting and every 10 s from then on.

    Example:
        wait = WaitLog(logging.getLogger(__name__))
        while not batch_ready():
            wait.waiting("a batch", time.monotonic())
        wait.done(time.monotonic())
    """

    def __init__(self, log: logging.Logger, period_s: float = 10.0) -> None:
        self._log, self._period_s = log, period_s
        self._reason = ""
        self._since = self._last_logged = self._counted_to = 0.0
        self.total_s = 0.0
        """Total waiting time, including the current wait [s]."""

    @property
    def reason(self) -> str:
        """What the loop waits for; empty while it does not wait."""
        return self._reason

    def waiting(self, reason: str, now: float) -> None:
        """Records that the loop waits at monotonic time `now` [s]."""
        if not self._reason:
            self._since = self._last_logged = self._counted_to = now
        self._reason = reason
        self._count(now)
        if now - self._last_logged >= self._period_s:
            self._last_logged = now
            self._log.warning("waiting for %s: %.0f s so far", reason, now - self._since)

    def done(self, now: float) -> None:
        """Records the end of the current wait, if there is one."""
        if self._reason:
            self._count(now)
            if self._last_logged > self._since:
                self._log.info("waited for %s: %.1f s", self._reason, now - self._since)
        self._reason = ""

    def _count(self, now: float) -> None:
        self.total_s += now - self._counted_to
        self._counted_to = now
