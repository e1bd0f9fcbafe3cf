"""The HTML page of a report: fills the templates page.html and parts.html with the records of runs.

records -> one section for each scenario -> result, films, figures, tables, settings -> Jinja, which escapes all text
"""

from __future__ import annotations

import base64
import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from actor_node.evaluation.evaluate import SideScale
from common.process.shell_command import shell_command
from common.run.run import ReplaySpec
from learner_node.engine_choice import engine_of
from shoal import number_format
from shoal.commands.evaluate.text import standing
from shoal.commands.report.chart_data import ChartData
from shoal.commands.report.comparison import Estimate, ScaleRow, on_one_scale
from shoal.commands.report.embedded_film import EmbeddedFilm, embed_film
from shoal.commands.report.figure_view import FigureView, figure_view
from shoal.commands.report.figures import AXES, LEARNING, MAIN, SYSTEM, ReportFigure, wait_fractions
from shoal.commands.report.line_style import COLOURS
from shoal.commands.report.reading import NextStep, Trend, comparison_text, next_steps, run_trend, trend_text
from shoal.commands.report.run_record import (
    RunGroup,
    RunRecord,
    default_settings,
    differing_settings,
    flat_settings,
    grouped,
    named_settings,
    setting_text,
)
from shoal.statistics import mean_interval

_TEAMS = {
    "random": "random actions",
    "untrained": "untrained 64-64 team",
    "frozen": "frozen team",
    "scripted": "scripted team",
}
_HERE = Path(__file__).parent
MAX_LENGTH_RATIO = 1.2
"""Largest ratio of the lengths of runs without a warning: beyond it, a difference of results may be one of lengths."""


class LiveStatus(NamedTuple):
    """The state of a running training, shown on a page that is served live."""

    refresh_s: int
    """Seconds between two updates of the page; 0 if it is paused."""
    rows: Sequence[tuple[str, str]] = ()
    """Names and values of the current status."""
    progress: float | None = None
    """Fraction of the budget used; None if it is not known."""
    report: str = ""
    """Path of the report that the run writes at its end."""


class Fact(NamedTuple):
    """One value of a run at its end."""

    name: str
    value: str


class RunRow(NamedTuple):
    """One run in the table of runs."""

    record: RunRecord
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
    has_result: bool
    """Whether there is more to show than the live status of a run that is not evaluated yet."""
    comparison: tuple[ScaleRow, ...]
    """The results of several groups on one scale; empty if there is only one group."""
    unnamed_settings: tuple[str, ...]
    """Settings in which the groups differ and that their labels do not name."""
    comparison_text: str
    """Which group is best; empty if there is none to compare, and in a contest."""
    scales: tuple[ReferenceScale, ...]
    """A single run among reference teams; empty if its evaluation has none."""
    length_warning: str
    """Says that the runs are not equally long; empty if they are."""
    reading: Reading | None
    """What the section says of its run; None for several runs and while it trains."""
    main_figures: tuple[FigureView, ...]
    """The figures of the full width: what a reader looks at first."""
    learning: tuple[FigureView, ...]
    system: tuple[FigureView, ...]
    waits: tuple[tuple[str, float], ...]
    rows: tuple[RunRow, ...]
    rows_by_group: tuple[tuple[str, tuple[RunRow, ...]], ...]
    films: tuple[EmbeddedFilm, ...]
    settings: tuple[tuple[str, tuple[SettingRow, ...]], ...]
    """Settings of each group, by its label."""
    machines: tuple[tuple[str, Mapping[str, Mapping[str, Any]]], ...]
    """Machine information, by the names of the runs that share it."""

    @property
    def records(self) -> list[RunRecord]:
        """All runs of the section."""
        return [record for group in self.groups for record in group.records]

    @property
    def diagnosed(self) -> list[RunRecord]:
        """The runs with a stored diagnosis."""
        return [record for record in self.records if record.diagnosis is not None]


