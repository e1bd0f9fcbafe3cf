"""The evaluations of runs, while they trained and after it, under the names that other tools use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from common.errors import ConfigError
from common.process.shell_command import shell_command
from common.run.directory import RunDirectory
from common.run.evaluations import read_evaluations
from shoal.commands.report.run_record import RunRecord, grouped, read_record

PARTICLE = "mpe"
"""Environment of the scenarios without a prefix: the multi-agent particle environments."""
RETURN = "return"
"""Metric of every evaluation."""
OverAgents = Literal["sum", "mean"]


class Scores(NamedTuple):
    """The figures of one evaluation: means over its episodes."""

    updates: int
    return_mean: float
    """Return summed over agents."""
    agents: int
    metrics: Mapping[str, float]
    """Metrics of the world by name."""
    env_steps: int = 0
    """Environment steps of the run when the weights were taken; 0 after the training."""
    trained_s: float = 0.0
    """Training time when the weights were taken [s]; 0 after the training."""

    def values(self, over_agents: OverAgents) -> dict[str, float]:
        """Returns the return and the metrics of the world, by name in lower case."""
        mean = self.return_mean / (max(1, self.agents) if over_agents == "mean" else 1)
        return {RETURN: mean, **{name.lower(): value for name, value in self.metrics.items()}}


class _Mean(msgspec.Struct, frozen=True):
    mean: float | None


class _FinalEvaluation(msgspec.Struct, frozen=True):
    updates: int
    return_mean: float
    return_per_agent: dict[str, float]
    metrics: dict[str, _Mean | None] = {}


class RunResults(NamedTuple):
    """The results of one run."""

    record: RunRecord
    environment: str
    """Name of the environment in lower case: `mpe`, or the family of the world."""
    task: str
    """Name of the task in lower case: the world without its family."""
    algorithm: str
    """Name of the algorithm in capitals, followed by the settings that differ from other runs of the task."""
    scheduled: list[Scores]
    """The evaluations while the run trained, in order."""
    final: Scores
    """The evaluation of the final policies."""

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.record.run.spec.seed


def read_results(directories: Sequence[RunDirectory]) -> list[RunResults]:
    """Reads the results of runs, ordered by environment, task, algorithm and seed.

    Raises ConfigError for a run without a final evaluation, and for two runs of the same settings and seed.
    """
    records = [read_record(directory.path) for directory in directories]
    by_scenario: dict[str, list[RunRecord]] = {}
    for record in records:
        by_scenario.setdefault(record.run.spec.scenario, []).append(record)
    found = [
        _results(record, scenario, group.label)
        for scenario, of_scenario in by_scenario.items()
        for group in grouped(of_scenario)
        for record in group.records
    ]
    found.sort(key=lambda one: (one.environment, one.task, one.algorithm, one.seed))
    _refuse_duplicates(found)
    return found


def world_names(scenario: str) -> tuple[str, str]:
    """Returns the environment and the task of a world's name, as in ("mamujoco", "halfcheetah-2x3")."""
    family, colon, task = scenario.lower().partition(":")
    return (family, task) if colon else (PARTICLE, family)


def _results(record: RunRecord, scenario: str, label: str) -> RunResults:
    directory = RunDirectory(record.path)
    scheduled = [
        Scores(
            one.updates, one.return_mean, len(one.return_per_agent), _finite(one.metrics), one.env_steps, one.trained_s
        )
        for one in read_evaluations(directory.evaluations_file)
    ]
    return RunResults(record, *world_names(scenario), label.upper(), scheduled, _final(directory))


def _final(directory: RunDirectory) -> Scores:
    evaluate = shell_command("shoal", "evaluate", directory.path)
    try:
        found = msgspec.json.decode(directory.evaluation_file.read_bytes(), type=_FinalEvaluation)
    except FileNotFoundError:
        raise ConfigError(
            f"{directory.path} has no final evaluation (evaluation.json). Make it with: {evaluate}"
        ) from None
    except msgspec.MsgspecError as e:
        raise ConfigError(f"{directory.evaluation_file} is damaged: {e}. Repeat: {evaluate}") from None
    metrics = _finite({name: one.mean if one else None for name, one in found.metrics.items()})
    return Scores(found.updates, found.return_mean, len(found.return_per_agent), metrics)


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Leaves out metrics that no episode has."""
    return {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}


def _refuse_duplicates(found: Sequence[RunResults]) -> None:
    seen: dict[tuple[str, str, str, int], RunResults] = {}
    for one in found:
        key = (*one[1:4], one.seed)
        if key in seen:
            raise ConfigError(
                f"{seen[key].record.path} and {one.record.path} have the same settings and seed {one.seed}. Pass one of"
                " them."
            )
        seen[key] = one


def seeds_by_algorithm(found: Sequence[RunResults]) -> Mapping[tuple[str, str, str], list[int]]:
    """Returns the seeds of each (environment, task, algorithm)."""
    seeds: dict[tuple[str, str, str], list[int]] = {}
    for one in found:
        seeds.setdefault((one.environment, one.task, one.algorithm), []).append(one.seed)
    return seeds
