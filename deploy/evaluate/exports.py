"""The table of evaluated runs for other programs: CSV for data frames, LaTeX for papers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from deploy.evaluate.summary import Evaluations, Spread

_Interval = tuple[float, float] | None


class _Line(NamedTuple):
    """One line: a run, or a mean or interquartile mean over runs."""

    kind: str
    name: str
    scenario: str
    algorithm: str
    run_seed: int | None
    episodes: int | None
    seed: int | None
    updates: int | None
    figures: Mapping[str, tuple[float, _Interval]]


def to_csv(found: Evaluations) -> str:
    """Returns one line a run, then mean and IQM of each set of seeds; every figure with its interval's ends."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = _columns(found)
    ends = [f"{name}{suffix}" for name in columns for suffix in ("", "_low", "_high")]
    writer.writerow([*_Line._fields[:-1], *ends])
    for line in _lines(found):
        values = [value for name in columns for value in _flat(line.figures.get(name))]
        writer.writerow(["" if value is None else value for value in (*line[:-1], *values)])
    return out.getvalue()


def to_latex(found: Evaluations) -> str:
    """Returns a tabular that needs no package: a row a run, and below them mean and IQM with their intervals."""
    columns = _columns(found)
    rows = [" & ".join(["run", *(_escaped(name.replace("_", " ")) for name in columns)]) + r" \\", r"\hline"]
    kind = "run"
    for line in _lines(found):
        if line.kind != kind and line.kind == "mean":
            rows.append(r"\hline")
        kind = line.kind
        name = line.name if kind == "run" else f"{kind} of {line.name}"
        rows.append(" & ".join([_escaped(name), *(_in_latex(line.figures.get(column)) for column in columns)]) + r" \\")
    body = "\n".join(rows)
    return f"\\begin{{tabular}}{{l{'r' * len(columns)}}}\n\\hline\n{body}\n\\hline\n\\end{{tabular}}\n"


def _columns(found: Evaluations) -> list[str]:
    return ["return_mean", *dict.fromkeys(name for one in found.runs for name in one.result.metrics)]


def _lines(found: Evaluations) -> Iterator[_Line]:
    for one in found.runs:
        result = one.result
        figures = {name: (figure.mean, figure.ci95) for name, figure in result.metrics.items()}
        figures["return_mean"] = result.return_mean, result.return_ci95
        about = (one.directory, result.scenario, one.algorithm, one.run_seed, result.episodes, result.seed)
        yield _Line("run", *about, result.updates, figures)
    for summary in (summary for summary in found.summaries if summary.runs > 1):
        spreads: dict[str, Spread] = {"return_mean": summary.return_mean, **summary.metrics}
        about_all = (summary.name, summary.scenario, "", None, None, None, None)
        yield _Line("mean", *about_all, {name: (one.mean, one.ci95) for name, one in spreads.items()})
        yield _Line("IQM", *about_all, {name: (one.iqm, one.iqm_ci95) for name, one in spreads.items()})


def _flat(figure: tuple[float, _Interval] | None) -> tuple[float | None, float | None, float | None]:
    if figure is None:
        return None, None, None
    value, interval = figure
    return (value, *interval) if interval else (value, None, None)


def _in_latex(figure: tuple[float, _Interval] | None) -> str:
    if figure is None:
        return "--"
    value, interval = figure
    return f"${value:.2f}$" + (f" $[{interval[0]:.2f}, {interval[1]:.2f}]$" if interval else "")


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)
