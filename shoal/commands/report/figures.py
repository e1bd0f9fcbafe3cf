"""The figures (charts) of a report and their explanations. To add a figure, add a row to LEARNING or SYSTEM."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from actor_node.evaluation.rollouts.episodes import Float64s
from shoal.commands.report.chart import AxisScale, Curve
from shoal.commands.report.run_record import RunGroup, RunRecord
from shoal.commands.report.traces import Trace, band, thinned

_MAX_PAUSE_S = 60.0
"""Longest time between two log lines of a running run [s]; after a longer time, the run had been stopped."""
_WAIT_LINES = 8
"""Number of lines over which the fraction of waiting is averaged."""

Series = Mapping[str, Trace]
"""Values by line name; the name is empty if the figure has only one line."""


class Axis(NamedTuple):
    """A horizontal axis: a metric of each log line, and its scale."""

    metric: str
    label: str
    short: str
    """Label of the switch between axes."""
    scale: float = 1.0
    decimals: int = 0
    """Decimals with which a position is shown."""


STEPS = Axis("env_steps", "environment steps", "steps")
AXES = (STEPS, Axis("trained_s", "minutes of training", "time", 1 / 60, 2), Axis("updates", "updates", "updates"))
"""The axes that a reader can choose from; without scripts, the page shows the first. `trained_s` is the time charged to
the budget, as `--time` counts it: a wall clock that stands still while a run is stopped."""


class ReportFigure(NamedTuple):
    """One figure: what its chart shows and how."""

    key: str
    title: str
    unit: str
    meaning: str
    series: Callable[[RunRecord, Axis], Series]
    """Function from (run, axis) to the lines of the chart."""
    scale: Callable[[RunRecord], AxisScale] = lambda _: AxisScale()
    by_agent: Callable[[RunRecord, Axis], Series] | None = None
    """The same with a line for each agent or player; None if the metric belongs to the run."""


class FigureLine(NamedTuple):
    """One line of a figure: the runs of a group under one name."""

    group: int
    series: int
    label: str
    traces: tuple[Trace, ...]
    """One for each run of the group that has it."""


def figure_lines(
    figure: ReportFigure, groups: Sequence[RunGroup], axis: Axis = STEPS, *, by_agent: bool = False
) -> list[FigureLine]:
    """Returns the lines of a figure over an axis; by_agent: one for each agent, if the figure has such lines."""
    found = []
    series_of = (by_agent and figure.by_agent) or figure.series
    for g, group in enumerate(groups):
        each = [series_of(record, axis) for record in group.records]
        for s, name in enumerate(dict.fromkeys(name for series in each for name in series)):
            label = name if len(groups) == 1 else f"{group.label}: {name}" if name else group.label
            found.append(FigureLine(g, s, label, tuple(series[name] for series in each if name in series)))
    return found


def curve_of(line: FigureLine, *, log: bool) -> Curve:
    """Returns the curve of a line: of one run its values, of several their mean with its band."""
    if len(line.traces) == 1:
        return Curve(line.label, thinned(line.traces[0]))
    positive = [Trace(t.x, np.where(t.y > 0, t.y, np.nan)) for t in line.traces] if log else line.traces
    mean = band(positive, log=log)
    if mean is None:
        nothing = Trace(np.array([]), np.array([]))
        return Curve(line.label, nothing, behind=line.traces)
    return Curve(line.label, Trace(mean.x, mean.y), mean.low, mean.high, line.traces)


def wait_fractions(records: Sequence[RunRecord]) -> list[tuple[str, float]]:
    """Returns the reasons for waiting with the fraction of log lines that name each, most frequent first."""
    moments = [
        line["waiting"] for record in records for line in record.history.lines if _is_text_list(line.get("waiting"))
    ]
    # In "actors waiting for the learner: 6.5 k samples behind (0 s)" the part after the colon differs each time.
    reasons = Counter(reason for waits in moments for reason in {re.split(r":| \(", wait)[0] for wait in waits})
    return [(reason, count / len(moments)) for reason, count in reasons.most_common()]


def _is_text_list(waits: object) -> bool:
    return isinstance(waits, list) and all(isinstance(wait, str) for wait in waits)


def _x(record: RunRecord, axis: Axis) -> Float64s:
    return record.history.column(axis.metric) * axis.scale


# ---- the lines of a figure ------------------------------------------------------------------------------------


def _column(name: str, *, known_from_zero: bool = True) -> Callable[[RunRecord, Axis], Series]:
    """Returns a function for the series of a logged metric.

    known_from_zero: whether zeros at the start are values; otherwise they mean that the metric is not known yet.
    """

    def series(record: RunRecord, axis: Axis) -> Series:
        y = record.history.column(name)
        if not known_from_zero:
            y = np.where(np.maximum.accumulate(np.nan_to_num(np.abs(y))) > 0, y, np.nan)
        return {"": Trace(_x(record, axis), y)} if np.isfinite(y).any() else {}

    return series


def _by_side(name: str, combine: Callable[..., Float64s]) -> Callable[[RunRecord, Axis], Series]:
    """Returns a function for one series a side: a metric of each agent, combined over the side's agents."""

    def series(record: RunRecord, axis: Axis) -> Series:
        rows, x = record.history.columns(name), _x(record, axis)
        return {side: Trace(x, combine(rows[:, indices], axis=1)) for side, indices in record.sides(rows.shape[1])}

    return series


