"""The table of evaluated runs as CSV for data frames and as LaTeX for papers."""

from __future__ import annotations

import csv
import io

from shoal.commands.evaluate.summary import Evaluations
from shoal.commands.evaluate.table_rows import MeanWithInterval, TableRow, table_columns, table_rows


def to_csv(found: Evaluations) -> str:
    """Returns a CSV line for each row of the table; each figure has columns for the ends of its interval."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = table_columns(found)
    ends = [f"{name}{suffix}" for name in columns for suffix in ("", "_low", "_high")]
    writer.writerow([*TableRow._fields[:-1], *ends])
    for row in table_rows(found):
        values = [value for name in columns for value in _csv_cells(row.figures.get(name))]
        writer.writerow(["" if value is None else value for value in (*row[:-1], *values)])
    return out.getvalue()


def to_latex(found: Evaluations) -> str:
    """Returns a LaTeX tabular, which needs no package: runs and references, then mean and IQM with intervals."""
    columns = table_columns(found)
    lines = [" & ".join(["run", *(_escaped(name.replace("_", " ")) for name in columns)]) + r" \\", r"\hline"]
    kind = "run"
    for row in table_rows(found):
        if row.kind != kind and row.kind in ("reference", "mean"):
            lines.append(r"\hline")
        kind = row.kind
        name = f"{kind} of {row.name}" if kind in ("mean", "IQM") else row.name
        lines.append(
            " & ".join([_escaped(name), *(_latex_cell(row.figures.get(column)) for column in columns)]) + r" \\"
        )
    body = "\n".join(lines)
    return f"\\begin{{tabular}}{{l{'r' * len(columns)}}}\n\\hline\n{body}\n\\hline\n\\end{{tabular}}\n"


def _csv_cells(figure: MeanWithInterval | None) -> tuple[float | None, float | None, float | None]:
    if figure is None:
        return None, None, None
    value, interval = figure
    return (value, *interval) if interval else (value, None, None)


def _latex_cell(figure: MeanWithInterval | None) -> str:
    if figure is None:
        return "--"
    value, interval = figure
    return f"${value:.2f}$" + (f" $[{interval[0]:.2f}, {interval[1]:.2f}]$" if interval else "")


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)
