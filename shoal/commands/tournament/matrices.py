"""A tournament as matrices: rows play one side, columns all other sides, each cell is one figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

from actor_node.evaluation.episode_metrics import meaning_of
from actor_node.evaluation.evaluate import Estimate
from actor_node.evaluation.task import FOREIGN_DYNAMICS
from actor_node.evaluation.task_metrics import MEANINGS
from actor_node.evaluation.tournament import Tournament

_PALE, _DEEP = (243, 247, 251), (11, 79, 148)
"""Colours of the smallest and the largest mean; one hue, because rows and columns have opposite interests."""
_DARK_FROM = 0.72
"""Fraction of the way from pale to deep from which white text contrasts better than black."""


class Cell(NamedTuple):
    """One pairing with its colours."""

    figure: Estimate
    fill: str
    ink: str
    """Colours as #rrggbb; the ink contrasts with the fill."""


class Matrix(NamedTuple):
    """One quantity of all pairings."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]


def matrices(tournament: Tournament) -> list[Matrix]:
    """Returns a matrix for the return of each side, then one for each metric."""
    names = tuple(standing.name for standing in tournament.standings)
    first = tournament.pairings[0]
    found = [
        (f"return of {side}, mean over its agents", [pairing.returns[side] for pairing in tournament.pairings])
        for side in first.returns
    ]
    found += [
        (_metric_title(name, tournament), [pairing.metrics[name] for pairing in tournament.pairings])
        for name in first.metrics
        if all(name in pairing.metrics for pairing in tournament.pairings)
    ]
    return [matrix(title, names, names, figures) for title, figures in found]


def matrix(title: str, rows: Sequence[str], columns: Sequence[str], figures: Sequence[Estimate]) -> Matrix:
    """Arranges figures row by row in a matrix, coloured from the smallest to the largest mean."""
    means = [figure.mean for figure in figures]
    low, span = min(means), max(means) - min(means)
    cells = [_cell(figure, (figure.mean - low) / span if span else 0.5) for figure in figures]
    width = len(columns)
    lines = tuple(tuple(cells[start : start + width]) for start in range(0, len(cells), width))
    return Matrix(title, tuple(rows), tuple(columns), lines)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Returns short names: without the parent directories that all runs share."""
    paths = {name: PurePath(name).parts for name in names if len(PurePath(name).parts) > 1}
    shared = 0
    while len(paths) > 1 and all(len(parts) > shared + 1 for parts in paths.values()):
        if len({parts[shared] for parts in paths.values()}) > 1:
            break
        shared += 1
    if len(paths) == 1:
        shared = len(next(iter(paths.values()))) - 1
    return {name: "/".join(paths[name][shared:]) if name in paths else name for name in names}


def _metric_title(name: str, tournament: Tournament) -> str:
    """Returns a metric's meaning, after its name if the meaning does not contain it."""
    if tournament.dynamics == FOREIGN_DYNAMICS:
        return meaning_of(name, tournament.pairings[0].metrics)
    return f"{name}: {MEANINGS[name]}"


def _cell(figure: Estimate, fraction: float) -> Cell:
    mixed = (round(a + fraction * (b - a)) for a, b in zip(_PALE, _DEEP, strict=True))
    return Cell(figure, "#{:02x}{:02x}{:02x}".format(*mixed), "#ffffff" if fraction > _DARK_FROM else "#000000")
