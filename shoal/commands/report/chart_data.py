"""The values behind the charts as JSON, for the page's script (report.js).

A figure lists its lines in up to two views, `sides` and `agents`; a line lists its runs; a run names its arrays by
number: x for each of AXES, and y. Figures share arrays, because most lines of a run have the same x.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from actor_node.evaluation.rollouts.episodes import Float64s
from shoal.commands.report.chart import AxisScale
from shoal.commands.report.figures import AXES, FigureLine, ReportFigure, figure_lines
from shoal.commands.report.line_style import line_styles
from shoal.commands.report.run_record import RunGroup
from shoal.commands.report.traces import thinned
from shoal.statistics import t_quantile

MAX_AGENT_LINES = 12
"""Most lines of a chart with one line for each agent: a reader cannot tell more of them apart."""
_DIGITS = 6


class ChartData:
    """Collects the figures of a page and the arrays that they share."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[float | None, ...], int] = {}
        self._figures: dict[str, Any] = {}
        self._largest_group = 1

    def add(self, key: str, figure: ReportFigure, groups: Sequence[RunGroup], scale: AxisScale) -> None:
        """Adds a figure under the id of its element."""
        views = {"sides": self._lines(figure, groups, by_agent=False)}
        agents = len(figure_lines(figure, groups, by_agent=True))
        if figure.by_agent and len(views["sides"]) < agents <= MAX_AGENT_LINES:
            views["agents"] = self._lines(figure, groups, by_agent=True)
        self._figures[key] = {"scale": scale._asdict(), "views": views}
        self._largest_group = max(self._largest_group, *(len(group.records) for group in groups))

    @property
    def has_agents(self) -> bool:
        """Whether a figure has a line for each agent."""
        return any("agents" in figure["views"] for figure in self._figures.values())

    def to_json(self) -> str:
        """Returns the data as JSON that can stand in a script element: without the characters of tags."""
        data = {
            "axes": [{"label": axis.label, "decimals": axis.decimals} for axis in AXES],
            "quantiles": [0.0, 0.0, *(t_quantile(runs) for runs in range(2, self._largest_group + 1))],
            "arrays": list(self._arrays),
            "figures": self._figures,
        }
        text = msgspec.json.encode(data).decode()
        return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")

    def _lines(self, figure: ReportFigure, groups: Sequence[RunGroup], *, by_agent: bool) -> list[Mapping[str, Any]]:
        by_axis = [figure_lines(figure, groups, axis, by_agent=by_agent) for axis in AXES]
        styles = line_styles(by_axis[0], groups)
        return [
            {"label": style.label, "colour": style.colour, "dash": style.dash, "runs": self._runs(over_axes)}
            for style, over_axes in zip(styles, zip(*by_axis, strict=True), strict=True)
        ]

    def _runs(self, over_axes: Sequence[FigureLine]) -> list[Mapping[str, Any]]:
        runs: list[Mapping[str, Any]] = []
        for traces in zip(*(line.traces for line in over_axes), strict=True):
            thin = [thinned(trace) for trace in traces]
            runs.append({"x": [self._array(trace.x) for trace in thin], "y": self._array(thin[0].y)})
        return runs

    def _array(self, values: Float64s) -> int:
        rounded = tuple(_rounded(float(value)) for value in values)
        return self._arrays.setdefault(rounded, len(self._arrays))


def _rounded(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{_DIGITS}g}")
    return int(short) if short == int(short) else short
