"""The figures of a report: one row each, with what to make of it. A new figure is one row more."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from shoal.commands.report.chart import Curve, Scale
from shoal.commands.report.history import Floats
from shoal.commands.report.intervals import Trace, band, thinned
from shoal.commands.report.run_record import Group, RunRecord

_LONGEST_PAUSE_S = 60.0
"""Between two lines of a log: after more the run had been stopped, not waiting."""
_WAIT_LINES = 8
"""Lines a share of waiting is taken over."""

Series = Mapping[str, Trace]
"""Name of a line within a figure (empty: the only one) -> its values."""


class Figure(NamedTuple):
    """What one chart shows and how."""

    key: str
    title: str
    unit: str
    meaning: str
    series: Callable[[RunRecord, Floats], Series]
    """(run, x of each of its lines) -> lines."""
    scale: Callable[[RunRecord], Scale] = lambda _: Scale()
    over: str = "env_steps"
    """Column of the x axis."""


X_LABELS = {"env_steps": "environment steps", "trained_s": "minutes of training"}
_X_SCALES = {"env_steps": 1.0, "trained_s": 1 / 60}


def curves(figure: Figure, groups: Sequence[Group]) -> list[tuple[int, int, Curve]]:
    """Returns the curves of a figure with the group and the place among the figure's lines each belongs to."""
    found = []
    for g, group in enumerate(groups):
        each = [figure.series(record, _x(record, figure)) for record in group.records]
        for s, name in enumerate(dict.fromkeys(name for series in each for name in series)):
            label = name if len(groups) == 1 else f"{group.label}: {name}" if name else group.label
            traces = [series[name] for series in each if name in series]
            found.append((g, s, _curve(label, traces, log=figure.scale(group.records[0]).log)))
    return found


def wait_fractions(records: Sequence[RunRecord]) -> list[tuple[str, float]]:
    """Returns who waited for whom and the share of logged moments in which that was so, the most frequent first."""
    moments = [line["waiting"] for record in records for line in record.course.lines if _is_told(line.get("waiting"))]
    # "actors waiting for the learner: 6.5 k samples behind (0 s)": what stands after the colon differs each time.
    reasons = Counter(reason for waits in moments for reason in {re.split(r":| \(", wait)[0] for wait in waits})
    return [(reason, count / len(moments)) for reason, count in reasons.most_common()]


def _is_told(waits: object) -> bool:
    return isinstance(waits, list) and all(isinstance(wait, str) for wait in waits)


def _x(record: RunRecord, figure: Figure) -> Floats:
    return record.course.column(figure.over) * _X_SCALES[figure.over]


def _curve(label: str, traces: Sequence[Trace], *, log: bool) -> Curve:
    if len(traces) == 1:
        return Curve(label, thinned(traces[0]))
    mean = band([Trace(t.x, np.where(t.y > 0, t.y, np.nan)) for t in traces] if log else traces, log=log)
    if mean is None:
        nothing = Trace(np.array([]), np.array([]))
        return Curve(label, nothing, behind=tuple(traces))
    return Curve(label, Trace(mean.x, mean.y), mean.low, mean.high, tuple(traces))


# ---- where the lines come from ------------------------------------------------------------------------------------


def _column(name: str, *, known_from_zero: bool = True) -> Callable[[RunRecord, Floats], Series]:
    """One figure as it was logged; known_from_zero: whether a zero at the start is a value, or "not known yet"."""

    def series(record: RunRecord, x: Floats) -> Series:
        y = record.course.column(name)
        if not known_from_zero:
            y = np.where(np.maximum.accumulate(np.nan_to_num(np.abs(y))) > 0, y, np.nan)
        return {"": Trace(x, y)} if np.isfinite(y).any() else {}

    return series


def _by_side(name: str, combine: Callable[..., Floats], prefix: str = "") -> Callable[[RunRecord, Floats], Series]:
    """A figure that each agent has, put together side by side."""

    def series(record: RunRecord, x: Floats) -> Series:
        rows = record.course.columns(name)
        sides = record.sides(rows.shape[1])
        return {f"{prefix} {side}".strip(): Trace(x, combine(rows[:, own], axis=1)) for side, own in sides}

    return series


def _returns(record: RunRecord, x: Floats) -> Series:
    """The return of a side is its agents' sum; of a lone side it was logged itself."""
    sides = _by_side("return_means", np.sum)(record, x)
    return sides if len(sides) > 1 else _column("return_mean")(record, x)


def _q_and_returns(record: RunRecord, x: Floats) -> Series:
    q = _by_side("q_mean", np.mean, "Q")(record, x)
    return {**q, **_by_side("return_means", np.mean, "return")(record, x)} if q else {}


def _learner_waits(record: RunRecord, x: Floats) -> Series:
    """Time that went by and was not spent on updates."""
    now, updating = record.course.column("time"), record.course.updating_s
    return _waiting_share(x, now, (now - updating) - (now[:1] - updating[:1]))


def _actor_waits(record: RunRecord, x: Floats) -> Series:
    now, waited = record.course.column("time"), record.course.column("actors_waited_s")
    actors = np.maximum(record.course.column("actors"), 1.0)
    return _waiting_share(x, now, waited, actors)


