"""The explanation of a slow start: which process the others wait for, and the last line of its log."""

from __future__ import annotations

import os
from pathlib import Path

from common.wire.messages import Status

SLOW_START_S = 5.0
"""A start that takes longer than this is explained to the user."""
_TAIL_BYTES = 4_096


class StartWatch:
    """Explains a slow start: it shows the last log line of the process that the others wait for."""

    def __init__(self, replay_log: Path, learner_log: Path) -> None:
        """Must be made before the processes are started: lines that the logs have by then are of an earlier start."""
        self._logs = {"replay server": replay_log, "learner": learner_log}
        self._earlier_bytes = {name: _size(log) for name, log in self._logs.items()}
        self._process, self._since = "", 0.0

    def explain(self, status: Status | None, now: float) -> list[str]:
        """Returns the explanation at monotonic time `now`; empty if no process has been starting for SLOW_START_S."""
        process = "replay server" if status is None else "learner" if status.learner is None else ""
        if process != self._process:
            self._process, self._since = process, now
        if not process or now - self._since < SLOW_START_S:
            return []
        event = last_log_message(self._logs[process], self._earlier_bytes[process])
        detail = f"; last line of its log: {event}" if event else ": it loads its code"
        return [f"the {process} is starting{detail}"]


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def last_log_message(log: Path, start: int = 0) -> str:
    """Returns the message of the last line of a log, without time, level, role and module; empty if there is none.

    start: position after which lines count [bytes].
    """
    try:
        with log.open("rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    last = next((line for line in reversed(lines) if line.strip()), "")
    return last.partition(": ")[2] or last
