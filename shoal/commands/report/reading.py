"""What a run's report says in words: whether the return still rises, and what to do next. Pure.

The rules are the functions of this module, in the order in which a reader sees their sentences; the constants are their
bounds, with their reasons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from actor_node.evaluation.rollouts.episodes import Float64s
from common.process.shell_command import shell_command
from shoal.commands.diagnose.team_warnings import min_updates
from shoal.commands.report.comparison import Estimate
from shoal.commands.report.run_record import RunRecord
from shoal.number_format import duration, significant

MIN_POINTS = 15
"""Fewest known returns for a trend: three in each fifth."""
MIN_CHANGE = 0.03
"""Smallest change from the fourth to the last fifth of the log, as a fraction of everything gained so far, that counts
as rising or falling: training for as long again would then add at least a few percent."""
MIN_NOISE_RATIO = 3.0
"""Smallest ratio of such a change to its standard error. Neighbouring returns share episodes, so two is too few."""

_TRAIN_LONGER = "train longer"
"""Advice of a diagnosis that the report gives anyway."""

Direction = Literal["rising", "level", "falling", "early", "unknown"]


class Trend(NamedTuple):
    """How the return changed at the end of a run."""

    direction: Direction
    """`early` if the run is too young to judge; `unknown` if its log is too short."""
    before: float = math.nan
    """Mean of the fourth fifth."""
    last: float = math.nan
    """Mean of the last fifth."""


class NextStep(NamedTuple):
    """One thing to do: a sentence, and the command for it; the command may be empty."""

    text: str
    command: str = ""

    @property
    def as_line(self) -> str:
        """The sentence with its command, as one line of text."""
        return f"{self.text} Run: {self.command}" if self.command else self.text


def trend_of(returns: Float64s) -> Trend:
    """Returns the trend of a run's returns in order; NaN: not known."""
    known = returns[np.isfinite(returns)]
    if len(known) < MIN_POINTS:
        return Trend("unknown")
    first, *_, before, last = np.array_split(known, 5)
    change = float(last.mean() - before.mean())
    gained = abs(float(max(before.mean(), last.mean()) - first.mean()))
    noise = math.sqrt(sum(float(part.var(ddof=1)) / len(part) for part in (before, last)))
    means = float(before.mean()), float(last.mean())
    if abs(change) <= max(MIN_CHANGE * gained, MIN_NOISE_RATIO * noise):
        return Trend("level", *means)
    return Trend("rising" if change > 0 else "falling", *means)


def run_trend(record: RunRecord) -> Trend:
    """Returns the trend of a run's evaluations; of the returns while acting if the evaluations are too few."""
    if _missing_updates(record) > 0:
        return Trend("early")
    evaluated = np.array([line.return_mean for line in record.evaluations], np.float64)
    logged = record.history.column("return_mean")
    return trend_of(evaluated if len(evaluated) >= MIN_POINTS else logged)


def trend_text(trend: Trend) -> str:
    """Returns a trend as a sentence."""
    if trend.direction == "early":
        return "Too early to tell whether it rises."
    if trend.direction == "unknown":
        return "Too few log lines to tell whether it still rises."
    before, last = significant(trend.before), significant(trend.last)
    change = f"{before} in the fourth fifth of the training, {last} in the last"
    beginnings = {"rising": "Still rising", "level": "No longer rising", "falling": "Falling"}
    return f"{beginnings[trend.direction]}: the return was {change}."


def comparison_text(estimates: Sequence[Estimate]) -> str:
    """Returns which of several groups is best, and whether the runs show it; empty if fewer than two are known."""
    known = sorted((one for one in estimates if math.isfinite(one.mean)), key=lambda one: one.mean, reverse=True)
    if len(known) < 2:
        return ""
    best, *others = known
    if min(len(one.runs) for one in known) < 2:
        return (
            f"{best.label} has the best mean, but a difference needs at least two runs on each side: train more seeds."
        )
    # A group with a lower mean than the second can have a wider interval.
    if overlapping := [one.label for one in others if not best.low > one.high]:
        return (
            f"{best.label} has the best mean, but its interval overlaps that of {overlapping[0]}: train more seeds to "
            "tell."
        )
    rest = " and all others" if len(others) > 1 else ""
    return f"{best.label} is better than {others[0].label}{rest}: the intervals do not overlap."


def next_steps(record: RunRecord) -> list[NextStep]:
    """Returns what to do next with a run that is not training now, the most useful first."""
    trend = run_trend(record)
    contest, early = len(record.run.joint.sides) > 1, trend.direction == "early"
    return [
        *([] if early else _act_on_scale(record)),
        *_evaluate(record),
        *([] if record.finished else [NextStep("Use the rest of the budget.", _resume(record))]),
        *_act_on_warnings(record),
        *(_act_on_sides(record) if contest and not early else _act_on_trend(record, trend)),
    ]


def _act_on_scale(record: RunRecord) -> list[NextStep]:
    scale = record.evaluation.scale if record.evaluation is not None else []
    for one in scale:
        if missed := one.weakest_that_is_not_beaten:
            name = "random actions" if missed == "random" else "an untrained 64-64 team"
            who = f"The side {one.side}" if one.side else "The team"
            text = f"{who} is not clearly better than {name}. Look for the cause."
            return [NextStep(text, shell_command("shoal", "diagnose", record.path))]
    return []


def _evaluate(record: RunRecord) -> list[NextStep]:
    command, evaluation = shell_command("shoal", "evaluate", record.path), record.evaluation
    if evaluation is None:
        return [NextStep("Evaluate the team without exploration: only that return can be compared.", command)]
    newer = record.history.last("updates") - evaluation.updates
    if newer > 0:
        return [NextStep(f"Evaluate again: the run has made {newer:,.0f} more updates since.", command)]
    return []


def _act_on_warnings(record: RunRecord) -> list[NextStep]:
    warnings = record.diagnosis.warnings if record.diagnosis is not None else ()
    useful = [warning for warning in warnings if warning.to_try and warning.to_try[0] != _TRAIN_LONGER]
    if not useful:
        return []
    first, *others = useful
    more = f" (and {len(others)} more below)" if others else ""
    return [NextStep(f"Look at the diagnosis: {first.seen}{more}. Try: {first.to_try[0]}.")]


def _act_on_trend(record: RunRecord, trend: Trend) -> list[NextStep]:
    path, spec = record.path, record.run.spec
    if trend.direction == "early":
        updates = record.history.last("updates")
        factor = max(2.0, (updates + _missing_updates(record)) / max(updates, 1.0))
        text = (
            f"Train longer: {updates:,.0f} updates are few. A reward needs about {min_updates(spec):,.0f} updates to "
            "reach the values of earlier steps."
        )
        return [NextStep(text, _longer(record, factor))]
    if trend.direction == "rising":
        trained_s = record.history.last("trained_s")
        about = f" for as long again ({duration(trained_s)})" if math.isfinite(trained_s) else ""
        return [NextStep(f"Train longer{about}: the return still rises.", _longer(record, 2.0))]
    if trend.direction == "falling":
        text = (
            "The best team so far is stored in checkpoints/best.safetensors. Lower the learning rates or their end, "
            "algorithm.final_learning_rate_share."
        )
        return [NextStep(text)]
    if trend.direction == "level":
        text = (
            "More time will add little with these settings. Train other seeds to know the spread, or change a setting."
        )
        sweep = Path("sweeps") / path.resolve().name
        return [NextStep(text, shell_command("shoal", "sweep", spec.scenario, "--run", sweep, "--seeds", 5))]
    return []


def _resume(record: RunRecord, *options: object) -> str:
    return shell_command("shoal", "train", "--resume", "--run", record.path, *options)


def _longer(record: RunRecord, factor: float) -> str:
    """Returns the command that multiplies the training of a run."""
    budget = record.run.spec.budget
    size = (
        ("--steps", _rounded_up(factor * budget.steps))
        if budget.steps
        else ("--time", f"{round(factor * max(record.history.last('trained_s'), 1.0))}s")
    )
    return _resume(record, *size)


def _rounded_up(steps: float) -> int:
    """Returns at least this number, with two digits that are not 0, as a person would choose it."""
    unit = int(10 ** max(math.floor(math.log10(steps)) - 1, 0))
    return math.ceil(round(steps / unit, 9)) * unit


def _missing_updates(record: RunRecord) -> float:
    """Returns how many updates a run lacks for a diagnosis to judge its critics (`min_updates`); 0 if none."""
    updates = record.history.last("updates")
    return 0.0 if math.isnan(updates) else max(min_updates(record.run.spec) - updates, 0.0)


def _act_on_sides(record: RunRecord) -> list[NextStep]:
    text = (
        "Returns of sides that learn against each other do not show progress: play the team against frozen, random and "
        "untrained opponents."
    )
    opponents = [word for name in ("frozen", "random", "untrained") for word in ("--opponents", name)]
    return [NextStep(text, shell_command("shoal", "tournament", record.path, *opponents))]
