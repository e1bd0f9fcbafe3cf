"""Everything that a report reads from a run's directory, and the grouping of runs that differ by their seed."""

from __future__ import annotations

import contextlib
import math
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
_ALGORITHM = "algorithm.name"
_MAX_DIFFERENCES = 3
"""Number of differences up to which a label names all of them."""
_MAX_VALUE_CHARACTERS = 32


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

    Each label names the settings that tell the groups apart (`named_settings`).
    """
    by_settings: dict[bytes, list[RunRecord]] = {}
    for record in records:
        without_seed = msgspec.structs.replace(
            record.run.spec, seed=0, budget=_DEFAULTS.budget, evaluation=_DEFAULTS.evaluation
        )
        by_settings.setdefault(msgspec.json.encode(without_seed, order="sorted"), []).append(record)
    groups = list(by_settings.values())
    labels = _labels([flat_settings(group[0].run.spec) for group in groups])
    return [RunGroup(label, tuple(group)) for label, group in zip(labels, groups, strict=True)]


def differing_settings(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the settings in which groups of runs differ, the algorithm first; groups: their `flat_settings`."""
    names = dict.fromkeys(name for one in groups for name in one)
    differing = [
        name
        for name in names
        if name != "seed"
        and not name.startswith(("budget.", "evaluation."))
        and len({str(one.get(name)) for one in groups}) > 1
    ]
    return sorted(differing, key=lambda name: name != _ALGORITHM)


def named_settings(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the settings that labels name: all in which the groups differ, or of many those that tell them apart.

    groups: their `flat_settings`.
    """
    differing = differing_settings(groups)
    if len(differing) <= _MAX_DIFFERENCES:
        return differing
    named: list[str] = []
    distinct = 1
    for name in differing:
        count = len({tuple(str(one.get(each)) for each in (*named, name)) for one in groups})
        if count > distinct:
            named, distinct = [*named, name], count
    return named


def setting_text(value: object, between: str = ", ") -> str:
    """Returns the value of a setting as a person would write it; between: separates the items of a list or table."""
    if isinstance(value, dict):
        return between.join(f"{key}={setting_text(one, '+')}" for key, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return between.join(setting_text(one, "+") for one in value) or "none"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


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


def _labels(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a short name for each group, as in `matd3, policy_hidden 64-64`; groups: their `flat_settings`."""
    named = named_settings(groups)
    labels = [", ".join(_named_value(name, one) for name in named) or str(one[_ALGORITHM]) for one in groups]
    # Values that were cut can be equal.
    return [label if labels.count(label) == 1 else f"{label} ({i})" for i, label in enumerate(labels, 1)]


def _named_value(name: str, settings: Mapping[str, Any]) -> str:
    """Returns a setting with its value as a part of a label; of the algorithm only the value."""
    value = settings.get(name, "default")
    text = setting_text(value, "-" if isinstance(value, list | tuple) else ", ")
    short = text if len(text) <= _MAX_VALUE_CHARACTERS else f"{text[: _MAX_VALUE_CHARACTERS - 3]}..."
    return short if name == _ALGORITHM else f"{name.partition('.')[2] or name} {short}"


def _read_evaluation(path: Path) -> EvaluationSummary | None:
    found = _read(path, EvaluationSummary)
    return found if found is not None and math.isfinite(found.return_mean) else None


def _read(path: Path, kind: type[_Summary]) -> _Summary | None:
    """Returns a result that a command stored; None if the file is missing, cut off or of another form."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind, strict=False)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None