def _by_agent(name: str) -> Callable[[RunRecord, Axis], Series]:
    """Returns a function for one series of a metric for each agent or player."""

    def series(record: RunRecord, axis: Axis) -> Series:
        rows, x = record.history.columns(name), _x(record, axis)
        return {owner.name: Trace(x, rows[:, i]) for i, owner in enumerate(record.owners(rows.shape[1]))}

    return series


def _returns(record: RunRecord, axis: Axis) -> Series:
    """Returns one series a side, summed over its agents; with a single side, the logged return."""
    sides = _by_side("return_means", np.sum)(record, axis)
    return sides if len(sides) > 1 else _column("return_mean")(record, axis)


def _evaluated_returns(record: RunRecord, axis: Axis) -> Series:
    """Returns one series a side: the returns of the evaluations while the run trained, summed over its agents."""
    agents = _evaluated_by_agent(record, axis)
    if not agents:
        return {}
    sides = record.sides(len(agents))
    traces = list(agents.values())
    return {side: Trace(traces[0].x, np.sum([traces[i].y for i in indices], axis=0)) for side, indices in sides}


def _evaluated_by_agent(record: RunRecord, axis: Axis) -> Series:
    lines = record.evaluations
    x = np.array([getattr(line, axis.metric) for line in lines], np.float64) * axis.scale
    return {
        agent.name: Trace(x, np.array([line.return_per_agent.get(agent.name, np.nan) for line in lines], np.float64))
        for agent in record.run.joint.agents
        if lines
    }


def _learner_waits(record: RunRecord, axis: Axis) -> Series:
    """Returns the percentage of time in iterations of the learner's loop that received no batch."""
    now, updating = record.history.column("time"), record.history.updating_s
    return _waiting_percent(_x(record, axis), now, (now - updating) - (now[:1] - updating[:1]))


def _actor_waits(record: RunRecord, axis: Axis) -> Series:
    now, waited = record.history.column("time"), record.history.column("actors_waited_s")
    actors = np.maximum(record.history.column("actors"), 1.0)
    return _waiting_percent(_x(record, axis), now, waited, actors)


def _waiting_percent(x: Float64s, now: Float64s, waited: Float64s, processes: Float64s | None = None) -> Series:
    """Returns the percentage of waiting over the last _WAIT_LINES lines.

    waited: accumulated seconds; a value lower than the previous one comes from a restarted process and is skipped.
    """
    if len(now) < 2 or not np.isfinite(waited).any():
        return {}
    passed, more = np.diff(now), np.diff(waited)
    known = (passed > 0) & (passed < _MAX_PAUSE_S) & np.isfinite(more) & (more >= -passed)
    passed = np.where(known, passed * (processes[1:] if processes is not None else 1.0), 0.0)
    window = np.ones(min(_WAIT_LINES, len(passed)))
    time_in = np.convolve(passed, window)[: len(passed)]
    waited_in = np.convolve(np.where(known, more, 0.0), window)[: len(passed)]
    fraction = np.where(time_in > 0, waited_in / np.maximum(time_in, 1e-9), np.nan)
    return {"": Trace(x[1:], 100 * np.clip(fraction, 0.0, 1.0))}


def _gradient_scale(record: RunRecord) -> AxisScale:
    clip = record.run.spec.algorithm.gradient_clip
    return AxisScale(log=True, reference=(clip, "clipped to") if clip else None)


def _ratio_scale(record: RunRecord) -> AxisScale:
    replay = record.run.spec.replay
    return AxisScale(reference=(replay.min_ratio, "least" if replay.is_auto else "target"))


_FROM_ZERO = AxisScale(from_zero=True)

