"""Builds dashboards: panels with their queries, laid out in rows 24 units wide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

DATASOURCE_UID = "shoal-prometheus"
"""Uid of the data source in provisioning/datasources. Each dashboard has a variable that selects another one."""
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT = 24, 8

Json = dict[str, Any]


class Query(NamedTuple):
    """One PromQL expression and the legend of its series."""

    expr: str
    legend: str


class Panel(NamedTuple):
    """One panel: its queries, their unit, and a description of what to look for."""

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    options: Json | None = None
    """Settings of the panel's fields in addition to the unit."""


class Row(NamedTuple):
    """A heading and the panels below it."""

    title: str
    panels: Sequence[Panel]


def dashboard(uid: str, title: str, description: str, variables: Iterable[Json], rows: Iterable[Row]) -> Json:
    """Returns a dashboard; panels are numbered in reading order."""
    panels: list[Json] = []
    top = 0
    for row in rows:
        panels.append(_heading(row.title, len(panels) + 1, top))
        top = _lay_out(row, panels, top + 1)
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["shoal"],
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "schemaVersion": 39,
        "version": 1,
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "links": [_links()],
        "annotations": {"list": []},
        "templating": {"list": [_datasource(), *variables]},
        "panels": panels,
    }


def label_variable(name: str, label: str, query: str) -> Json:
    """Returns a variable that selects values of a label; all are selected by default."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "options": [],
        "regex": "",
        "hide": 0,
    }


def _lay_out(row: Row, panels: list[Json], top: int) -> int:
    """Lays out a row's panels side by side from `top` on; returns the top of the next row."""
    left = 0
    height = 4 if all(panel.kind == "stat" for panel in row.panels) else _HEIGHT
    for panel in row.panels:
        if left + panel.width > _WIDTH:
            left, top = 0, top + height
        position = {"h": height, "w": panel.width, "x": left, "y": top}
        panels.append(_panel(panel, len(panels) + 1, position))
        left += panel.width
    return top + height


def _heading(title: str, number: int, top: int) -> Json:
    position = {"h": 1, "w": _WIDTH, "x": 0, "y": top}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": position, "panels": []}


def _panel(panel: Panel, number: int, position: Json) -> Json:
    instant = panel.kind in ("stat", "table")
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": _SOURCE,
            "expr": query.expr,
            "legendFormat": query.legend,
            "instant": instant,
            "range": not instant,
            **({"format": "table"} if panel.kind == "table" else {}),
        }
        for index, query in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": {"unit": panel.unit, **_fields(panel)}, "overrides": []},
        "options": _options(panel.kind),
        "targets": targets,
        **({"transformations": _as_table()} if panel.kind == "table" else {}),
    }


def _fields(panel: Panel) -> Json:
    lines = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": False}
    options = dict(panel.options or {})
    if panel.kind != "timeseries":
        return options
    return {**options, "custom": {**lines, **options.get("custom", {})}}


def _options(kind: str) -> Json:
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    by_kind: dict[str, Json] = {
        "stat": {"reduceOptions": reduce, "colorMode": "value", "graphMode": "none", "textMode": "auto"},
        "table": {"showHeader": True},
        "timeseries": {
            "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }
    return by_kind[kind]


def _as_table() -> list[Json]:
    hidden = dict.fromkeys(("Time", "__name__", "Value", "job"), True)
    return [{"id": "organize", "options": {"excludeByName": hidden}}]


def _datasource() -> Json:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Prometheus",
        "query": "prometheus",
        "current": {"text": "Prometheus", "value": DATASOURCE_UID},
        "options": [],
        "regex": "",
        "refresh": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
    }


def _links() -> Json:
    return {
        "type": "dashboards",
        "title": "Shoal",
        "tags": ["shoal"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }
