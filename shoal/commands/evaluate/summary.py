"""Several evaluated runs as one table: a row a run, and for runs that differ in their seed only their mean and IQM.

The interval of the mean is Student's over runs, as a sweep's is: what varies is the seed, so episodes are no
replicates. The interquartile mean and the bootstrap over runs for its interval are what Agarwal et al. 2021
(arXiv 2108.13264) recommend where runs are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from actor_node.evaluation.evaluate import Evaluation
from common.errors import ConfigError
from common.run.directory import RunDirectory
from common.run.run import RunSpec
from common.worlds import changed_options
from shoal.commands.report.intervals import mean_interval
from shoal.commands.sweep.table import interquartile_mean

_RESAMPLES = 2_000
_MILESTONES = "milestones"


class EvaluatedRun(msgspec.Struct, frozen=True):
    """One team and its figures."""

    directory: str
    """Of the run; in `references` the name of a team that is no run: untrained, random, frozen."""
    algorithm: str
    """What it learnt by; empty where nothing was learnt."""
    run_seed: int | None
    """None of a team that is no run."""
    result: Evaluation


class Spread(msgspec.Struct, frozen=True):
    """One figure over runs."""

    mean: float
    ci95: tuple[float, float] | None
    """Student's; None of fewer than two runs."""
    iqm: float
    iqm_ci95: tuple[float, float] | None
    """Bootstrap over runs."""


class Summary(msgspec.Struct, frozen=True):
    """Runs that differ in nothing but their seed."""

    name: str
    scenario: str
    runs: int
    return_mean: Spread
    metrics: dict[str, Spread]


class Evaluations(msgspec.Struct, frozen=True):
    """All there is."""

    runs: list[EvaluatedRun]
    references: list[EvaluatedRun]
    """Teams that are no runs."""
    summaries: list[Summary]


def run_directories(paths: Sequence[Path]) -> list[RunDirectory]:
    """Returns the runs at these paths: a run's own directory, or all runs below a sweep's.

    ConfigError for a path that holds none.
    """
    found: dict[Path, RunDirectory] = {}
    for path in paths:
        below = [path] if (path / "run.toml").exists() else _runs_below(path)
        if not below:
            RunDirectory(path).run  # noqa: B018  (says that there is none)
        found |= {each: RunDirectory(each) for each in below}
    return list(found.values())


def _runs_below(path: Path) -> list[Path]:
    runs = sorted(file.parent for file in path.glob("**/run.toml") if _MILESTONES not in file.relative_to(path).parts)
    begun = [run for run in runs if not (run / "policy.safetensors").exists()]
    if begun:
        raise ConfigError(f"{begun[0]} has no policies yet; wait for it, or name the runs that have")
    return runs


def summarise(
    evaluated: Sequence[EvaluatedRun], specs: Sequence[RunSpec], references: Sequence[EvaluatedRun] = ()
) -> Evaluations:
    """Puts runs together that differ in their seed only, in the order of their first ones.

    references: teams that are no runs; they stand beside the runs.
    """
    groups: dict[bytes, list[EvaluatedRun]] = {}
    for one, spec in zip(evaluated, specs, strict=True):
        world = changed_options(spec.scenario, spec.world)
        groups.setdefault(msgspec.json.encode(msgspec.structs.replace(spec, seed=0, world=world)), []).append(one)
    return Evaluations(list(evaluated), list(references), [_summary(group) for group in groups.values()])


def spread(values: Sequence[float], seed: int = 0) -> Spread:
    """Returns mean and IQM of one number a run, with their intervals."""
    iqm = interquartile_mean(values)
    if len(values) < 2:
        return Spread(values[0], None, iqm, None)
    mean, low, high = mean_interval(values)
    drawn = np.random.default_rng(seed).choice(np.array(values), (_RESAMPLES, len(values)))
    iqms = np.percentile([interquartile_mean(row.tolist()) for row in drawn], [2.5, 97.5])
    return Spread(mean, (low, high), iqm, (float(iqms[0]), float(iqms[1])))


def _summary(group: Sequence[EvaluatedRun]) -> Summary:
    results = [one.result for one in group]
    return Summary(
        name=_group_name([Path(one.directory) for one in group]),
        scenario=results[0].scenario,
        runs=len(group),
        return_mean=spread([result.return_mean for result in results]),
        metrics={name: spread([result.metrics[name].mean for result in results]) for name in results[0].metrics},
    )


def _group_name(paths: Sequence[Path]) -> str:
    """Returns what names these runs together: their one directory's name, or the first's with how many more."""
    if len(paths) == 1:
        return str(paths[0])
    parents = {path.parent for path in paths}
    return str(parents.pop()) if len(parents) == 1 else f"{paths[0]} and {len(paths) - 1} more"
