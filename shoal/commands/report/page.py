"""The HTML page of a report: fills the templates page.html and parts.html with the records of runs.

records -> one section for each scenario -> result, films, figures, tables, settings -> Jinja, which escapes all text
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from common.run.run import ReplaySpec
from learner_node.engine_choice import engine_of
from shoal import number_format
from shoal.commands.report.embedded_film import EmbeddedFilm, embed_film
from shoal.commands.report.figure_view import FigureView, figure_view
from shoal.commands.report.figures import LEARNING, RETURN, SYSTEM, wait_fractions
from shoal.commands.report.run_record import RunGroup, RunRecord, default_settings, flat_settings, grouped
from shoal.statistics import mean_interval

_HERE = Path(__file__).parent


class LiveStatus(NamedTuple):
    """The state of a running training, shown on a page that is served live."""

    refresh_s: int
    """Seconds until the browser reloads the page; 0 if it is paused."""
    rows: Sequence[tuple[str, str]] = ()
    """Names and values of the current status."""


class Fact(NamedTuple):
    """One value of a run at its end."""

    name: str
    value: str


class RunRow(NamedTuple):
    """One run in the table of runs."""

    record: RunRecord
    group: str
    facts: tuple[Fact, ...]


class SettingRow(NamedTuple):
    """One setting of a run, and its default if that differs."""

    name: str
    value: str
    default: str


class ScenarioSection(NamedTuple):
    """The part of the page for one scenario."""

    key: str
    scenario: str
    groups: tuple[RunGroup, ...]
    results: tuple[GroupResult, ...]
    main_figure: FigureView | None
    learning: tuple[FigureView, ...]
    system: tuple[FigureView, ...]
    waits: tuple[tuple[str, float], ...]
    rows: tuple[RunRow, ...]
    films: tuple[EmbeddedFilm, ...]
    settings: tuple[tuple[str, tuple[SettingRow, ...]], ...]
    """Settings of each group, by its label."""
    machines: tuple[tuple[str, Mapping[str, Mapping[str, Any]]], ...]
    """Machine information, by the names of the runs that share it."""

    @property
    def records(self) -> list[RunRecord]:
        """All runs of the section."""
        return [record for group in self.groups for record in group.records]


class GroupResult(NamedTuple):
    """The headline of a group of runs: the mean return with its interval."""

    label: str
    mean: float
    low: float
    high: float
    runs: int
    """Number of evaluated runs. The interval is over episodes for 1 and over runs for more."""
    records: tuple[RunRecord, ...]


def make_page(records: Sequence[RunRecord], live: LiveStatus | None = None) -> str:
    """Returns the HTML of a report on the given runs."""
    scenarios = dict.fromkeys(record.run.spec.scenario for record in records)
    sections = [
        _section(f"s{i}", name, [record for record in records if record.run.spec.scenario == name])
        for i, name in enumerate(scenarios)
    ]
    return (
        _environment()
        .get_template("page.html")
        .render(sections=sections, live=live, made_at=time.strftime("%Y-%m-%d %H:%M:%S %Z"), single=len(records) == 1)
    )


def _section(key: str, scenario: str, records: Sequence[RunRecord]) -> ScenarioSection:
    groups = grouped(records)
    several = len(groups) > 1
    return ScenarioSection(
        key=key,
        scenario=scenario,
        groups=tuple(groups),
        results=tuple(_result(group) for group in groups),
        main_figure=figure_view(RETURN, groups, key, wide=True),
        learning=tuple(filter(None, (figure_view(figure, groups, key) for figure in LEARNING))),
        system=tuple(filter(None, (figure_view(figure, groups, key) for figure in SYSTEM))),
        waits=tuple(wait_fractions(records)),
        rows=tuple(RunRow(r, group.label if several else "", _facts(r)) for group in groups for r in group.records),
        films=tuple(filter(None, (embed_film(record) for record in records))),
        settings=tuple((group.label, _settings(group.records[0])) for group in groups),
        machines=_machines(records),
    )


def _result(group: RunGroup) -> GroupResult:
    evaluations = [record.evaluation for record in group.records if record.evaluation is not None]
    if len(evaluations) == 1:
        low, high = evaluations[0].return_ci95 or (math.nan, math.nan)
        return GroupResult(group.label, evaluations[0].return_mean, low, high, 1, group.records)
    mean, low, high = mean_interval([one.return_mean for one in evaluations])
    return GroupResult(group.label, mean, low, high, len(evaluations), group.records)


def _facts(record: RunRecord) -> tuple[Fact, ...]:
    history, replay = record.history, record.run.spec.replay
    env_steps, updates, trained_s = (history.last(name) for name in ("env_steps", "updates", "trained_s"))
    return (
        Fact("Environment steps", number_format.fixed(env_steps, 0)),
        Fact("Updates", number_format.fixed(updates, 0)),
        Fact("Engine", engine_of(record.run).name),
        Fact("Training time", number_format.duration(trained_s)),
        Fact("Environment steps/s", number_format.significant(env_steps / trained_s if trained_s else math.nan)),
        Fact("Updates/s", number_format.significant(updates / trained_s if trained_s else math.nan)),
        Fact(
            "Samples per insert",
            f"{number_format.fixed(history.last('samples_per_insert'))} {_ratio_text(replay)}",
        ),
        Fact("Policy lag", f"{number_format.fixed(history.last('policy_lag'))} versions"),
        Fact("Replay", f"{number_format.fixed(history.last('replay_size'), 0)} of {replay.capacity:,}"),
    )


def _ratio_text(replay: ReplaySpec) -> str:
    """Returns the target of samples per insert, or the bounds of `auto`."""
    if replay.is_auto:
        return f"(auto, {replay.min_ratio:g} to {replay.max_ratio:g})"
    return f"of {replay.min_ratio:g}"


def _settings(record: RunRecord) -> tuple[SettingRow, ...]:
    defaults = default_settings(record.run.spec)
    return tuple(
        SettingRow(
            name,
            _setting_text(value),
            _setting_text(defaults[name]) if name in defaults and defaults[name] != value else "",
        )
        for name, value in flat_settings(record.run.spec).items()
    )


def _setting_text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}={one}" for key, one in value.items()) or "none"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _machines(records: Sequence[RunRecord]) -> tuple[tuple[str, Mapping[str, Mapping[str, Any]]], ...]:
    by_machine: dict[str, list[RunRecord]] = {}
    for record in records:
        by_machine.setdefault(repr(record.machine), []).append(record)
    return tuple((", ".join(one.name for one in group), group[0].machine) for group in by_machine.values())


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "fixed": number_format.fixed,
        "significant": number_format.significant,
        "percent": number_format.percent,
        "setting": _setting_text,
    }
    environment.globals["style"] = (_HERE / "style.css").read_text("utf-8")
    return environment
