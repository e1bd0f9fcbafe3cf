"""The evaluations of a run while it trains: the lines of `evaluations.jsonl`, and the request behind each of them.

    learner --EvaluationRequest + weights--> evaluator process (actor_node/evaluation/evaluator_process.py)
            <--ScheduledEvaluation----------                    the learner writes it as a line

The lines are not in metrics.jsonl: an evaluation ends later than lines that were logged after its weights were taken.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np

READY = b"ready"
"""First message of the evaluator process, once its imports are done and it has made the world once."""
MAX_LINES = 2_000
"""Largest number of lines that are read, evenly spaced if there are more: a page shows a few hundred points."""


_log = logging.getLogger(__name__)


class EvaluationRequest(msgspec.Struct, frozen=True):
    """Asks for one evaluation of the weights that follow as a separate message, flat little-endian float32."""

    env_steps: int
    """Environment steps of the run when the weights were taken."""
    updates: int
    """Number of updates of the weights."""
    trained_s: float
    """Time charged to the budget when the weights were taken [s]."""
    episodes: int
    """Number of episodes; 0 plays as many as fit into `within_s`, from 1 to `max_episodes`."""
    within_s: float
    """Time during which episodes may start if their number is 0 [s]."""
    max_episodes: int = 0
    """Largest number of episodes if their number is 0."""


class ScheduledEvaluation(msgspec.Struct, frozen=True):
    """The result of one evaluation while a run trains: one line of `evaluations.jsonl`."""

    time: float
    """When the evaluation ended [Unix seconds]."""
    env_steps: int
    """Environment steps of the run when the weights were taken."""
    updates: int
    """Number of updates of the evaluated policies."""
    trained_s: float
    """Time charged to the budget when the weights were taken [s]."""
    episodes: int
    seed: int
    """Seed of the first episode; episode e has seed + e."""
    return_mean: float
    """Mean over episodes of the return summed over agents, without exploration."""
    return_ci95: tuple[float, float]
    """Bootstrap percentile interval of the mean."""
    return_per_agent: dict[str, float]
    """Agent -> mean return."""
    metrics: dict[str, float] = {}
    """Metric of the world -> mean over episodes."""
    length_mean: float = 0.0
    """Mean number of steps of an episode."""
    seconds: float = 0.0
    """How long the evaluation took [s]."""

    @property
    def values(self) -> dict[str, float]:
        """The finite figures by the names that TensorBoard and trackers show."""
        low, high = self.return_ci95
        named = {
            "evaluation/return": self.return_mean,
            "evaluation/return_low": low,
            "evaluation/return_high": high,
            **{f"evaluation/return_per_agent/{agent}": value for agent, value in self.return_per_agent.items()},
            **{f"evaluation/metrics/{name}": value for name, value in self.metrics.items()},
        }
        return {name: value for name, value in named.items() if math.isfinite(value)}


def read_evaluations(path: Path) -> list[ScheduledEvaluation]:
    """Reads an `evaluations.jsonl`; returns an empty list if the file does not exist.

    Leaves out lines that a crash cut off, and lines that were superseded: a killed learner continues from its last
    checkpoint and evaluates again. Logs how many lines cannot be read.
    """
    try:
        raw = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    lines: list[ScheduledEvaluation] = []
    unreadable = 0
    for one in filter(None, raw):
        try:
            line = msgspec.json.decode(one, type=ScheduledEvaluation)
        except (msgspec.DecodeError, msgspec.ValidationError):
            unreadable += 1
            continue
        while lines and lines[-1].updates >= line.updates:
            lines.pop()
        lines.append(line)
    if unreadable:
        _log.warning("left out incomplete lines file=%s lines=%d", path, unreadable)
    chosen = np.linspace(0, len(lines) - 1, min(len(lines), MAX_LINES)).astype(int)
    return [lines[i] for i in chosen]


def best_of(lines: Iterable[ScheduledEvaluation]) -> ScheduledEvaluation | None:
    """Returns the evaluation with the largest mean return, the earliest among equals; None if there is none."""
    return max(lines, key=lambda line: line.return_mean, default=None)


class EvaluationReply(msgspec.Struct, frozen=True):
    """The answer of the evaluator process to one request."""

    result: ScheduledEvaluation | None = None
    error: str = ""
    """Why there is no result, such as an exception of the environment; empty if there is one."""
