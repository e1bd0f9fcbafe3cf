"""The history of a run: the lines of its metrics.jsonl as columns.

Lines that a crash cut off are left out. So are lines that were superseded: a killed learner continues from its last
checkpoint, so the updates that it logged after that checkpoint are not part of the final policies.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from actor_node.evaluation.rollouts.episodes import Float64s

LogLine = dict[str, Any]

MAX_LINES = 2_000
"""Most lines that are used, evenly spaced if there are more: a page shows a few hundred points."""


class History:
    """The metrics that a run's learner logged over time.

    Example:
        history = read_history(Path("runs/spread/metrics.jsonl"))
        returns = history.column("return_mean")
    """

    def __init__(self, lines: Iterable[LogLine] = (), left_out: int = 0) -> None:
        """Creates a history from lines in order; left_out: number of unreadable or superseded lines."""
        self.lines = list(lines)
        self.left_out = left_out

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, name: str) -> Float64s:
        """Returns one metric over time, [lines]; NaN for lines without it."""
        return np.array([_number(line.get(name)) for line in self.lines], np.float64)

    def columns(self, name: str) -> Float64s:
        """Returns a metric with several entries (agents), [lines, entries]; NaN for missing entries."""
        rows = [_numbers(line.get(name)) for line in self.lines]
        width = max(map(len, rows), default=0)
        return np.array([row + [np.nan] * (width - len(row)) for row in rows], np.float64).reshape(len(rows), width)

    @property
    def updating_s(self) -> Float64s:
        """Duration of the learner's iterations with a batch [s], [lines]; earlier versions logged it as `trained_s`."""
        logged = self.column("updating_s")
        return np.where(np.isfinite(logged), logged, self.column("trained_s"))

    def last(self, name: str) -> float:
        """Returns the newest finite value of a metric; NaN if there is none."""
        known = self.column(name)
        known = known[np.isfinite(known)]
        return float(known[-1]) if len(known) else float("nan")


def read_history(path: Path) -> History:
    """Reads a metrics.jsonl; returns an empty history if the file does not exist yet."""
    try:
        raw = path.read_bytes().splitlines()
    except FileNotFoundError:
        return History()
    lines: list[LogLine] = []
    for one in filter(None, raw):
        line = _decoded(one)
        if line is None:
            continue
        while lines and lines[-1]["updates"] > line["updates"]:
            lines.pop()
        lines.append(line)
    chosen = np.linspace(0, len(lines) - 1, min(len(lines), MAX_LINES)).astype(int)
    return History((lines[i] for i in chosen), left_out=len(raw) - len(lines))


def _decoded(raw: bytes) -> LogLine | None:
    try:
        line = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("updates"), int) else None


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _numbers(value: object) -> list[float]:
    return [_number(item) for item in value] if isinstance(value, list) else []