class Reading(NamedTuple):
    """A run in words."""

    trend: Trend
    trend_text: str
    next_steps: tuple[NextStep, ...]


class ReferenceScale(NamedTuple):
    """The return of one side of a run among those of reference teams."""

    side: str
    """Empty if there is only one side."""
    against: str
    """The opponents of the side; empty if there are none."""
    standing: str
    rows: tuple[ScaleRow, ...]


class SideResult(NamedTuple):
    """The mean return of one of several sides; low and high are NaN for one run."""

    side: str
    mean: float
    low: float
    high: float


class GroupResult(NamedTuple):
    """The headline of a group of runs: the mean return with its interval."""

    label: str
    mean: float
    low: float
    high: float
    runs: int
    """Number of evaluated runs. The interval is over episodes for 1 and over runs for more."""
    records: tuple[RunRecord, ...]
    sides: tuple[SideResult, ...]
    """Returns by side, of which the sum means little; empty if there is only one side."""


def make_page(records: Sequence[RunRecord], live: LiveStatus | None = None) -> str:
    """Returns the HTML of a report on the given runs."""
    scenarios = dict.fromkeys(record.run.spec.scenario for record in records)
    data = ChartData()
    sections = [
        _section(f"s{i}", name, [record for record in records if record.run.spec.scenario == name], data, live)
        for i, name in enumerate(scenarios)
    ]
    return (
        _environment()
        .get_template("page.html")
        .render(
            sections=sections,
            live=live,
            axes=AXES,
            data=Markup(data.to_json()),  # noqa: S704  (to_json leaves no character of a tag)
            has_agents=data.has_agents,
            sides="sides" if any(len(record.run.joint.sides) > 1 for record in records) else "team",
            made_at=time.strftime("%Y-%m-%d %H:%M:%S %Z"),
            single=len(records) == 1,
        )
    )


def _section(
    key: str, scenario: str, records: Sequence[RunRecord], data: ChartData, live: LiveStatus | None
) -> ScenarioSection:
    groups = grouped(records)

    def views(figures: Sequence[ReportFigure], *, wide: bool = False) -> tuple[FigureView, ...]:
        return tuple(filter(None, (figure_view(figure, groups, key, data, wide=wide) for figure in figures)))

    several = len(groups) > 1
    results = tuple(_result(group) for group in groups)
    estimates = _estimates(results)
    by_group = tuple(
        (group.label if several else "", tuple(RunRow(record, _facts(record)) for record in group.records))
        for group in groups
    )
    return ScenarioSection(
        key=key,
        scenario=scenario,
        groups=tuple(groups),
        results=results,
        has_result=live is None or any(result.runs for result in results),
        comparison=tuple(on_one_scale(estimates)),
        unnamed_settings=_unnamed_settings(groups),
        comparison_text="" if any(result.sides for result in results) else comparison_text(estimates),
        scales=_scales(results[0]) if len(results) == 1 else (),
        length_warning=_length_warning(records),
        reading=_read_run(records[0]) if len(records) == 1 and live is None else None,
        main_figures=views(MAIN, wide=True),
        learning=views(LEARNING),
        system=views(SYSTEM),
        waits=tuple(wait_fractions(records)),
        rows=tuple(row for _, rows in by_group for row in rows),
        rows_by_group=by_group,
        films=tuple(filter(None, (embed_film(record) for record in records))),
        settings=tuple((group.label, _settings(group.records[0])) for group in groups),
        machines=_machines(records),
    )


def _unnamed_settings(groups: Sequence[RunGroup]) -> tuple[str, ...]:
    settings = [flat_settings(group.records[0].run.spec) for group in groups]
    named = named_settings(settings)
    return tuple(name for name in differing_settings(settings) if name not in named)


def _read_run(record: RunRecord) -> Reading:
    contest = len(record.run.joint.sides) > 1  # the sum over sides has no meaning, and so no trend
    trend = Trend("unknown") if contest else run_trend(record)
    return Reading(trend, "" if contest else trend_text(trend), tuple(next_steps(record)))


