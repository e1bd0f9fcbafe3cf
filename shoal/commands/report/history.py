"""A run's course: the lines of its metrics.jsonl as columns.

A line that was cut off by a crash, or that no longer belongs to the run, is left out: a learner that was killed goes on
from its last checkpoint, and what it wrote after that checkpoint led to no policy that there is.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Line = dict[str, Any]

MOST_LINES = 2_000
"""Lines that are looked at, evenly chosen where there are more: a page shows a few hundred points."""


class History:
    """What a run's learner logged, over time."""

    def __init__(self, lines: Iterable[Line] = (), left_out: int = 0) -> None:
        """Takes the lines in their order; left_out: how many could not be read or were superseded."""
        self.lines = list(lines)
        self.left_out = left_out

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, name: str) -> Floats:
        """Returns one figure over time, [lines]; NaN where a line does not have it."""
        return np.array([_number(line.get(name)) for line in self.lines], np.float64)

    def columns(self, name: str) -> Floats:
        """Returns a figure that has several entries (agents), [lines, entries]; NaN where a line has fewer."""
        rows = [_numbers(line.get(name)) for line in self.lines]
        width = max(map(len, rows), default=0)
        return np.array([row + [np.nan] * (width - len(row)) for row in rows], np.float64).reshape(len(rows), width)

    @property
    def updating_s(self) -> Floats:
        """Returns the time in which batches came, [lines]; earlier versions wrote it as `trained_s`."""
        found = self.column("updating_s")
        return np.where(np.isfinite(found), found, self.column("trained_s"))

    def last(self, name: str) -> float:
        """Returns the newest value of a figure; NaN where no line has it."""
        known = self.column(name)
        known = known[np.isfinite(known)]
        return float(known[-1]) if len(known) else float("nan")


def read_history(path: Path) -> History:
    """Reads a metrics.jsonl; an empty course where there is none yet."""
    try:
        raw = path.read_bytes().splitlines()
    except FileNotFoundError:
        return History()
    lines: list[Line] = []
    for one in filter(None, raw):
        line = _decoded(one)
        if line is None:
            continue
        while lines and lines[-1]["updates"] > line["updates"]:
            lines.pop()
        lines.append(line)
    chosen = np.linspace(0, len(lines) - 1, min(len(lines), MOST_LINES)).astype(int)
    return History((lines[i] for i in chosen), left_out=len(raw) - len(lines))


def _decoded(raw: bytes) -> Line | None:
    try:
        line = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("updates"), int) else None


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _numbers(value: object) -> list[float]:
    return [_number(item) for item in value] if isinstance(value, list) else []
