"""What a churn found: its tables in Markdown, and the same figures as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from shoal.commands.audit.delivery_check import AuditResult

from .growth import Slope, pooled_slope
from .processes import ROLES, Process, Sample

WARM_S = 60.0
"""Growth is measured from this age of a process on."""
MAY_LOSE_S = 2.0
CHUNK_FIGURES = (
    "sent",
    "acknowledged",
    "stored",
    "acknowledged_lost",
    "duplicates",
    "out_of_order",
    "altered",
    "unacknowledged_lost",
    "most_lost_with_an_actor",
    "worker_lives",
    "server_lives",
    "torn_files",
)
"""What is shown of the audit."""
_FIGURES: dict[str, Callable[[Sample], float]] = {
    "memory": lambda sample: sample.memory,
    "descriptors": lambda sample: sample.descriptors,
    "threads": lambda sample: sample.threads,
}


class Figure(msgspec.Struct, frozen=True):
    """One figure of a role: its range, and how it grows."""

    first: float
    """At the first sample of the longest life after WARM_S."""
    last: float
    highest: float
    """Of all lives, at any age."""
    slope: Slope
    """Growth an hour of all lives older than WARM_S."""


class RoleFigures(msgspec.Struct, frozen=True):
    """What the processes of one role took."""

    lives: int
    figures: dict[str, Figure]
    """By name: memory [MiB], descriptors, threads; empty if no life was sampled."""


class TrainedRun(msgspec.Struct, frozen=True):
    """One of the two runs."""

    minutes: float
    roles: dict[str, RoleFigures]
    faults: dict[str, dict[str, int]]
    """Number of faults by kind and target."""
    fault_s: dict[str, float]
    together: int
    """How often Redis and the replay server were killed together."""
    env_steps: int
    most_steps_per_s: float
    """Highest rate of environment steps that the learner has logged."""
    result: dict[str, Any]
    """The evaluation, as `shoal train --json` prints it."""


def role_figures(lives: Sequence[Process]) -> dict[str, RoleFigures]:
    """Returns what each role took."""
    by_role = {role: [one for one in lives if one.role == role] for role in ROLES}
    return {role: RoleFigures(len(found), _figures([one.samples for one in found])) for role, found in by_role.items()}


def _figures(lives: Sequence[Sequence[Sample]]) -> dict[str, Figure]:
    # Without the last samples of a life, in which it may have been ending.
    whole = [life[:-3] for life in lives if len(life) > 3]
    if not whole:
        return {}
    longest = max(whole, key=lambda life: life[-1].age_s)
    warm = [[sample for sample in life if sample.age_s >= WARM_S] for life in whole]
    shown = [sample for sample in longest if sample.age_s >= WARM_S] or longest
    return {
        name: Figure(
            take(shown[0]),
            take(shown[-1]),
            max(take(sample) for life in whole for sample in life),
            pooled_slope([(sample.age_s, take(sample)) for sample in life] for life in warm),
        )
        for name, take in _FIGURES.items()
    }


def roles_table(run: TrainedRun) -> list[str]:
    """Returns what each role's processes took, as lines of Markdown."""
    harmed = [kind for kind in ("kill", "pause") if kind in run.faults]
    head = ["role", *(f"{kind}s" for kind in harmed), "lives", "observed min"]
    head += ["private MiB", "MiB/h", "descriptors", "an hour", "threads", "an hour"]
    rows = []
    for role, found in run.roles.items():
        counts = [str(run.faults[kind].get(role, 0)) for kind in harmed]
        minutes = f"{60 * found.figures['memory'].slope.hours:.0f}" if found.figures else "0"
        cells = [text for figure in found.figures.values() for text in (_range(figure), _slope(figure.slope))]
        rows.append([role, *counts, str(found.lives), minutes, *(cells or ["-"] * 6)])
    return markdown(head, rows)


def _range(figure: Figure) -> str:
    return f"{figure.first:.0f} to {figure.last:.0f}, at most {figure.highest:.0f}"


def _slope(slope: Slope) -> str:
    if math.isnan(slope.low):
        return "-"
    return f"{slope.per_hour:+.1f} ({slope.low:+.1f} to {slope.high:+.1f})"


def faults_table(run: TrainedRun) -> list[str]:
    """Returns the faults by kind and target, as lines of Markdown."""
    rows = []
    for kind, targets in run.faults.items():
        shown = ", ".join(f"{target} {count}" for target, count in Counter(targets).most_common())
        minutes = f"{run.fault_s[kind] / 60:.1f}" if run.fault_s.get(kind) else "-"
        rows.append([kind, str(sum(targets.values())), minutes, shown or "-"])
    return markdown(["fault", "times", "min in all", "of these"], rows)


def broken_promises(audit: AuditResult, run: TrainedRun) -> list[str]:
    """Returns the broken promises of delivery (P1 and P2).

    Where Redis and the replay server were killed together, two seconds of acknowledged chunks may be lost each time.
    """
    lost_steps = audit.acknowledged_lost * run.env_steps / max(audit.stored, 1)
    if lost_steps > MAY_LOSE_S * run.most_steps_per_s * run.together:
        return audit.broken
    return [text for text in audit.broken if "acknowledged chunks are lost" not in text]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a table as lines of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def tables(churned: TrainedRun, quiet: TrainedRun, audit: AuditResult) -> str:
    """Returns all tables."""
    total = sum(sum(targets.values()) for targets in churned.faults.values())
    chunks = [[name.replace("_", " "), f"{getattr(audit, name):,}"] for name in CHUNK_FIGURES]
    scores = [_score(name, run) for name, run in (("undisturbed", quiet), (f"with {total} faults", churned))]
    return "\n".join(
        [
            f"{total} faults; the disturbed run took {churned.minutes:.1f} minutes:",
            "",
            *faults_table(churned),
            "",
            *roles_table(churned),
            "",
            f"The undisturbed run, {quiet.minutes:.1f} minutes:",
            "",
            *roles_table(quiet),
            "",
            *markdown(["chunks", ""], chunks),
            "",
            f"Redis and the replay server were killed together {churned.together} times.",
            "",
            *markdown(["run", "env steps", "updates", "return", "95 %"], scores),
        ]
    )


def _score(name: str, run: TrainedRun) -> list[str]:
    result = run.result
    low, high = result["return_ci95"]
    counts = [f"{run.env_steps:,}", f"{result['updates']:,}"]
    return [name, *counts, f"{result['return_mean']:.2f}", f"{low:.2f} to {high:.2f}"]
