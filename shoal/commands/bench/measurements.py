"""A row of the benchmark table, and how two rates are measured against each other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import msgspec

REPEATS = 5
SMALLER_IS_BETTER = ("MiB", "ms", "s", "us/transition", "return")
"""Units in which less is better, including returns, which are negative: their goals are upper bounds of the ratio."""


class BenchRow(msgspec.Struct, frozen=True):
    """A figure, its baseline from the same run, and their ratio."""

    name: str
    value: float
    unit: str
    baseline_name: str
    baseline: float
    ratio: float
    goal: float
    """Goal of the ratio; 0 means no goal."""


class BenchFailure(msgspec.Struct, frozen=True):
    """The row of figures that could not be measured, while other rows can be."""

    name: str
    failed: str
    """Why there are no figures."""


class BenchProgress(msgspec.Struct, frozen=True):
    """What a benchmark is doing, as text."""

    doing: str


def row(name: str, unit: str, value: float, baseline: tuple[str, float], goal: float = 0.0) -> BenchRow:
    """Returns a row for a baseline given as (name, value); the ratio is 0 if the baseline is 0."""
    return BenchRow(name, value, unit, *baseline, value / baseline[1] if baseline[1] else 0.0, goal)


def as_text(row: BenchRow | BenchFailure) -> str:
    """Returns a row as a line of text."""
    if isinstance(row, BenchFailure):
        return f"{row.name:<34} failed: {row.failed}"
    bound = "<=" if row.unit in SMALLER_IS_BETTER else ">="
    goal = f"  (goal {bound} {row.goal:g}x)" if row.goal else ""
    baseline = f"{row.ratio:.2f}x {row.baseline_name} ({row.baseline:,.4g}){goal}" if row.baseline_name else ""
    return f"{row.name:<34} {row.value:>12,.4g} {row.unit:<14} {baseline}"


def rate(call: Callable[[], int], seconds: float = 0.3) -> float:
    """Returns the items per second done by repeated calls; each call returns its number of items."""
    done, started_at = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started_at) < seconds:
        done += call()
    return done / elapsed


def compare(ours: Callable[[], float], baseline: Callable[[], float], repeats: int = REPEATS) -> tuple[float, float]:
    """Returns the medians of both measurements, alternating between them."""
    pairs = [(ours(), baseline()) for _ in range(repeats)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)
