"""Matrices and standings as tables for a terminal, with the cell colours of the heat map."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from actor_node.evaluation.tournament import Tournament
from shoal.commands.tournament.matrices import Matrix, short_names
from shoal.number_format import interval, mean_with_interval


def matrix_table(matrix: Matrix, side: str) -> Table:
    """Returns a matrix as a table; rows play `side`, columns all other sides."""
    short = short_names(matrix.rows)
    table = Table(title=matrix.title, title_justify="left", show_lines=True)
    table.add_column(f"{side} \\ others")
    for name in matrix.columns:
        table.add_column(short[name], justify="center", no_wrap=True)
    for name, cells in zip(matrix.rows, matrix.cells, strict=True):
        texts = [
            Text(f"{cell.figure.mean:.2f}\n{interval(cell.figure.ci95)}", style=style)
            for cell in cells
            for style in (f"{cell.ink} on {cell.fill}",)
        ]
        table.add_row(short[name], *texts)
    return table


def standings_table(tournament: Tournament) -> Table:
    """Returns the mean return of every team over its opponents, by side."""
    names = [standing.name for standing in tournament.standings]
    short = short_names(names)
    over = ", ".join(short[name] for name in tournament.opponents) or "all others"
    table = Table(title=f"mean return against {over}", title_justify="left")
    for column in ("team", "algorithm", "updates", *(f"as {side}" for side in tournament.sides)):
        table.add_column(column, justify="left" if column in ("team", "algorithm") else "right")
    for standing in tournament.standings:
        returns = [standing.return_by_side.get(side) for side in tournament.sides]
        figures = ("" if one is None else mean_with_interval(one.mean, one.ci95) for one in returns)
        table.add_row(short[standing.name], standing.algorithm, f"{standing.updates:,}", *figures)
    return table
