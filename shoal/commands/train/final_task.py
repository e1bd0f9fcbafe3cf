"""The diagnosis and the film at the end of `shoal train`, made by a process of their own for a user's environment.

    parent: task ------------> child (final_task_process.py)
       <---- what it found, or why it failed

A copy of the environment that hangs costs the diagnosis or the film, not the command: the parent waits for a limited
time. Then it kills the child and everything that the copies started.

| waits for                | frees it                                                      |
|--------------------------|---------------------------------------------------------------|
| parent: the child's end  | its answer, its end, the time limit, or a request to stop     |
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from common.errors import WorldError
from common.process.child_process import ChildProcess
from common.run.directory import RunDirectory
from shoal.commands.diagnose.warning import DiagnosisWarning

TIMEOUT_S = 120.0
"""Longest time for a diagnosis or a film."""
_POLL_PERIOD_S = 0.2
MAX_ANSWER_BYTES = 16 * 2**20


class FinalTask(msgspec.Struct, frozen=True):
    """What to make of which run; the other fields are a film's."""

    kind: Literal["diagnosis", "film"]
    run: str
    episodes: int
    output: str = ""
    width: int = 0
    steps: int = 0


class FinalTaskResult(msgspec.Struct, frozen=True):
    """What the child found; `error` says why it failed and is empty if it did not."""

    updates: int = 0
    warnings: list[DiagnosisWarning] = []
    error: str = ""


def make(task: FinalTask) -> FinalTaskResult:
    """Makes the diagnosis or the film in this process; ShoalError, or what the environment raises."""
    directory = RunDirectory(Path(task.run))
    if task.kind == "film":
        from actor_node.rendering.film import render  # noqa: PLC0415  (only now: Pillow, and the world's own renderer)

        render([directory], Path(task.output), episodes=task.episodes, width=task.width, steps=task.steps)
        return FinalTaskResult()
    from shoal.commands.diagnose.diagnosis import diagnose  # noqa: PLC0415  (the other way round it would be a circle)

    found = diagnose(directory, task.episodes)
    return FinalTaskResult(found.updates, found.warnings)


def run_in_child(task: FinalTask, stopped: Callable[[], bool], *, timeout_s: float = TIMEOUT_S) -> FinalTaskResult:
    """Makes it in a child process; WorldError if the child fails, ends without an answer or takes over `timeout_s`."""
    child = ChildProcess("shoal.commands.train.final_task_process")
    try:
        child.pipe.send_bytes(msgspec.json.encode(task))
        deadline = time.monotonic() + timeout_s
        while not child.pipe.poll(_POLL_PERIOD_S):
            if stopped():
                raise WorldError("stopped")
            if time.monotonic() > deadline:
                raise WorldError(f"not done within {timeout_s:.0f} s")
        answer = msgspec.json.decode(child.pipe.recv_bytes(MAX_ANSWER_BYTES), type=FinalTaskResult)
    except EOFError:
        raise WorldError("its process ended without an answer") from None
    finally:
        child.kill()
    if answer.error:
        raise WorldError(answer.error)
    return answer
