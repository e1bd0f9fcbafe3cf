"""A tournament as matrices: who plays the side of the rows, who plays the others, one number in each cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

from actor_node.evaluation.evaluate import Figure
from actor_node.evaluation.task_metrics import MEANINGS
from actor_node.evaluation.tournament import Tournament

_PALE, _DEEP = (243, 247, 251), (11, 79, 148)
"""One hue from little to much: which of it is good differs from row to column."""
_DARK_FROM = 0.72
"""Share of the way at which white can be read as well as black."""


class Cell(NamedTuple):
    """One pairing."""

    figure: Figure
    fill: str
    ink: str
    """Colours as #rrggbb; the ink can be read on the fill."""


class Matrix(NamedTuple):
    """One quantity over all pairings."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]


def matrices(tournament: Tournament) -> list[Matrix]:
    """Returns each side's returns, then each measure."""
    names = tuple(standing.name for standing in tournament.standings)
    first = tournament.pairings[0]
    found = [
        (f"return of {side}, mean over its agents", [pairing.returns[side] for pairing in tournament.pairings])
        for side in first.returns
    ]
    found += [
        (f"{name}: {MEANINGS[name]}", [pairing.metrics[name] for pairing in tournament.pairings])
        for name in first.metrics
    ]
    return [matrix(title, names, names, figures) for title, figures in found]


def matrix(title: str, rows: Sequence[str], columns: Sequence[str], figures: Sequence[Figure]) -> Matrix:
    """Lays figures, row by row, into a matrix coloured from its least to its largest mean."""
    means = [figure.mean for figure in figures]
    low, span = min(means), max(means) - min(means)
    cells = [_cell(figure, (figure.mean - low) / span if span else 0.5) for figure in figures]
    width = len(columns)
    lines = tuple(tuple(cells[start : start + width]) for start in range(0, len(cells), width))
    return Matrix(title, tuple(rows), tuple(columns), lines)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Returns names without the directories that all the runs among them stand in."""
    paths = {name: PurePath(name).parts for name in names if len(PurePath(name).parts) > 1}
    shared = 0
    while len(paths) > 1 and all(len(parts) > shared + 1 for parts in paths.values()):
        if len({parts[shared] for parts in paths.values()}) > 1:
            break
        shared += 1
    if len(paths) == 1:
        shared = len(next(iter(paths.values()))) - 1
    return {name: "/".join(paths[name][shared:]) if name in paths else name for name in names}


def _cell(figure: Figure, share: float) -> Cell:
    mixed = (round(a + share * (b - a)) for a, b in zip(_PALE, _DEEP, strict=True))
    return Cell(figure, "#{:02x}{:02x}{:02x}".format(*mixed), "#ffffff" if share > _DARK_FROM else "#000000")
