"""The layout of a line chart in pixels, which the macro `draw` of parts.html renders as SVG.

No plotting library is used, because the dozen charts of a live page must take milliseconds beside a running training,
need a few kilobytes each, and follow the page's light or dark colours (docs/report.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from actor_node.evaluation.rollouts.episodes import Float64s
from shoal.commands.report.axis_ticks import linear_ticks, log_tick_labels, log_ticks, tick_labels
from shoal.commands.report.traces import Trace, thinned

_MIN_FRACTION = 1e-12
"""Fraction of the largest value below which a value counts as zero, which a logarithmic axis cannot show."""


class Curve(NamedTuple):
    """One line of a chart, with an optional band and optional fainter lines behind it."""

    label: str
    line: Trace
    low: Float64s | None = None
    high: Float64s | None = None
    """Edges of the band, [points of the line]."""
    behind: tuple[Trace, ...] = ()
    """The single runs behind a mean."""


class AxisScale(NamedTuple):
    """The scale of a vertical axis."""

    log: bool = False
    from_zero: bool = False
    up_to: float = 0.0
    """Smallest upper end of the axis, so that tiny values do not fill the chart; 0 sets none."""
    reference: tuple[float, str] | None = None
    """A reference value, drawn as a separate line, and its label."""


class ChartBox(NamedTuple):
    """The size of a chart and its margins, in pixels."""

    width: int
    height: int
    left: int = 44
    right: int = 12
    top: int = 8
    bottom: int = 36

    @property
    def end(self) -> int:
        """The right edge of the plot."""
        return self.width - self.right

    @property
    def floor(self) -> int:
        """The bottom edge of the plot."""
        return self.height - self.bottom


class CurvePaths(NamedTuple):
    """One curve as SVG paths; a path is empty if there is nothing to draw."""

    path: str
    band: str
    behind: tuple[str, ...]
    end: tuple[float, float] | None
    """Position of the last value."""


class Chart(NamedTuple):
    """A chart that is ready to draw; ticks are (pixel, label)."""

    box: ChartBox
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    curves: tuple[CurvePaths, ...]
    reference: float | None
    """Vertical position of the reference value."""
    x_label: str


SMALL = ChartBox(360, 220)
WIDE = ChartBox(1040, 340)
NARROW = ChartBox(360, 260)


def draw(curves: Sequence[Curve], x_label: str, scale: AxisScale, box: ChartBox) -> Chart | None:
    """Lays out a chart; returns None if there is no value to show."""
    lines = [thinned(line) for curve in curves for line in (curve.line, *curve.behind)]
    x_range, y_range = _x_range(lines), _y_range(lines, scale)
    if x_range is None or y_range is None:
        return None
    to_x, to_y = _to_pixels(*x_range, box.left, box.end), _to_pixels(*y_range, box.floor, box.top, log=scale.log)
    x_ticks = linear_ticks(*x_range, most=max(3, box.width // 90))
    y_ticks = log_ticks(*y_range) if scale.log else linear_ticks(*y_range, most=box.height // 36)
    y_labels = log_tick_labels(y_ticks) if scale.log else tick_labels(y_ticks)
    return Chart(
        box=box,
        x_ticks=tuple(zip(_round(to_x(np.array(x_ticks))), tick_labels(x_ticks), strict=True)),
        y_ticks=tuple(zip(_round(to_y(np.array(y_ticks))), y_labels, strict=True)),
        curves=tuple(_curve_paths(curve, to_x, to_y, y_range) for curve in curves),
        reference=_round(to_y(np.array([scale.reference[0]])))[0] if scale.reference else None,
        x_label=x_label,
    )


_ToPixels = Callable[[Float64s], Float64s]


def _to_pixels(low: float, high: float, start: float, end: float, *, log: bool = False) -> _ToPixels:
    if log:
        first, last = math.log10(low), math.log10(high)
        return lambda values: start + (np.log10(values) - first) / (last - first) * (end - start)
    return lambda values: start + (values - low) / (high - low) * (end - start)


def _x_range(lines: Sequence[Trace]) -> tuple[float, float] | None:
    known = np.concatenate([line.x[np.isfinite(line.y)] for line in lines]) if lines else np.array([])
    if not len(known):
        return None
    low, high = float(known.min()), float(known.max())
    low = 0.0 if low < 0.25 * high else low
    return (low, high) if high > low else (low - 1.0, high + 1.0)


def _y_range(lines: Sequence[Trace], scale: AxisScale) -> tuple[float, float] | None:
    """Returns the range of the lines with some margin; bands beyond the range are clipped."""
    known = np.concatenate([line.y[np.isfinite(line.y)] for line in lines]) if lines else np.array([])
    if scale.log:
        known = known[known > max(known.max(initial=0.0) * _MIN_FRACTION, 0.0)]
    if not len(known):
        return None
    if scale.reference:
        known = np.append(known, scale.reference[0])
    if scale.up_to:
        known = np.append(known, scale.up_to)
    low, high = float(known.min()), float(known.max())
    if scale.log:
        room = max((high / low) ** 0.06, 1.2)
        return low / room, high * room
    room = 0.06 * (high - low) or max(abs(high) * 0.1, 0.5)
    return (min(0.0, low) if scale.from_zero else low - room), high + room


def _curve_paths(curve: Curve, to_x: _ToPixels, to_y: _ToPixels, y_range: tuple[float, float]) -> CurvePaths:
    line = thinned(curve.line)
    path = _path(line, to_x, to_y, y_range)
    known = np.flatnonzero(np.isfinite(line.y) & (line.y >= y_range[0]))
    end = None
    if len(known):
        last = known[-1:]
        end = _round(to_x(line.x[last]))[0], _round(to_y(line.y[last]))[0]
    band = ""
    if curve.low is not None and curve.high is not None:
        upper = Trace(curve.line.x, np.clip(curve.high, *y_range))
        lower = Trace(curve.line.x[::-1], np.clip(curve.low, *y_range)[::-1])
        band = f"{_path(upper, to_x, to_y, y_range)}L{_path(lower, to_x, to_y, y_range)[1:]}Z"
    behind = tuple(_path(thinned(one), to_x, to_y, y_range) for one in curve.behind)
    return CurvePaths(path, band, behind, end)


def _path(line: Trace, to_x: _ToPixels, to_y: _ToPixels, y_range: tuple[float, float]) -> str:
    """Returns the line as an SVG path, interrupted where a value is missing or below the axis."""
    shown = np.isfinite(line.y) & (line.y >= y_range[0])
    xs, ys = _round(to_x(line.x[shown])), _round(to_y(line.y[shown]))
    starts = np.diff(np.flatnonzero(shown), prepend=-2) > 1
    points = zip(starts, xs, ys, strict=True)
    return "".join(f"{'M' if first else 'L'}{x:g} {y:g}" for first, x, y in points)


def _round(values: Float64s) -> list[float]:
    return [round(float(value), 1) for value in values]
