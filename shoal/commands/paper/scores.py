"""The results of each table: means over seeds of each variant, and a comparison with the paper's claim."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from actor_node.evaluation.evaluate import Evaluation
from shoal.commands.paper.plan import TableRun
from shoal.commands.paper.tasks import MetricColumn, PaperTask
from shoal.statistics import mean_interval

Verdict = Literal["ahead", "ahead, intervals overlap", "behind", "not told"]
"""The comparison with the paper's claim, as stored in paper.json; the last value is for a single seed."""
OUTCOMES: dict[Verdict, str] = {
    "ahead": "ahead",
    "ahead, intervals overlap": "ahead, intervals overlap",
    "behind": "behind",
    "not told": "ahead, but one seed has no interval",
}
"""The text of each verdict."""


class Score(msgspec.Struct, frozen=True):
    """One figure of one line: a value for each seed, their mean, and the 95 % interval over seeds (Student's t)."""

    by_seed: tuple[float, ...]
    mean: float
    ci95: tuple[float, float] | None
    """None for one seed; the interval of a fraction is clipped to its possible range."""


class ResultRow(msgspec.Struct, frozen=True):
    """The results of one variant."""

    variant: str
    algorithm: str
    seeds: tuple[int, ...]
    scores: dict[str, Score]
    """Scores by column title."""


class ResultTable(msgspec.Struct, frozen=True):
    """The results of one task."""

    key: str
    title: str
    scenario: str
    claim: str
    verdict: Verdict
    lines: list[ResultRow]


def tables(runs: Sequence[TableRun], evaluated: Callable[[TableRun], Evaluation]) -> list[ResultTable]:
    """Returns the tables of the given runs; `evaluated` evaluates a run."""
    by_task = {run.task.key: run.task for run in runs}
    return [_table(task, [run for run in runs if run.task.key == task.key], evaluated) for task in by_task.values()]


def _table(task: PaperTask, runs: Sequence[TableRun], evaluated: Callable[[TableRun], Evaluation]) -> ResultTable:
    lines = []
    for variant in task.variants:
        variant_runs = [run for run in runs if run.variant == variant]
        results = [evaluated(run) for run in variant_runs]
        scores = {measure.title: _score(measure, results) for measure in task.measures}
        lines.append(ResultRow(variant.name, variant.algorithm, tuple(run.job.seed for run in variant_runs), scores))
    verdict = compare_with_claim(task, {line.variant: line.scores[task.claim.measure] for line in lines})
    return ResultTable(task.key, task.title, task.scenario, task.claim.text, verdict, lines)


def compare_with_claim(task: PaperTask, scores: Mapping[str, Score]) -> Verdict:
    """Returns whether the variant that is ahead in the paper is ahead in these scores."""
    claim = task.claim
    ahead, behind = scores[claim.ahead], scores[claim.behind]
    better, worse = (ahead, behind) if claim.more_is_better else (behind, ahead)
    if not better.mean > worse.mean:
        return "behind"
    if better.ci95 is None or worse.ci95 is None:
        return "not told"
    return "ahead" if better.ci95[0] > worse.ci95[1] else "ahead, intervals overlap"


def _score(measure: MetricColumn, results: Sequence[Evaluation]) -> Score:
    values = [
        result.metrics[measure.name].mean - (result.metrics[measure.minus].mean if measure.minus else 0.0)
        for result in results
    ]
    mean, low, high = mean_interval(values)
    if math.isnan(low):
        return Score(tuple(values), mean, None)
    # Student's interval is unbounded, but a fraction is not.
    least, most = (-1.0 if measure.minus else 0.0, 1.0) if measure.percent else (-math.inf, math.inf)
    return Score(tuple(values), mean, (max(low, least), min(high, most)))
