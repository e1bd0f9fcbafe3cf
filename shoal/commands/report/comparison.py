"""Mean returns side by side on one scale: of groups of runs, and of what a run can be compared with. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

MARGIN = 0.04
"""Free space at both ends of a scale, as a fraction of its length."""
MAX_EXCESS = 1.0
"""Longest part of an interval beyond all means, as a multiple of their range: the t interval of two runs is wide."""


class Estimate(NamedTuple):
    """A mean return to compare."""

    label: str
    mean: float
    """NaN if it is not known."""
    low: float = math.nan
    high: float = math.nan
    """The 95 % interval; NaN if there is none."""
    runs: tuple[float, ...] = ()
    """Returns of the single runs behind the mean."""
    detail: str = ""
    colour: int | None = None
    """Number of the line colour of its group; None for a reference."""


class ScaleRow(NamedTuple):
    """An estimate with its positions on the scale in percent of its length."""

    estimate: Estimate
    mean: float | None
    interval: tuple[float, float] | None
    """Start and length."""
    runs: tuple[float, ...]


def on_one_scale(estimates: Sequence[Estimate]) -> list[ScaleRow]:
    """Returns the estimates with their positions on the scale that holds all of them, the largest mean first."""
    low, high = _ends(estimates)

    def position(value: float) -> float:
        fraction = (value - low) / (high - low) if high > low else 0.5
        return round(100 * min(max(fraction, 0.0), 1.0), 2)

    ordered = sorted(estimates, key=lambda one: -math.inf if math.isnan(one.mean) else one.mean, reverse=True)
    return [
        ScaleRow(
            one,
            None if math.isnan(one.mean) else position(one.mean),
            None if math.isnan(one.low) else (position(one.low), round(position(one.high) - position(one.low), 2)),
            tuple(position(value) for value in one.runs if math.isfinite(value)),
        )
        for one in ordered
    ]


def _ends(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Returns the ends of the scale: all means and runs, and intervals as far as they do not dwarf them."""
    known = [value for one in estimates for value in (one.mean, *one.runs) if math.isfinite(value)]
    if not known:
        return 0.0, 0.0
    edges = [value for one in estimates for value in (one.low, one.high) if math.isfinite(value)]
    first, last = min(known), max(known)
    excess = MAX_EXCESS * (last - first) or math.inf
    low = min([first, *(max(edge, first - excess) for edge in edges)])
    high = max([last, *(min(edge, last + excess) for edge in edges)])
    room = MARGIN * (high - low)
    return low - room, high + room
