"""Figures (numbers) that summarise a run's training log, metrics.jsonl. Pure.

`late` is the last quarter of the lines; `middle` is the second quarter, after the warm-up and before the end.
"""

from __future__ import annotations

import warnings

import msgspec
import numpy as np

from actor_node.evaluation.rollouts.episodes import Float64s
from common.run.run import Run
from shoal.run_history import History

MIN_LINES = 12
"""Fewest lines, of two seconds each, in which trends are computed."""
_PIECES = 10
"""Number of parts of a run whose mean returns are compared."""
_PER_PLAYER = ("critic_gradient_norm", "policy_gradient_norm", "critic_loss")
"""Metrics with one value for each player."""


class Returns(msgspec.Struct, frozen=True):
    """Mean training returns of tenths of the run (summed over agents, with exploration)."""

    first: float
    best: float
    last: float
    spread: float
    """Standard error of the mean of the last tenth."""


class LogFigures(msgspec.Struct, frozen=True):
    """Figures of a training log; None where the log lacks the metric."""

    lines: int
    policy_lag: float | None
    """Mean number of versions by which acting weights lag behind the newest, late."""
    updates_per_s: float | None
    critic_gradient_norm: float | None
    """Late median of the largest norm over players, before clipping."""
    policy_gradient_norm: float | None
    """Late median of the largest norm over players, before clipping."""
    critic_gradient_growth: float | None
    """Ratio of the late to the middle median."""
    critics_clipped: float | None
    """Late fraction of logged updates with a clipped critic gradient; None without clipping."""
    policies_clipped: float | None
    critic_loss: float | None
    critic_loss_growth: float | None
    samples_per_insert: float | None
    target_samples_per_insert: float | None
    """None if the ratio is free between two bounds (auto)."""
    learner_waited: float | None
    """Fraction of the time between the first and the last line in which the learner had no batch."""
    actors_waited: float | None
    """Fraction of the actors' time between the first and the last line in which they could not send."""
    returns: Returns | None
    steps_per_update: float | None = None
    """Environment steps per update, over the whole log."""
    episode_steps: float | None = None
    """Mean length of the actors' episodes at the end; None while too few episodes have ended."""


def log_figures(history: History, run: Run) -> LogFigures | None:
    """Returns the figures of a run's log; None if the log is too short."""
    if len(history) < MIN_LINES:
        return None
    clip = run.spec.algorithm.gradient_clip
    critic, policy, loss = (_largest_of_players(history, name) for name in _PER_PLAYER)
    return LogFigures(
        lines=len(history),
        policy_lag=_known(_mean(_late(history.column("policy_lag")))),
        updates_per_s=_known(_mean(_late(history.column("updates_per_s")))),
        critic_gradient_norm=_known(_median(_late(critic))),
        policy_gradient_norm=_known(_median(_late(policy))),
        critic_gradient_growth=_growth(critic),
        critics_clipped=_fraction_above(_late(critic), clip),
        policies_clipped=_fraction_above(_late(policy), clip),
        critic_loss=_known(_median(_late(loss))),
        critic_loss_growth=_growth(loss),
        samples_per_insert=_known(history.last("samples_per_insert")),
        target_samples_per_insert=None if run.spec.replay.is_auto else run.spec.replay.min_ratio,
        learner_waited=_learner_waited(history),
        actors_waited=_actors_waited(history),
        returns=_returns(history.column("return_mean")),
        steps_per_update=_steps_per_update(history),
        episode_steps=_known(history.last("episode_steps")),
    )


def _largest_of_players(history: History, name: str) -> Float64s:
    with warnings.catch_warnings():
        # The maximum of a line without values is NaN, as intended.
        warnings.simplefilter("ignore", RuntimeWarning)
        columns = history.columns(name)
        return np.nanmax(columns, axis=1) if columns.size else np.full(len(history), np.nan)


def _late(values: Float64s) -> Float64s:
    return values[3 * len(values) // 4 :]


def _middle(values: Float64s) -> Float64s:
    return values[len(values) // 4 : len(values) // 2]


def _mean(values: Float64s) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _median(values: Float64s) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _growth(values: Float64s) -> float | None:
    before, after = _median(_middle(values)), _median(_late(values))
    return _known(after / before) if before > 0 else None


def _fraction_above(values: Float64s, clip: float) -> float | None:
    finite = values[np.isfinite(values)]
    return float((finite > clip).mean()) if clip and len(finite) else None


def _learner_waited(history: History) -> float | None:
    passed, updating = np.diff(history.column("time")), np.diff(history.updating_s)
    # The time between a stop and a resume is not waiting.
    steady = (passed > 0) & (passed < 60.0) & (updating >= 0)
    return float(max(0.0, 1.0 - updating[steady].sum() / passed[steady].sum())) if steady.any() else None


def _actors_waited(history: History) -> float | None:
    passed, waited = (np.diff(history.column(name)) for name in ("time", "actors_waited_s"))
    actors = history.column("actors")[1:]
    steady = (passed > 0) & (passed < 60.0) & (waited >= 0) & (actors > 0)
    if not steady.any():
        return None
    return float(min(1.0, waited[steady].sum() / (passed[steady] * actors[steady]).sum()))


def _steps_per_update(history: History) -> float | None:
    steps, updates = (float(np.diff(history.column(name)[[0, -1]])[0]) for name in ("env_steps", "updates"))
    return _known(steps / updates) if updates > 0 else None


def _returns(values: Float64s) -> Returns | None:
    finite = values[np.isfinite(values)]
    if len(finite) < MIN_LINES:
        return None
    pieces = np.array_split(finite, _PIECES)
    means = [float(piece.mean()) for piece in pieces]
    spread = float(pieces[-1].std() / np.sqrt(len(pieces[-1])))
    return Returns(means[0], max(means), means[-1], spread)
