"""Evaluations of several runs, with mean and interquartile mean over runs that differ only by their seed.

The interval of the mean is Student's t over runs, as in a sweep: seeds are the replicates, not episodes. The
interquartile mean and its bootstrap interval over runs are recommended for few runs by Agarwal et al. 2021
(arXiv 2108.13264).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from actor_node.evaluation.evaluate import Evaluation
from common.run.run import EvaluationSpec, RunSpec
from common.worlds import changed_options
from shoal.statistics import interquartile_mean, mean_interval

_RESAMPLES = 2_000


class EvaluatedRun(msgspec.Struct, frozen=True):
    """One team and its evaluation."""

    directory: str
    """Directory of the run; in `references` the name of the team: untrained, random or frozen."""
    algorithm: str
    """Training algorithm; empty for an untrained team."""
    run_seed: int | None
    """Seed of the run; None for a team that is not a run."""
    result: Evaluation


class SeedStatistics(msgspec.Struct, frozen=True):
    """One figure over several runs."""

    mean: float
    ci95: tuple[float, float] | None
    """Student's t interval; None for fewer than two runs."""
    iqm: float
    iqm_ci95: tuple[float, float] | None
    """Bootstrap interval over runs; None for fewer than two runs."""


class SeedGroup(msgspec.Struct, frozen=True):
    """A set of runs that differ only by their seed."""

    name: str
    scenario: str
    runs: int
    return_mean: SeedStatistics
    metrics: dict[str, SeedStatistics]


class Evaluations(msgspec.Struct, frozen=True):
    """All evaluations and their summaries."""

    runs: list[EvaluatedRun]
    references: list[EvaluatedRun]
    """Teams that are not runs."""
    summaries: list[SeedGroup]


def summarise(
    evaluated: Sequence[EvaluatedRun], specs: Sequence[RunSpec], references: Sequence[EvaluatedRun] = ()
) -> Evaluations:
    """Groups runs that differ only by their seed, in the order of the first run of each group.

    references: teams that are not runs; they are listed but not grouped.
    """
    groups: dict[bytes, list[EvaluatedRun]] = {}
    for one, spec in zip(evaluated, specs, strict=True):
        world = changed_options(spec.scenario, spec.world)
        groups.setdefault(
            msgspec.json.encode(msgspec.structs.replace(spec, seed=0, world=world, evaluation=EvaluationSpec())), []
        ).append(one)
    return Evaluations(list(evaluated), list(references), [_summary(group) for group in groups.values()])


def seed_statistics(values: Sequence[float], seed: int = 0) -> SeedStatistics:
    """Returns the mean and IQM of one value per run, with intervals; `seed` is of the bootstrap."""
    iqm = interquartile_mean(values)
    if len(values) < 2:
        return SeedStatistics(values[0], None, iqm, None)
    mean, low, high = mean_interval(values)
    drawn = np.random.default_rng(seed).choice(np.array(values), (_RESAMPLES, len(values)))
    iqms = np.percentile([interquartile_mean(row.tolist()) for row in drawn], [2.5, 97.5])
    return SeedStatistics(mean, (low, high), iqm, (float(iqms[0]), float(iqms[1])))


def _summary(group: Sequence[EvaluatedRun]) -> SeedGroup:
    results = [one.result for one in group]
    return SeedGroup(
        name=_group_name([Path(one.directory) for one in group]),
        scenario=results[0].scenario,
        runs=len(group),
        return_mean=seed_statistics([result.return_mean for result in results]),
        metrics={
            name: seed_statistics([result.metrics[name].mean for result in results])
            for name in results[0].metrics
            if all(name in result.metrics for result in results)
        },
    )


def _group_name(paths: Sequence[Path]) -> str:
    """Returns a name for a group of runs: their common parent, or the first run and the number of others."""
    if len(paths) == 1:
        return str(paths[0])
    parents = {path.parent for path in paths}
    return str(parents.pop()) if len(parents) == 1 else f"{paths[0]} and {len(paths) - 1} more"
