"""The log of a process, and the log lines of a loop that waits."""

from __future__ import annotations

import logging
import time
from pathlib import Path


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
