"""The end of a run: when its transitions are released, and when another run may replace it. Pure.

    open --report: finished--> finished --release_after, or another run's Open--> released --another run's Open--> gone
     ^                            |                                                  |
     +---- Open of the same run --+--------------------------------------------------+

A run that is not finished is never released by itself: its learner may return.
"""

from __future__ import annotations

from typing import NamedTuple


class ServedRun(NamedTuple):
    """What decides whether another run may replace the run that the server serves."""

    id: str
    size: int
    """Stored transitions."""
    inserts: int
    """Transitions ever inserted [environment steps]."""
    progress: float | None
    """Fraction of the budget used; None if no learner has reported to this process."""
    finished: bool
    learner: str
    """Name of the run's connected learner; empty without one."""


def why_not_replaced(served: ServedRun, run: str, *, fresh: bool) -> str:
    """Returns why the run `run` may not replace the served one; empty if it may.

    fresh: whether the learner asks to discard the transitions of a run that is not finished.
    """
    if served.finished:
        return ""
    progress = f"{served.inserts:,} environment steps"
    if served.progress is not None:
        progress = f"{served.progress:.0%} of its budget, {progress}"
    text = (
        f"this replay server stores {served.size:,} transitions of the run {served.id}, not of {run}; {served.id} is"
        f" not finished ({progress})"
    )
    if served.learner:
        return (
            f"{text}, and its {served.learner} is connected. Wait until that run ends, or stop that learner and start"
            " this one with --fresh, which discards its transitions; or start another replay server for this run."
        )
    if served.size and not fresh:
        return f"{text}. Resume {served.id}, or discard its transitions by starting this learner with --fresh."
    return ""


def is_release_due(finished_at: float | None, size: int, now: float, release_after_s: float) -> bool:
    """Returns whether the transitions of a run must be released now.

    finished_at: monotonic time at which the run was reported as finished; None if it is not. size: stored transitions.
    """
    return finished_at is not None and size > 0 and now - finished_at >= release_after_s