def _result(group: RunGroup) -> GroupResult:
    evaluations = [record.evaluation for record in group.records if record.evaluation is not None]
    sides = tuple(_side_result(side, group) for side in group.records[0].run.joint.sides) if evaluations else ()
    sides = sides if len(sides) > 1 else ()
    if len(evaluations) == 1:
        low, high = evaluations[0].return_ci95 or (math.nan, math.nan)
        return GroupResult(group.label, evaluations[0].return_mean, low, high, 1, group.records, sides)
    mean, low, high = mean_interval([one.return_mean for one in evaluations])
    return GroupResult(group.label, mean, low, high, len(evaluations), group.records, sides)


def _side_result(side: str, group: RunGroup) -> SideResult:
    returns = []
    for record in group.records:
        if record.evaluation is not None:
            agents = [agent.name for agent in record.run.joint.agents if agent.team == side]
            returns.append(sum(record.evaluation.return_per_agent.get(agent, math.nan) for agent in agents))
    return SideResult(side, *mean_interval(returns))


def _estimates(results: Sequence[GroupResult]) -> list[Estimate]:
    """Returns the returns of groups, or of their sides if there are several."""
    found = []
    for number, result in enumerate(results):
        detail = f"{result.runs} run{'' if result.runs == 1 else 's'}" if result.runs else "not evaluated"
        if result.sides:
            found += [
                Estimate(f"{result.label}: {side.side}", side.mean, side.low, side.high, (), detail, number % COLOURS)
                for side in result.sides
            ]
            continue
        runs = tuple(record.evaluation.return_mean for record in result.records if record.evaluation is not None)
        singles = runs if len(runs) > 1 else ()
        found.append(Estimate(result.label, result.mean, result.low, result.high, singles, detail, number % COLOURS))
    return found if len(results) > 1 else []


def _scales(result: GroupResult) -> tuple[ReferenceScale, ...]:
    """Returns the scales of an evaluated run: its return among those of the reference teams, one scale a side."""
    record = result.records[0]
    if len(result.records) > 1 or record.evaluation is None:
        return ()
    return tuple(_scale(number, one) for number, one in enumerate(record.evaluation.scale))


def _scale(number: int, scale: SideScale) -> ReferenceScale:
    this_team = Estimate("this team", scale.return_mean, *scale.return_ci95, colour=number % COLOURS)
    others = [Estimate(_TEAMS.get(one.name, one.name), one.return_mean, *one.return_ci95) for one in scale.references]
    against = f"against {_TEAMS.get(scale.opponents, scale.opponents)}, mean over agents" if scale.opponents else ""
    return ReferenceScale(scale.side, against, standing(scale), tuple(on_one_scale([this_team, *others])))


def _length_warning(records: Sequence[RunRecord]) -> str:
    """Returns a sentence if the lengths of runs differ so much that their results cannot be compared."""
    steps = [record.history.last("env_steps") for record in records]
    known = [one for one in steps if math.isfinite(one)]
    if len(known) < 2 or max(known) <= MAX_LENGTH_RATIO * min(known):
        return ""
    return (
        f"The runs are not equally long: {min(known):,.0f} to {max(known):,.0f} environment steps. Compare their "
        "curves at equal steps."
    )


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
            setting_text(value),
            setting_text(defaults[name]) if name in defaults and defaults[name] != value else "",
        )
        for name, value in flat_settings(record.run.spec).items()
    )


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
        "setting": setting_text,
    }
    environment.globals["shell_command"] = shell_command
    environment.globals["style"] = (_HERE / "style.css").read_text("utf-8")
    script = (_HERE / "report.js").read_text("utf-8")
    environment.globals["script"] = script
    # The content security policy allows this script only, not one that the name of a run might bring.
    digest = hashlib.sha256(script.encode()).digest()
    environment.globals["script_hash"] = f"sha256-{base64.b64encode(digest).decode()}"
    return environment
