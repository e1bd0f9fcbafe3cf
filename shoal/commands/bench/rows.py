"""One line of the benchmark table, and how two rates are measured against each other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import msgspec

REPEATS = 5
SMALLER_IS_BETTER = ("MiB", "ms", "s", "us/transition", "return")
"""Units of which less is better, returns below 0 among them: their goals are upper bounds of the ratio."""


class BenchRow(msgspec.Struct, frozen=True):
    """A figure, its baseline from the same run, and the ratio that is the goal."""

    name: str
    value: float
    unit: str
    baseline_name: str
    baseline: float
    ratio: float
    goal: float
    """Of the ratio; 0 = none."""


class BenchProgress(msgspec.Struct, frozen=True):
    """What a benchmark is doing, in words."""

    doing: str


def row(name: str, unit: str, value: float, baseline: tuple[str, float], goal: float = 0.0) -> BenchRow:
    """Returns a row over a baseline given as (name, value); over a baseline of 0 the ratio is 0."""
    return BenchRow(name, value, unit, *baseline, value / baseline[1] if baseline[1] else 0.0, goal)


def in_words(row: BenchRow) -> str:
    """Returns a row as a line for people."""
    bound = "<=" if row.unit in SMALLER_IS_BETTER else ">="
    goal = f"  (goal {bound} {row.goal:g}x)" if row.goal else ""
    baseline = f"{row.ratio:.2f}x {row.baseline_name} ({row.baseline:,.4g}){goal}" if row.baseline_name else ""
    return f"{row.name:<34} {row.value:>12,.4g} {row.unit:<14} {baseline}"


def rate(turn: Callable[[], int], seconds: float = 0.3) -> float:
    """Returns how many things a second are done by calling `turn`, which returns how many it did."""
    done, started_at = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started_at) < seconds:
        done += turn()
    return done / elapsed


def compare(ours: Callable[[], float], baseline: Callable[[], float], repeats: int = REPEATS) -> tuple[float, float]:
    """Returns the medians of both measurements, taken in turn."""
    pairs = [(ours(), baseline()) for _ in range(repeats)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)