def _waiting_share(x: Floats, now: Floats, waited: Floats, heads: Floats | None = None) -> Series:
    """The share of the last lines' time that was waited; a counter that falls back belongs to a new process."""
    if len(now) < 2 or not np.isfinite(waited).any():
        return {}
    passed, more = np.diff(now), np.diff(waited)
    known = (passed > 0) & (passed < _LONGEST_PAUSE_S) & np.isfinite(more) & (more >= -passed)
    passed = np.where(known, passed * (heads[1:] if heads is not None else 1.0), 0.0)
    window = np.ones(min(_WAIT_LINES, len(passed)))
    time_in = np.convolve(passed, window)[: len(passed)]
    waited_in = np.convolve(np.where(known, more, 0.0), window)[: len(passed)]
    share = np.where(time_in > 0, waited_in / np.maximum(time_in, 1e-9), np.nan)
    return {"": Trace(x[1:], 100 * np.clip(share, 0.0, 1.0))}


def _clip(record: RunRecord) -> Scale:
    clip = record.run.spec.algorithm.gradient_clip
    return Scale(log=True, reference=(clip, "clipped to") if clip else None)


def _ratio(record: RunRecord) -> Scale:
    return Scale(reference=(record.run.spec.replay.samples_per_insert, "target"))


_FROM_ZERO = Scale(from_zero=True)

RETURN = Figure(
    "return",
    "Return",
    "per episode, summed over agents",
    "Mean over the newest hundred episodes or more, as the actors played them: with exploration. Where "
    "actions are numbers, the evaluation without that noise is usually better than the end of this curve; where "
    "choices are drawn (Discrete actions), the likeliest alone may be worse: shoal evaluate --sample.",
    _returns,
)
RETURN_OVER_TIME = RETURN._replace(
    key="return-time",
    title="Return over time",
    over="trained_s",
    meaning="The same over the time charged to --time: all from the first transition on, unless a peer was gone.",
)
LEARNING = (
    RETURN_OVER_TIME,
    Figure(
        "q",
        "Q against returns",
        "mean over agents",
        "The critics' mean value of the replayed actions, and the return of an agent's episodes. Q is discounted and "
        "looks beyond an episode's end, so the two move together without being equal. A Q that runs away from the "
        "returns is an over-estimate.",
        _q_and_returns,
    ),
    Figure(
        "critic-loss",
        "Critic loss",
        "squared error, mean over agents",
        "How far the critics are from their own targets. It grows with the size of the values and need not fall.",
        _by_side("critic_loss", np.mean),
        lambda _: Scale(log=True),
    ),
    Figure(
        "policy-loss",
        "Policy loss",
        "mean over agents",
        "Minus the critics' value of what the policies would do, plus regularisation. It falls as values rise.",
        _by_side("policy_loss", np.mean),
    ),
    Figure(
        "critic-gradient",
        "Critic gradient norm",
        "before clipping, mean over agents",
        "Of one update's gradient. Far above the line the step's length is the clipping's, only its direction counts.",
        _by_side("critic_gradient_norm", np.mean),
        _clip,
    ),
    Figure(
        "policy-gradient",
        "Policy gradient norm",
        "before clipping, mean over agents",
        "Of one update's gradient; near zero the policies have stopped to change.",
        _by_side("policy_gradient_norm", np.mean),
        _clip,
    ),
)
MACHINERY = (
    Figure(
        "env-rate",
        "Environment steps",
        "per second, over all actors",
        "Held back on purpose where the ratio of learning to acting would be broken.",
        _column("env_steps_per_s", known_from_zero=False),
        lambda _: _FROM_ZERO,
    ),
    Figure(
        "update-rate",
        "Updates",
        "per second",
        "Each trains every agent's critic and policy on one batch.",
        _column("updates_per_s", known_from_zero=False),
        lambda _: _FROM_ZERO,
    ),
    Figure(
        "ratio",
        "Replay ratio",
        "samples per inserted transition",
        "How often a transition is learnt from, since the replay was first full enough. It is held at the target.",
        _column("samples_per_insert", known_from_zero=False),
        _ratio,
    ),
    Figure(
        "lag",
        "Policy lag",
        "versions of the weights",
        "How many times the policies had been published anew when what they had collected arrived.",
        _column("policy_lag"),
        lambda _: Scale(from_zero=True, up_to=1.0),
    ),
    Figure(
        "learner-waits",
        "Learner waits",
        "% of the time",
        "Time without a batch: too few actors where it is high.",
        _learner_waits,
        lambda _: Scale(from_zero=True, up_to=10.0),
    ),
    Figure(
        "actor-waits",
        "Actors wait",
        "% of the time",
        "Time without leave to send: the learner is the slower side where it is high, as it should be.",
        _actor_waits,
        lambda _: Scale(from_zero=True, up_to=10.0),
    ),
    Figure(
        "exploration",
        "Exploration",
        "share of half the action's range",
        "Standard deviation of the noise that actors add to continuous actions.",
        _column("exploration_scale"),
        lambda _: _FROM_ZERO,
    ),
)
