"""The rows of the table of evaluated runs, for any output format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from shoal.commands.evaluate.summary import Evaluations, SeedGroup, SeedStatistics

RETURN = "return_mean"
"""Name of the first column; the others are metrics."""
MeanWithInterval = tuple[float, tuple[float, float] | None]
"""A figure and the ends of its interval, if it has one."""


class TableRow(NamedTuple):
    """One row: a run, a reference team, or a mean or interquartile mean over runs."""

    kind: str
    """run, reference (a team that is not a run), mean or IQM."""
    name: str
    scenario: str
    algorithm: str
    runs: int
    run_seed: int | None
    episodes: int | None
    seed: int | None
    updates: int | None
    figures: Mapping[str, MeanWithInterval]
    """Figures by column name."""


def table_columns(found: Evaluations) -> list[str]:
    """Returns the column names: the union over all scenarios."""
    return [RETURN, *dict.fromkeys(name for one in found.runs for name in one.result.metrics)]


def table_rows(found: Evaluations) -> Iterator[TableRow]:
    """Yields the runs, the references, then the mean and IQM of each set of seeds."""
    for kind, one in [*(("run", one) for one in found.runs), *(("reference", one) for one in found.references)]:
        result = one.result
        figures: dict[str, MeanWithInterval] = {
            name: (figure.mean, figure.ci95) for name, figure in result.metrics.items()
        }
        figures[RETURN] = result.return_mean, result.return_ci95
        settings = (one.run_seed, result.episodes, result.seed, result.updates)
        yield TableRow(kind, one.directory, result.scenario, one.algorithm, 1, *settings, figures)
    for summary in found.summaries:
        if summary.runs > 1:
            yield _over_runs("mean", summary, lambda one: (one.mean, one.ci95))
            yield _over_runs("IQM", summary, lambda one: (one.iqm, one.iqm_ci95))


def _over_runs(kind: str, summary: SeedGroup, cell: Callable[[SeedStatistics], MeanWithInterval]) -> TableRow:
    figures = {RETURN: cell(summary.return_mean), **{name: cell(one) for name, one in summary.metrics.items()}}
    return TableRow(kind, summary.name, summary.scenario, "", summary.runs, None, None, None, None, figures)
