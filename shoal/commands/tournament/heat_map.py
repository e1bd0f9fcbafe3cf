"""Matrices as one SVG file: the layout is computed here; the template heat_map.svg draws it and escapes all names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

from shoal.commands.tournament.matrices import Cell, Matrix, short_names
from shoal.number_format import fixed

CELL_WIDTH, CELL_HEIGHT = 108, 44
_CHARACTER, _TITLE_CHARACTER = 6.6, 7.6
"""Estimated width of a character of labels and of titles [pixels]."""
_MAX_CHARACTERS = 28
_TITLE, _HEAD, _GAP, _EDGE = 30, 24, 22, 16


class PlacedCell(NamedTuple):
    """One cell with its upper left corner and its texts."""

    x: float
    y: float
    cell: Cell
    mean: str
    interval: str


class Panel(NamedTuple):
    """One matrix with its upper edge; labels are (pixel, text)."""

    top: float
    title: str
    columns: tuple[tuple[float, str], ...]
    rows: tuple[tuple[float, str], ...]
    cells: tuple[PlacedCell, ...]


class _Frame(NamedTuple):
    """The layout that all panels share."""

    names: dict[str, str]
    """Labels by team name."""
    left: float
    """Left edge of the cells."""
    width: float
    """Width of a cell, wide enough for the column labels."""


def draw_heat_map(matrices: Sequence[Matrix], side: str) -> str:
    """Returns the matrices as an SVG file, one below the other."""
    frame = _frame(matrices, side)
    panels, top = [], float(_EDGE)
    for matrix in matrices:
        panels.append(_panel(matrix, frame, top))
        top += _TITLE + _HEAD + CELL_HEIGHT * len(matrix.rows) + _GAP
    most = max(len(matrix.columns) for matrix in matrices)
    title_room = _TITLE_CHARACTER * max(len(matrix.title) for matrix in matrices)
    template = _templates().get_template("heat_map.svg")
    return template.render(
        panels=panels,
        left=frame.left,
        side=side,
        cell=(frame.width, CELL_HEIGHT),
        width=round(max(frame.left + most * frame.width, _EDGE + title_room) + _EDGE),
        height=round(top),
    )


def _frame(matrices: Sequence[Matrix], side: str) -> _Frame:
    short = short_names(list(dict.fromkeys(name for matrix in matrices for name in (*matrix.rows, *matrix.columns))))
    names = {name: _shortened(label) for name, label in short.items()}
    longest = max(len(label) for label in names.values())
    left = _EDGE + _CHARACTER * max(longest, len(f"{side} \\ others")) + 8
    return _Frame(names, left, max(CELL_WIDTH, _CHARACTER * longest + 8))


def _panel(matrix: Matrix, frame: _Frame, top: float) -> Panel:
    first = top + _TITLE + _HEAD
    lefts = [frame.left + frame.width * i for i in range(len(matrix.columns))]
    tops = [first + CELL_HEIGHT * j for j in range(len(matrix.rows))]
    cells = [
        _placed_cell(x, y, cell)
        for y, line in zip(tops, matrix.cells, strict=True)
        for x, cell in zip(lefts, line, strict=True)
    ]
    return Panel(
        top=top,
        title=matrix.title,
        columns=tuple((x + frame.width / 2, frame.names[name]) for x, name in zip(lefts, matrix.columns, strict=True)),
        rows=tuple((y + CELL_HEIGHT / 2, frame.names[name]) for y, name in zip(tops, matrix.rows, strict=True)),
        cells=tuple(cells),
    )


def _placed_cell(x: float, y: float, cell: Cell) -> PlacedCell:
    low, high = cell.figure.ci95
    return PlacedCell(x, y, cell, fixed(cell.figure.mean), f"{fixed(low)} .. {fixed(high)}")


def _shortened(label: str) -> str:
    return label if len(label) <= _MAX_CHARACTERS else f"...{label[3 - _MAX_CHARACTERS :]}"


def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