RETURN = ReportFigure(
    "return",
    "Return while acting",
    "per episode, with exploration",
    "Mean over the newest episodes of the actors (at least 100), summed over the agents of a side. The actors explore, "
    "so with continuous actions an evaluation is usually better than the end of this curve. With Discrete actions that "
    "are sampled, greedy actions can be worse; compare with shoal evaluate --sample.",
    _returns,
    by_agent=_by_agent("return_means"),
)
SCORE = ReportFigure(
    "score",
    "Return in evaluations",
    "per episode, without exploration",
    "Mean over the episodes of each evaluation in training, summed over the agents of a side. All evaluations "
    "play the same episodes. Before the first update, the team is untrained.",
    _evaluated_returns,
    by_agent=_evaluated_by_agent,
)
MAIN = (SCORE, RETURN)
"""The figures of the full width of the page, first."""
LEARNING = (
    ReportFigure(
        "q",
        "Q-values",
        "discounted, mean over agents",
        "Mean Q-value of the replayed actions. It follows the discounted returns with a delay; if it grows far beyond "
        "them, the critics overestimate. The diagnosis compares both.",
        _by_side("q_mean", np.mean),
        by_agent=_by_agent("q_mean"),
    ),
    ReportFigure(
        "critic-loss",
        "Critic loss",
        "squared error, mean over agents",
        "Mean squared TD error of the critics. It grows with the size of the values and does not have to fall.",
        _by_side("critic_loss", np.mean),
        lambda _: AxisScale(log=True),
        _by_agent("critic_loss"),
    ),
    ReportFigure(
        "policy-loss",
        "Policy loss",
        "mean over agents",
        "Negative Q-value of the policies' actions, plus regularisation. It falls as the values rise.",
        _by_side("policy_loss", np.mean),
        by_agent=_by_agent("policy_loss"),
    ),
    ReportFigure(
        "critic-gradient",
        "Critic gradient norm",
        "before clipping, mean over agents",
        "Gradient norm of one update. Far above the clipping threshold, only the direction of the gradient matters.",
        _by_side("critic_gradient_norm", np.mean),
        _gradient_scale,
        _by_agent("critic_gradient_norm"),
    ),
    ReportFigure(
        "policy-gradient",
        "Policy gradient norm",
        "before clipping, mean over agents",
        "Gradient norm of one update. Near zero, the policies have stopped changing.",
        _by_side("policy_gradient_norm", np.mean),
        _gradient_scale,
        _by_agent("policy_gradient_norm"),
    ),
    ReportFigure(
        "entropy",
        "Entropy",
        "nats, mean over agents",
        "Entropy of stochastic policies. It falls while a policy becomes certain; near its target, the temperature "
        "holds it.",
        _by_side("entropy", np.mean),
        by_agent=_by_agent("entropy"),
    ),
)
SYSTEM = (
    ReportFigure(
        "env-rate",
        "Environment steps",
        "per second, over all actors",
        "Steps of all actors. The rate limiter slows the actors down to keep the replay ratio.",
        _column("env_steps_per_s", known_from_zero=False),
        lambda _: _FROM_ZERO,
    ),
    ReportFigure(
        "update-rate",
        "Updates",
        "per second",
        "Each update trains the critics, and on schedule the policies, of all agents on one batch.",
        _column("updates_per_s", known_from_zero=False),
        lambda _: _FROM_ZERO,
    ),
    ReportFigure(
        "ratio",
        "Replay ratio",
        "samples per inserted transition",
        "Average number of times that a transition is sampled, counted after warm-up. The rate limiter keeps it near "
        "the target; with auto it lies between two bounds: below the least, actors wait, and the learner waits at one "
        "update per environment step.",
        _column("samples_per_insert", known_from_zero=False),
        _ratio_scale,
    ),
    ReportFigure(
        "lag",
        "Policy lag",
        "versions of the weights",
        "Number of newer policy versions published by the time a transition arrives at the replay server.",
        _column("policy_lag"),
        lambda _: AxisScale(from_zero=True, up_to=1.0),
    ),
    ReportFigure(
        "learner-waits",
        "Learner waits",
        "% of the time",
        "Time in which the learner asked for a batch and received none. If it is high, start more actors.",
        _learner_waits,
        lambda _: AxisScale(from_zero=True, up_to=10.0),
    ),
    ReportFigure(
        "actor-waits",
        "Actors wait",
        "% of the time",
        "Time without credit to send. If it is high, the learner is the slower side, which is normal.",
        _actor_waits,
        lambda _: AxisScale(from_zero=True, up_to=10.0),
    ),
    ReportFigure(
        "exploration",
        "Exploration",
        "fraction of half the action range",
        "Standard deviation of the noise that actors add to continuous actions.",
        _column("exploration_scale"),
        lambda _: _FROM_ZERO,
    ),
)
