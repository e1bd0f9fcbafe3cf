"""A table as a plot: one panel for each column and one row for each variant, with seeds, mean and interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

from shoal.commands.paper.scores import ResultRow, ResultTable, Score
from shoal.commands.report.axis_ticks import linear_ticks, tick_labels

_LEFT, _PANEL, _GAP, _TOP, _ROW, _BOTTOM, _EDGE = 16, 250, 34, 58, 34, 34, 16
_LETTER = 7.6


class PanelRow(NamedTuple):
    """One variant in one panel; positions in pixels."""

    y: float
    colour: int
    mean: float
    interval: tuple[float, float] | None
    seeds: tuple[float, ...]


class ColumnPanel(NamedTuple):
    """The panel of one column; ticks are (pixel, label)."""

    left: float
    right: float
    title: str
    ticks: tuple[tuple[float, str], ...]
    marks: tuple[PanelRow, ...]


def draw_plot(table: ResultTable) -> str:
    """Returns a table as an SVG file."""
    labels = [line.variant for line in table.lines]
    first = _LEFT + _LETTER * max(map(len, labels)) + 14
    titles = list(table.lines[0].scores)
    floor = _TOP + _ROW * len(labels)
    panels = [_panel(table.lines, title, first + i * (_PANEL + _GAP)) for i, title in enumerate(titles)]
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    return templates.get_template("plot.svg").render(
        title=table.title,
        labels=[(first - 14, _row(i) + 4, label) for i, label in enumerate(labels)],
        panels=panels,
        top=_TOP - 6,
        floor=floor,
        width=round(first + len(titles) * (_PANEL + _GAP) - _GAP + _EDGE),
        height=floor + _BOTTOM,
    )


def _row(index: int) -> float:
    return _TOP + _ROW * (index + 0.5)


def _panel(lines: Sequence[ResultRow], title: str, left: float) -> ColumnPanel:
    scores = [line.scores[title] for line in lines]
    low, high = _range(scores)

    def pixel(value: float) -> float:
        return round(left + (value - low) / (high - low) * _PANEL, 1)

    ticks = linear_ticks(low, high, most=5)
    marks = [
        PanelRow(
            y=_row(i),
            colour=i,
            mean=pixel(score.mean),
            interval=(pixel(score.ci95[0]), pixel(score.ci95[1])) if score.ci95 else None,
            seeds=tuple(pixel(value) for value in score.by_seed),
        )
        for i, score in enumerate(scores)
    ]
    shown = tuple(zip(map(pixel, ticks), tick_labels(ticks), strict=True))
    return ColumnPanel(left, left + _PANEL, title, shown, tuple(marks))


def _range(scores: Sequence[Score]) -> tuple[float, float]:
    """Returns the range of all seeds and intervals, starting at zero if zero is near."""
    known = [value for score in scores for value in (*score.by_seed, *(score.ci95 or ())) if math.isfinite(value)]
    low, high = min(known), max(known)
    low = min(low, 0.0) if low < 0.5 * high else low
    room = 0.04 * (high - low) or 0.5
    return (low if low == 0.0 else low - room), high + room
