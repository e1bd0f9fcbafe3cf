"""The table of a sweep: for each variant the mean return over seeds with its interval, and other statistics.

The interval is Student's t over seeds, as in the report: seeds are the replicates, not episodes. The interquartile mean
is recommended in addition by Agarwal et al. 2021 (arXiv 2108.13264).
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.table import Column, Table

from common.files import write_atomically, writing
from shoal.commands.sweep.plan import PlannedRun
from shoal.number_format import interval
from shoal.statistics import interquartile_mean, mean_interval

RESULTS_FILE = "sweep.json"
CSV_FILE = "sweep.csv"


class Outcome(msgspec.Struct, frozen=True):
    """The result of one finished run."""

    variant: str
    seed: int
    return_mean: float
    updates: int
    directory: str


class SweepRow(msgspec.Struct, frozen=True):
    """One row of the table: a variant."""

    variant: str
    seeds: int
    return_mean: float
    return_ci95: tuple[float, float] | None
    """None for fewer than two seeds."""
    return_iqm: float
    return_worst: float
    return_best: float
    updates: float
    """Mean number of updates over seeds."""


class _EvaluationFile(msgspec.Struct, frozen=True):
    return_mean: float
    updates: int


class Sweep(NamedTuple):
    """The results of a sweep so far."""

    outcomes: list[Outcome]
    rows: list[SweepRow]


def outcome_of(run: PlannedRun) -> Outcome | None:
    """Returns the outcome of a run; None if it has not been evaluated."""
    try:
        found = msgspec.json.decode((run.directory / "evaluation.json").read_bytes(), type=_EvaluationFile)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    return Outcome(run.variant.name, run.seed, found.return_mean, found.updates, str(run.directory))


def gather(runs: Iterable[PlannedRun]) -> Sweep:
    """Returns the outcomes of the finished runs and the table, best variant first."""
    outcomes = [outcome for run in runs if (outcome := outcome_of(run)) is not None]
    names = dict.fromkeys(outcome.variant for outcome in outcomes)
    rows = [_row([outcome for outcome in outcomes if outcome.variant == name]) for name in names]
    return Sweep(outcomes, sorted(rows, key=lambda row: -row.return_mean))


def save(sweep: Sweep, directory: Path) -> None:
    """Writes the outcomes as CSV, and the outcomes and the table as JSON."""
    results = msgspec.json.format(msgspec.json.encode({"rows": sweep.rows, "runs": sweep.outcomes}))
    lines = io.StringIO(newline="")
    writer = csv.writer(lines)
    writer.writerow(Outcome.__struct_fields__)
    writer.writerows(msgspec.structs.astuple(outcome) for outcome in sweep.outcomes)
    with writing(directory):
        write_atomically(directory / RESULTS_FILE, results + b"\n")
        write_atomically(directory / CSV_FILE, lines.getvalue().encode())


def text_table(sweep: Sweep) -> Table:
    """Returns the table for a terminal."""
    table = Table(Column("variant", overflow="fold"))
    for heading in ("seeds", "return", "95 % interval", "IQM", "worst", "best", "updates"):
        table.add_column(heading, no_wrap=True)
    for row in sweep.rows:
        ends = interval(row.return_ci95) if row.return_ci95 else "one seed"
        returns = (f"{value:.2f}" for value in (row.return_iqm, row.return_worst, row.return_best))
        table.add_row(row.variant, str(row.seeds), f"{row.return_mean:.2f}", ends, *returns, f"{row.updates:,.0f}")
    return table


def _row(outcomes: Sequence[Outcome]) -> SweepRow:
    returns = [outcome.return_mean for outcome in outcomes]
    mean, low, high = mean_interval(returns) if len(returns) > 1 else (returns[0], 0.0, 0.0)
    return SweepRow(
        variant=outcomes[0].variant,
        seeds=len(returns),
        return_mean=mean,
        return_ci95=(low, high) if len(returns) > 1 else None,
        return_iqm=interquartile_mean(returns),
        return_worst=min(returns),
        return_best=max(returns),
        updates=statistics.fmean(outcome.updates for outcome in outcomes),
    )
