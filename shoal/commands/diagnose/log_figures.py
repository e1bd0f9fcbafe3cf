"""How a run went, in a few figures out of its metrics.jsonl. Pure.

`late` is the last quarter of the lines, `middle` the second quarter: past the warm-up, before the end.
"""

from __future__ import annotations

import warnings

import msgspec
import numpy as np

from common.run.run import Run
from shoal.commands.report.history import Floats, History

FEWEST_LINES = 12
"""A line is two seconds of training: with fewer there are no trends."""
_PIECES = 10


class Returns(msgspec.Struct, frozen=True):
    """Means of training episodes (summed over agents, exploration included) over tenths of the run."""

    first: float
    best: float
    last: float
    spread: float
    """Standard deviation of the last tenth's mean."""


class RunFigures(msgspec.Struct, frozen=True):
    """A run's course; None where the log does not say."""

    lines: int
    policy_lag: float | None
    """Versions of the weights between choosing an action and the learner's newest, late."""
    updates_per_s: float | None
    critic_gradient_norm: float | None
    """Median late, largest over players, before clipping; as is the one below."""
    policy_gradient_norm: float | None
    critic_gradient_growth: float | None
    """Late over middle."""
    critics_clipped: float | None
    """Share of the logged updates in which a critic's gradient was clipped, late; None where nothing is clipped."""
    policies_clipped: float | None
    critic_loss: float | None
    critic_loss_growth: float | None
    samples_per_insert: float | None
    target_samples_per_insert: float
    learner_waited: float | None
    """Share of the time from the first line to the last in which the learner had no batch."""
    actors_waited: float | None
    """The same of the actors: for the learner, most often."""
    returns: Returns | None
    steps_per_update: float | None = None
    """Environment steps an update, over the whole log."""
    episode_steps: float | None = None
    """Mean length of the actors' episodes, at the end; None while too few have ended."""


def run_figures(course: History, run: Run) -> RunFigures | None:
    """Returns a run's figures; None where its log is too short."""
    if len(course) < FEWEST_LINES:
        return None
    clip = run.spec.algorithm.gradient_clip
    critic, policy, loss = (_largest(course, f"{name}") for name in _PER_PLAYER)
    return RunFigures(
        lines=len(course),
        policy_lag=_known(_mean(_late(course.column("policy_lag")))),
        updates_per_s=_known(_mean(_late(course.column("updates_per_s")))),
        critic_gradient_norm=_known(_median(_late(critic))),
        policy_gradient_norm=_known(_median(_late(policy))),
        critic_gradient_growth=_growth(critic),
        critics_clipped=_share_above(_late(critic), clip),
        policies_clipped=_share_above(_late(policy), clip),
        critic_loss=_known(_median(_late(loss))),
        critic_loss_growth=_growth(loss),
        samples_per_insert=_known(course.last("samples_per_insert")),
        target_samples_per_insert=run.spec.replay.samples_per_insert,
        learner_waited=_learner_waited(course),
        actors_waited=_actors_waited(course),
        returns=_returns(course.column("return_mean")),
        steps_per_update=_steps_per_update(course),
        episode_steps=_known(course.last("episode_steps")),
    )


_PER_PLAYER = ("critic_gradient_norm", "policy_gradient_norm", "critic_loss")


def _largest(course: History, name: str) -> Floats:
    with warnings.catch_warnings():
        # A line without any value is NaN, which is what it should be.
        warnings.simplefilter("ignore", RuntimeWarning)
        columns = course.columns(name)
        return np.nanmax(columns, axis=1) if columns.size else np.full(len(course), np.nan)


def _late(values: Floats) -> Floats:
    return values[3 * len(values) // 4 :]


def _middle(values: Floats) -> Floats:
    return values[len(values) // 4 : len(values) // 2]


def _mean(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _median(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _growth(values: Floats) -> float | None:
    before, after = _median(_middle(values)), _median(_late(values))
    return _known(after / before) if before > 0 else None


def _share_above(values: Floats, clip: float) -> float | None:
    finite = values[np.isfinite(values)]
    return float((finite > clip).mean()) if clip and len(finite) else None


def _learner_waited(course: History) -> float | None:
    passed, updating = np.diff(course.column("time")), np.diff(course.updating_s)
    # Where a run was resumed, time has passed in which nobody waited.
    steady = (passed > 0) & (passed < 60.0) & (updating >= 0)
    return float(max(0.0, 1.0 - updating[steady].sum() / passed[steady].sum())) if steady.any() else None


def _actors_waited(course: History) -> float | None:
    passed, waited = (np.diff(course.column(name)) for name in ("time", "actors_waited_s"))
    actors = course.column("actors")[1:]
    steady = (passed > 0) & (passed < 60.0) & (waited >= 0) & (actors > 0)
    if not steady.any():
        return None
    return float(min(1.0, waited[steady].sum() / (passed[steady] * actors[steady]).sum()))


def _steps_per_update(course: History) -> float | None:
    steps, updates = (float(np.diff(course.column(name)[[0, -1]])[0]) for name in ("env_steps", "updates"))
    return _known(steps / updates) if updates > 0 else None


def _returns(values: Floats) -> Returns | None:
    finite = values[np.isfinite(values)]
    if len(finite) < FEWEST_LINES:
        return None
    pieces = np.array_split(finite, _PIECES)
    means = [float(piece.mean()) for piece in pieces]
    spread = float(pieces[-1].std() / np.sqrt(len(pieces[-1])))
    return Returns(means[0], max(means), means[-1], spread)
