"""Each figure as the template of the page needs it: chart, legend, text description, table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shoal.commands.report.chart import NARROW, SMALL, WIDE, AxisScale, Chart, Curve, draw
from shoal.commands.report.chart_data import ChartData
from shoal.commands.report.figures import STEPS, ReportFigure, curve_of, figure_lines
from shoal.commands.report.line_style import LineStyle, line_styles
from shoal.commands.report.run_record import RunGroup
from shoal.commands.report.traces import Trace
from shoal.number_format import NOTHING, brief, significant

_TABLE_ROWS = 11


class FigureView(NamedTuple):
    """One figure, ready for the template."""

    key: str
    scenario: str
    title: str
    unit: str
    meaning: str
    latest: str
    """The newest value of a figure with one line; else empty."""
    charts: tuple[tuple[str, Chart], ...]
    """CSS class of the screens that a chart is for (empty: all), and the chart."""
    legend: tuple[LineStyle, ...]
    reference: str
    """Label and value of the reference line; empty if there is none."""
    alt: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def figure_view(
    figure: ReportFigure, groups: Sequence[RunGroup], prefix: str, data: ChartData | None = None, *, wide: bool = False
) -> FigureView | None:
    """Returns a figure for the template; None if no run has values for it.

    prefix: prefix of the element ids. data: receives the values for the page's script. wide: also lay out a chart for
    the full width of the page.
    """
    found = figure_lines(figure, groups)
    scale = figure_scale(figure, groups)
    lines = [curve_of(line, log=scale.log) for line in found]
    boxes = (("wide", WIDE), ("narrow", NARROW)) if wide else (("", SMALL),)
    charts = [(kind, draw(lines, STEPS.label, scale, box)) for kind, box in boxes]
    drawn = tuple((kind, chart) for kind, chart in charts if chart is not None)
    if not drawn:
        return None
    if data is not None:
        data.add(f"{prefix}-{figure.key}", figure, groups, scale)
    return FigureView(
        key=f"{prefix}-{figure.key}",
        scenario=groups[0].records[0].run.spec.scenario,
        title=figure.title,
        unit=figure.unit,
        meaning=figure.meaning,
        latest=brief(_last(lines[0].line)) if len(lines) == 1 else "",
        charts=drawn,
        legend=tuple(line_styles(found, groups)),
        reference=f"{scale.reference[1]} {brief(scale.reference[0])}" if scale.reference else "",
        alt=_description(figure, lines),
        columns=(STEPS.label, *(curve.label or figure.title for curve in lines)),
        rows=_table(lines),
    )


def figure_scale(figure: ReportFigure, groups: Sequence[RunGroup]) -> AxisScale:
    """Returns the scale of the figure, without a reference value if the runs have different ones."""
    scales = dict.fromkeys(figure.scale(record) for group in groups for record in group.records)
    first = next(iter(scales))
    return first if len(scales) == 1 else first._replace(reference=None)


def _description(figure: ReportFigure, lines: Sequence[Curve]) -> str:
    trends = [f"{curve.label}: {_trend(curve)}" if curve.label else _trend(curve) for curve in lines]
    return f"Line chart of {figure.title.lower()}, {figure.unit}, over {STEPS.label}. {'; '.join(trends)}."


def _trend(curve: Curve) -> str:
    line = curve.line if len(curve.line.x) else curve.behind[0]
    known = np.flatnonzero(np.isfinite(line.y))
    if not len(known):
        return "no values"
    first, last = known[0], known[-1]
    inside = line.y[known]
    return (
        f"from {brief(line.y[first])} at {brief(line.x[first])} to {brief(line.y[last])} at "
        f"{brief(line.x[last])}, lowest {brief(inside.min())}, highest {brief(inside.max())}"
    )


def _table(lines: Sequence[Curve]) -> tuple[tuple[str, ...], ...]:
    """Returns the values of a chart at a few x values, including the first and the last."""
    xs = [curve.line.x[np.isfinite(curve.line.y)] for curve in lines]
    known = np.concatenate(xs) if xs else np.array([])
    if not len(known):
        return ()
    xs_shown = np.linspace(known.min(), known.max(), _TABLE_ROWS)
    return tuple((significant(x), *(_value_at(curve, x) for curve in lines)) for x in xs_shown)


def _value_at(curve: Curve, x: float) -> str:
    known = np.isfinite(curve.line.y)
    xs, ys = curve.line.x[known], curve.line.y[known]
    if not len(xs) or not xs[0] <= x <= xs[-1]:
        return NOTHING
    value = significant(float(np.interp(x, xs, ys)))
    if curve.low is None or curve.high is None:
        return value
    low, high = (significant(float(np.interp(x, xs, edge[known]))) for edge in (curve.low, curve.high))
    return f"{value} ({low} to {high})"


def _last(line: Trace) -> float:
    known = line.y[np.isfinite(line.y)]
    return float(known[-1]) if len(known) else float("nan")
