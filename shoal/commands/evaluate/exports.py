"""The table of evaluated runs for other programs: CSV for data frames, LaTeX for papers."""

from __future__ import annotations

import csv
import io

from shoal.commands.evaluate.rows import Cell, TableRow, columns_of, rows_of
from shoal.commands.evaluate.summary import Evaluations


def to_csv(found: Evaluations) -> str:
    """Returns a line a run or reference, then mean and IQM of each set of seeds; figures with their intervals' ends."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = columns_of(found)
    ends = [f"{name}{suffix}" for name in columns for suffix in ("", "_low", "_high")]
    writer.writerow([*TableRow._fields[:-1], *ends])
    for row in rows_of(found):
        values = [value for name in columns for value in _flat(row.figures.get(name))]
        writer.writerow(["" if value is None else value for value in (*row[:-1], *values)])
    return out.getvalue()


def to_latex(found: Evaluations) -> str:
    """Returns a tabular that needs no package: a row a run or reference, below them mean and IQM with intervals."""
    columns = columns_of(found)
    lines = [" & ".join(["run", *(_escaped(name.replace("_", " ")) for name in columns)]) + r" \\", r"\hline"]
    kind = "run"
    for row in rows_of(found):
        if row.kind != kind and row.kind in ("reference", "mean"):
            lines.append(r"\hline")
        kind = row.kind
        name = f"{kind} of {row.name}" if kind in ("mean", "IQM") else row.name
        lines.append(" & ".join([_escaped(name), *(_in_latex(row.figures.get(column)) for column in columns)]) + r" \\")
    body = "\n".join(lines)
    return f"\\begin{{tabular}}{{l{'r' * len(columns)}}}\n\\hline\n{body}\n\\hline\n\\end{{tabular}}\n"


def _flat(figure: Cell | None) -> tuple[float | None, float | None, float | None]:
    if figure is None:
        return None, None, None
    value, interval = figure
    return (value, *interval) if interval else (value, None, None)


def _in_latex(figure: Cell | None) -> str:
    if figure is None:
        return "--"
    value, interval = figure
    return f"${value:.2f}$" + (f" $[{interval[0]:.2f}, {interval[1]:.2f}]$" if interval else "")


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)
