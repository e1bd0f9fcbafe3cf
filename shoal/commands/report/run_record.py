"""Everything a report tells of a run, read from its directory; and which runs are seeds of one another."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from common.open_run import DEFAULT_SECONDS
from common.run.directory import RunDirectory
from common.run.presets import PRESETS
from common.run.run import Run, RunSpec, make_run_spec
from common.spec import AgentSpec
from shoal.commands.report import FILM_FILE
from shoal.commands.report.history import History, read_history
from shoal.commands.report.machine_info import read_machine

_FILM_NAMES = (FILM_FILE, "film.mp4")
_MOST_DIFFERENCES = 3


class EvaluationSummary(msgspec.Struct, frozen=True):
    """What evaluation.json says, as far as a report shows it; what it says beyond that is left out."""

    return_mean: float
    return_ci95: tuple[float, float] | None = None
    return_per_agent: dict[str, float] = {}
    published_scales: dict[str, float] = {}
    world: str = ""
    episodes: int = 0
    updates: int = 0
    metrics: Any = None

    @property
    def measures(self) -> dict[str, float]:
        """What the scenario measures beside the return, where that are numbers by name."""
        known = self.metrics.items() if isinstance(self.metrics, dict) else ()
        return {name: float(value) for name, value in known if isinstance(value, int | float)}


class RunRecord(NamedTuple):
    """One run."""

    name: str
    path: Path
    run: Run
    course: History
    evaluation: EvaluationSummary | None
    machine: Mapping[str, Mapping[str, Any]]
    film: Path | None
    finished: bool

    def sides(self, entries: int) -> list[tuple[str, list[int]]]:
        """Returns the sides and which of so many entries (one an agent, or one a player) are theirs.

        The name is empty where there is one side only, or where the entries are nobody's.
        """
        known: list[Sequence[AgentSpec]] = [self.run.joint.agents, self.run.players.agents]
        owners = next((agents for agents in known if len(agents) == entries), ())
        teams = list(dict.fromkeys(agent.team for agent in owners))
        if len(teams) < 2:
            return [("", list(range(entries)))] if entries else []
        return [(team, [i for i, agent in enumerate(owners) if agent.team == team]) for team in teams]


class Group(NamedTuple):
    """Runs that are alike but for seed and budget."""

    label: str
    records: tuple[RunRecord, ...]


def read_record(path: Path) -> RunRecord:
    """Reads one run's directory; ConfigError where it holds no run."""
    directory = RunDirectory(path)
    return RunRecord(
        name=path.resolve().name,
        path=path,
        run=directory.run,
        course=read_history(directory.metrics_file),
        evaluation=_read_evaluation(directory.evaluation_file),
        machine=read_machine(directory),
        film=next((path / name for name in _FILM_NAMES if (path / name).exists()), None),
        finished=directory.finished_file.exists(),
    )


def grouped(records: Sequence[RunRecord]) -> list[Group]:
    """Gathers runs of one scenario that are alike but for seed and budget, each group named by what sets it apart."""
    by_settings: dict[bytes, list[RunRecord]] = {}
    for record in records:
        alike = msgspec.structs.replace(record.run.spec, seed=0, budget=RunSpec("any").budget)
        by_settings.setdefault(msgspec.json.encode(alike, order="sorted"), []).append(record)
    settings = [flat_settings(group[0].run.spec) for group in by_settings.values()]
    names = dict.fromkeys(name for one in settings for name in one if name != "seed" and not name.startswith("budget."))
    differing = [name for name in names if len({str(one.get(name)) for one in settings}) > 1]
    return [
        Group(_label(group[0], one, differing), tuple(group))
        for group, one in zip(by_settings.values(), settings, strict=True)
    ]


def flat_settings(spec: RunSpec) -> dict[str, Any]:
    """Returns a run's settings as `section.key` -> value, in their order."""
    flat: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(spec).items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": one for key, one in value.items()}
        else:
            flat[name] = value
    return flat


def default_settings(spec: RunSpec) -> dict[str, Any]:
    """Returns what `flat_settings` is for a run of the same scenario for which nothing was set."""
    usual = {"scenario": spec.scenario, "budget": {"seconds": DEFAULT_SECONDS}}
    return flat_settings(make_run_spec(usual, PRESETS["fast"]))


def _label(record: RunRecord, settings: Mapping[str, Any], differing: Sequence[str]) -> str:
    if not differing:
        return str(record.run.spec.algorithm.name)
    told = [f"{name.partition('.')[2] or name} {settings.get(name, 'unset')}" for name in differing]
    more = len(told) - _MOST_DIFFERENCES
    label = ", ".join(told[:_MOST_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")
    return re.sub(r"^name ", "", label)


def _read_evaluation(path: Path) -> EvaluationSummary | None:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=EvaluationSummary, strict=False)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None
    return found if math.isfinite(found.return_mean) else None
