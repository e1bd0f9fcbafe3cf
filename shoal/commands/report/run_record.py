"""Everything that a report reads from a run's directory, and the grouping of runs that differ by their seed."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from actor_node.evaluation.evaluate import Estimate, SideScale
from common.run.evaluations import ScheduledEvaluation, read_evaluations
from common.run.normalisation import resolve_normalisation
from common.run.open_run import DEFAULT_SECONDS
from common.run.presets import PRESETS
from common.run.run import Run, RunSpec, make_run_spec
from common.spec import AgentSpec
from shoal.commands.diagnose.warning import DiagnosisWarning
from shoal.commands.report import FILM_FILE
from shoal.machine_info import read_machine
from shoal.run_history import History, read_history
from shoal.run_paths import run_directory

_Summary = TypeVar("_Summary", bound=msgspec.Struct)

_DEFAULTS = RunSpec("any")
_FILM_NAMES = (FILM_FILE, "film.mp4")
_MAX_DIFFERENCES = 3


class EvaluationSummary(msgspec.Struct, frozen=True):
    """The part of evaluation.json that a report shows."""

    return_mean: float
    return_ci95: tuple[float, float] | None = None
    return_per_agent: dict[str, float] = {}
    published_scales: dict[str, float] = {}
    world: str = ""
    episodes: int = 0
    updates: int = 0
    scale: list[SideScale] = []
    """The returns of reference teams, one entry a side."""
    metrics: dict[str, Any] = {}
    """Metrics of the scenario by name, as in the file."""

    @property
    def readable_metrics(self) -> dict[str, Estimate]:
        """Means with intervals by name; leaves out an entry of another form, as a damaged file may contain."""
        found = {}
        for name, value in self.metrics.items():
            with contextlib.suppress(msgspec.ValidationError):
                found[name] = msgspec.convert(value, Estimate)
        return found


class ValueSummary(msgspec.Struct, frozen=True):
    """A player's mean Q-value and the mean discounted return that followed, in units of the scaled rewards."""

    player: str
    value: float
    realised: float


class DiagnosisSummary(msgspec.Struct, frozen=True):
    """The part of diagnosis.json that a report shows."""

    updates: int
    episodes: int
    warnings: tuple[DiagnosisWarning, ...] = ()
    values: tuple[ValueSummary, ...] = ()


class RunRecord(NamedTuple):
    """One run as read from its directory."""

    name: str
    path: Path
    run: Run
    history: History
    evaluation: EvaluationSummary | None
    diagnosis: DiagnosisSummary | None
    machine: Mapping[str, Mapping[str, Any]]
    film: Path | None
    finished: bool
    evaluations: Sequence[ScheduledEvaluation] = ()
    """The evaluations while the run trained, in order."""

    def sides(self, entries: int) -> list[tuple[str, list[int]]]:
        """Returns the name of each side and the indices of its entries; entries are one per agent or one per player.

        The name is empty if there is only one side, or if the number of entries matches neither agents nor players.
        """
        owners = self.owners(entries)
        teams = list(dict.fromkeys(agent.team for agent in owners))
        if len(teams) < 2:
            return [("", list(range(entries)))] if entries else []
        return [(team, [i for i, agent in enumerate(owners) if agent.team == team]) for team in teams]

    def owners(self, entries: int) -> Sequence[AgentSpec]:
        """Returns the agents, or else the players, of a list with one entry for each; empty if neither fits."""
        known: list[Sequence[AgentSpec]] = [self.run.joint.agents, self.run.players.agents]
        return next((agents for agents in known if len(agents) == entries), ())


class RunGroup(NamedTuple):
    """Runs that differ only by seed, budget and evaluations."""

    label: str
    records: tuple[RunRecord, ...]


def read_record(path: Path) -> RunRecord:
    """Reads the directory of a run; raises ConfigError if it does not contain a run."""
    directory = run_directory(path)
    return RunRecord(
        name=path.resolve().name,
        path=path,
        run=directory.run,
        history=read_history(directory.metrics_file),
        evaluation=_read_evaluation(directory.evaluation_file),
        diagnosis=_read(directory.diagnosis_file, DiagnosisSummary),
        machine=read_machine(directory),
        film=next((path / name for name in _FILM_NAMES if (path / name).exists()), None),
        finished=directory.finished_file.exists(),
        evaluations=read_evaluations(directory.evaluations_file),
    )


def grouped(records: Sequence[RunRecord]) -> list[RunGroup]:
    """Groups runs of one scenario that learn in the same way: they differ only by seed, budget and evaluations.

    The labels name the differences between groups.
    """
    by_settings: dict[bytes, list[RunRecord]] = {}
    for record in records:
        without_seed = msgspec.structs.replace(
            record.run.spec, seed=0, budget=_DEFAULTS.budget, evaluation=_DEFAULTS.evaluation
        )
        by_settings.setdefault(msgspec.json.encode(without_seed, order="sorted"), []).append(record)
    settings = [flat_settings(group[0].run.spec) for group in by_settings.values()]
    names = dict.fromkeys(
        name for one in settings for name in one if name != "seed" and not name.startswith(("budget.", "evaluation."))
    )
    differing = [name for name in names if len({str(one.get(name)) for one in settings}) > 1]
    return [
        RunGroup(_label(group[0], one, differing), tuple(group))
        for group, one in zip(by_settings.values(), settings, strict=True)
    ]


def flat_settings(spec: RunSpec) -> dict[str, Any]:
    """Returns the settings of a run as `section.key` -> value, in order."""
    flat: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(spec).items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": one for key, one in value.items()}
        else:
            flat[name] = value
    return flat


def default_settings(spec: RunSpec) -> dict[str, Any]:
    """Returns the `flat_settings` of a run of the same scenario with only default settings."""
    settings = {"scenario": spec.scenario, "budget": {"seconds": DEFAULT_SECONDS}}
    return flat_settings(resolve_normalisation(make_run_spec(settings, PRESETS["particle"])))


def _label(record: RunRecord, settings: Mapping[str, Any], differing: Sequence[str]) -> str:
    if not differing:
        return str(record.run.spec.algorithm.name)
    differences = [f"{name.partition('.')[2] or name} {settings.get(name, 'unset')}" for name in differing]
    more = len(differences) - _MAX_DIFFERENCES
    label = ", ".join(differences[:_MAX_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")
    return re.sub(r"^name ", "", label)


def _read_evaluation(path: Path) -> EvaluationSummary | None:
    found = _read(path, EvaluationSummary)
    return found if found is not None and math.isfinite(found.return_mean) else None


def _read(path: Path, kind: type[_Summary]) -> _Summary | None:
    """Returns a result that a command stored; None if the file is missing, cut off or of another form."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind, strict=False)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None
