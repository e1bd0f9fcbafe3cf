"""The final tasks of `shoal train`: the diagnosis, the films, and the evaluation's figures in TensorBoard and trackers.

A child process carries out what calls a user's environment or a tracker.

    parent:  FinalTask ----------> child (final_task_process.py)
             FinalTaskResult <----

An environment or a tracker that hangs costs the task, not the command: the parent waits for a limited time, then
kills the child and every process that the environment started. The waits:

| waits                          | ends with                                                            |
|--------------------------------|----------------------------------------------------------------------|
| the parent, for the result     | the result, the child's end, the time-out, or a request to stop      |
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from actor_node.evaluation.evaluate import Evaluation
from common.errors import WorldError
from common.files import write_atomically, writing
from common.process.children.child_process import ChildProcess
from common.run.directory import RunDirectory
from learner_node.config import TrackerKind
from shoal.commands.diagnose.warning import DiagnosisWarning

TIMEOUT_S = 120.0
"""Longest time for one task [s]."""
_POLL_PERIOD_S = 0.2
MAX_ANSWER_BYTES = 16 * 2**20


class FinalTask(msgspec.Struct, frozen=True):
    """A diagnosis or a film of a run, or the record of its evaluation."""

    kind: Literal["diagnosis", "film", "evaluation"]
    run: str
    episodes: int = 0
    output: str = ""
    """File of the film."""
    width: int = 0
    """Width of the film [pixels]."""
    steps: int = 0
    """Longest part of an episode to film [steps]."""
    track: TrackerKind = "none"
    """The tracker that receives the figures of the evaluation, which TensorBoard receives anyway."""
    step: int = 0
    """Position of the evaluated policies on the x axis of the run's curves."""
    values: dict[str, float] = {}
    """Finite figures of the evaluation."""


class FinalTaskResult(msgspec.Struct, frozen=True):
    """The result of a task; only a diagnosis has updates and warnings."""

    updates: int = 0
    """Number of updates of the diagnosed policies."""
    warnings: list[DiagnosisWarning] = []
    error: str = ""
    """Reason why the task failed; empty if it succeeded."""


def run_task(task: FinalTask) -> FinalTaskResult:
    """Carries out a task in this process; raises ShoalError, or any exception of the environment or the tracker."""
    directory = RunDirectory(Path(task.run))
    if task.kind == "evaluation":
        from learner_node.reporting.evaluation_log import log_evaluation  # noqa: PLC0415  (slow to import)

        log_evaluation(directory, task.track, task.step, task.values)
        return FinalTaskResult()
    if task.kind == "film":
        from actor_node.rendering.film import render  # noqa: PLC0415  (Pillow is an optional dependency)

        render([directory], Path(task.output), episodes=task.episodes, width=task.width, steps=task.steps)
        return FinalTaskResult()
    from shoal.commands.diagnose.diagnosis import diagnose  # noqa: PLC0415  (importing it above would be circular)

    found = diagnose(directory, task.episodes)
    with writing(directory.diagnosis_file):
        write_atomically(directory.diagnosis_file, msgspec.json.encode(found))
    return FinalTaskResult(found.updates, found.warnings)


def evaluation_values(found: Evaluation) -> dict[str, float]:
    """Returns the finite figures of an evaluation by the names that TensorBoard and trackers show."""
    low, high = found.return_ci95
    values = {
        "evaluation/updates": float(found.updates),
        "evaluation/return": found.return_mean,
        "evaluation/return_low": low,
        "evaluation/return_high": high,
        **{f"evaluation/return_per_agent/{agent}": value for agent, value in found.return_per_agent.items()},
        **{f"evaluation/metrics/{name}": metric.mean for name, metric in found.metrics.items()},
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}


def run_in_child(task: FinalTask, stopped: Callable[[], bool], *, timeout_s: float = TIMEOUT_S) -> FinalTaskResult:
    """Runs a task in a child process; raises WorldError if it fails, ends without a result or exceeds `timeout_s`."""
    child = ChildProcess("shoal.commands.train.final_task_process")
    try:
        child.pipe.send_bytes(msgspec.json.encode(task))
        deadline = time.monotonic() + timeout_s
        while not child.pipe.poll(_POLL_PERIOD_S):
            if stopped():
                raise WorldError("stopped")
            if time.monotonic() > deadline:
                raise WorldError(f"it did not finish within {timeout_s:.0f} s")
        result = msgspec.json.decode(child.pipe.recv_bytes(MAX_ANSWER_BYTES), type=FinalTaskResult)
    except EOFError:
        raise WorldError("its process ended without a result") from None
    finally:
        child.kill()
    if result.error:
        raise WorldError(result.error)
    return result
