"""The display of a run while it trains: a live table on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.process.durations import format_duration
from common.run.run import ReplaySpec
from common.wire.messages import LearnerReport, Status
from learner_node.run_checks.inputs import remark_key

LINE_PERIOD_S = 10.0
MAX_BUSY_SHOWN = 2
"""Maximum number of busy actors that are shown with their activity."""
SILENT_S = 10.0
"""After this time [s] without a report (normally one each second), the learner's activity is unknown."""
STALL_S = 60.0
"""Actors that have waited longer [s] for the learner are shown as waiting, not as limited by the ratio."""
_RATE_LIMITED = re.compile(r"actors waiting for the learner: \S+( \S)? samples behind \((\d+) s\)")
"""Matches a wait in `Status.waiting` that is the normal effect of the rate limiter."""


class Display(Protocol):
    """Shows the progress of a run."""

    def show(self, status: Status | None, problems: Sequence[str]) -> None:
        """Shows the newest status, None if the replay server does not answer, and the problems of processes."""

    def print(self, text: str) -> None:
        """Prints a text immediately, such as a failure with its details."""

    def close(self) -> None:
        """Ends the display; the last state stays on the screen."""


def make_display(console: Console, title: str) -> Display:
    """Returns a live table for a terminal, and lines for any other output."""
    return LiveTable(console, title) if console.is_terminal else LineDisplay(console)


class LiveTable:
    """A table that is redrawn in place."""

    def __init__(self, console: Console, title: str) -> None:
        self._title, self._started_at = title, time.monotonic()
        self._time_left = TimeLeft()
        self._live = Live(Text(f"{title}: starting"), console=console, refresh_per_second=4)
        self._live.start()

    def show(self, status: Status | None, problems: Sequence[str]) -> None:
        """Redraws the table."""
        now = time.monotonic()
        left_s = self._time_left.estimate_s(status, now)
        self._live.update(draw(self._title, status, problems, now - self._started_at, left_s))

    def print(self, text: str) -> None:
        """Prints above the table."""
        self._live.console.print(Text(text, style="yellow"), soft_wrap=True)

    def close(self) -> None:
        """Leaves the last table on the screen."""
        self._live.stop()


class LineDisplay:
    """One line every ten seconds, for logs and pipes; problems immediately."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started_at = time.monotonic()
        self._printed_at = -LINE_PERIOD_S
        self._time_left = TimeLeft()
        self._problems: list[str] = []
        self._warned: set[str] = set()

    def show(self, status: Status | None, problems: Sequence[str]) -> None:
        """Prints a line when one is due."""
        for problem in problems:
            if problem not in self._problems:
                self._print(problem)
        self._problems = list(problems)
        for warning in status.learner.warnings if status and status.learner else ():
            # A repeated warning may contain other numbers, but it starts with the same words.
            if (subject := remark_key(warning)) not in self._warned:
                self._warned.add(subject)
                self._print(f"warning: {warning}")
        left = time_left_text(self._time_left.estimate_s(status, time.monotonic()))
        if time.monotonic() - self._printed_at < LINE_PERIOD_S:
            return
        self._printed_at = time.monotonic()
        if status is None:
            self._print("waiting for the replay server")
            return
        if status.learner is None:
            self._print("waiting for the learner to start")
            return
        shown = [(name, value) for name, value in status_rows(status) if name not in ("waiting", "pace", "warning")]
        waits = [_rate_limited_text(status) if _is_rate_limited(wait) else wait for wait in status.waiting]
        line = ", ".join(f"{name} {value}" for name, value in shown) + left
        self._print("; ".join([line, *waits]))

    def print(self, text: str) -> None:
        """Prints a text with the elapsed time."""
        self._print(text)

    def close(self) -> None:
        """Does nothing: every line is already printed."""

    def _print(self, text: str) -> None:
        self._console.print(
            f"[{format_duration(time.monotonic() - self._started_at)}] {text}",
            markup=False,
            emoji=False,
            soft_wrap=True,
        )


class TimeLeft:
    """Estimates the remaining time of a run from its progress since it was first observed."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None

    def estimate_s(self, status: Status | None, now: float) -> float | None:
        """Returns the remaining seconds; None without observed progress."""
        progress = status.learner.progress if status is not None and status.learner else 0.0
        if progress <= 0.0:
            return None
        if self._first is None:
            self._first = now, progress
        first_at, first_progress = self._first
        gained = progress - first_progress
        return (1.0 - progress) * (now - first_at) / gained if gained > 0.0 else None


def time_left_text(left_s: float | None) -> str:
    """Returns the remaining time as the end of a line; empty for None."""
    return "" if left_s is None else f", about {format_duration(left_s)} left"


def draw(
    title: str, status: Status | None, problems: Sequence[str], elapsed_s: float, left_s: float | None = None
) -> RenderableType:
    """Returns the table for one status."""
    parts: list[RenderableType] = [Text(f"{title}  {format_duration(elapsed_s)}{time_left_text(left_s)}", style="bold")]
    if status is None:
        parts.append(Text("waiting for the replay server", style="yellow"))
    else:
        table = Table.grid(padding=(0, 2))
        if status.learner:
            table.add_row(
                Text("budget", style="dim"), ProgressBar(total=1.0, completed=status.learner.progress, width=40)
            )
        for name, value in status_rows(status):
            # Text, not markup, because messages of an environment may contain brackets.
            table.add_row(Text(name, style="dim"), Text(value))
        parts.append(table)
    parts.extend(Text(problem, style="yellow") for problem in problems)
    return Group(*parts)


def status_rows(status: Status) -> list[tuple[str, str]]:
    """Returns the rows that show a status: names and values as text."""
    learner = status.learner
    shown = [
        ("progress", _progress(learner)),
        ("return", _return_text(status)),
        *_score_row(learner),
        ("env steps", f"{status.inserts:,} ({status.inserts_per_s:,.0f}/s)"),
        ("updates", f"{learner.updates:,} ({learner.updates_per_s:,.0f}/s)" if learner else "-"),
        ("samples per insert", f"{_number(status.samples_per_insert)} ({_target_text(status)})"),
        ("policy lag", f"{_number(status.policy_lag)} versions"),
        ("replay", f"{status.size:,} of {status.capacity:,}, {status.durability}"),
        ("actors", _actors(status)),
    ]
    if status.worker_restarts:
        shown.append(("worker restarts", f"{status.worker_restarts}, last: {status.last_fault}"))
    shown += _learner_rows(status)
    if learner and learner.last_checkpoint_s >= 0:
        shown.append(("checkpoint", f"{learner.last_checkpoint_s:.0f} s ago"))
    if any(_is_rate_limited(wait) for wait in status.waiting):
        shown.append(("pace", _rate_limited_text(status)))
    if waits := [wait for wait in status.waiting if not _is_rate_limited(wait)]:
        shown.append(("waiting", "\n".join(waits)))
    if learner and learner.warnings:
        shown.append(("warning", "\n".join(learner.warnings)))
    if status.last_error:
        shown.append(("last error", status.last_error))
    reported = [status.software, *(actor.software for actor in status.actors), learner.software if learner else ""]
    if len(versions := sorted(set(reported) - {""})) > 1:
        shown.append(("software", f"differs: {', '.join(versions)}"))
    return shown


def _score_row(learner: LearnerReport | None) -> list[tuple[str, str]]:
    """Returns the row of the newest evaluation; empty before the first."""
    found = learner.evaluation if learner else None
    if found is None:
        return []
    at = f"at {found.env_steps:,} env steps, without exploration"
    if found.side_returns:
        sides = ", ".join(f"{side} {_number(value)}" for side, value in found.side_returns.items())
        return [("score", f"{sides} {at}")]
    best = f"; best {_number(found.best_return)} at {found.best_env_steps:,}"
    return [("score", f"{_number(found.return_mean)} {at}{best}")]


def _actors(status: Status) -> str:
    """Returns the number of actors, and the activity of busy ones."""
    busy = [f"{actor.actor}: {actor.doing}" for actor in status.actors if actor.doing]
    more = [f"{len(busy) - MAX_BUSY_SHOWN} more"] if len(busy) > MAX_BUSY_SHOWN else []
    return "; ".join([str(status.actor_count), *busy[:MAX_BUSY_SHOWN], *more])


def _is_rate_limited(wait: str) -> bool:
    """Returns whether a wait is normal: the learner is the bottleneck, and the rate limiter slows the actors down."""
    match = _RATE_LIMITED.fullmatch(wait)
    return match is not None and int(match[2]) < STALL_S


def _free_ratio(status: Status) -> ReplaySpec | None:
    """Returns the replay settings of a run with `samples_per_insert = auto`; None if the ratio is fixed.

    A replay server with a number, or a run in lockstep, replaces auto by that number.
    """
    replay = status.run.spec.replay if status.run else None
    is_free = replay is not None and replay.is_auto and status.target_samples_per_insert == replay.max_ratio
    return replay if is_free else None


def _target_text(status: Status) -> str:
    """Returns the target of samples per insert; for `auto` its bounds, and which side is the bottleneck now."""
    replay = _free_ratio(status)
    if replay is None:
        return f"target {status.target_samples_per_insert:g}"
    bounds = f"auto: {replay.min_ratio:g} to {replay.max_ratio:g}"
    if not status.samples:
        return bounds
    if any(wait.startswith("learner waiting") for wait in status.waiting):
        return f"{bounds}; the learner waits for actors at one update per environment step"
    if any(_is_rate_limited(wait) for wait in status.waiting):
        return f"{bounds}; actors wait for the learner"
    return f"{bounds}; neither side waits"


def _rate_limited_text(status: Status) -> str:
    replay = _free_ratio(status)
    ratio = f"{replay.min_ratio if replay else status.target_samples_per_insert:g} samples per insert"
    return f"the learner is the bottleneck (normal): actors are held to {ratio}"


def _learner_rows(status: Status) -> list[tuple[str, str]]:
    """Returns the rows that show the learner's training time and its activity."""
    learner, shown = status.learner, []
    if learner is None:
        return []
    budget_s = status.run.spec.budget.seconds if status.run else 0.0
    if budget_s:
        paused = f", paused (not charged to --time): waiting for {learner.paused}" if learner.paused else ""
        shown.append(("time", f"{format_duration(learner.trained_s)} of {format_duration(budget_s)}{paused}"))
    if learner.doing:
        shown.append(("learner", learner.doing))
    return shown


def no_episode_ended(status: Status) -> bool:
    """Returns whether no episode has ended, once the reports that count episodes cover half of the steps."""
    reported = sum(actor.env_steps for actor in status.actors)
    return not status.episodes and 0 < status.inserts <= 2 * reported


def _return_text(status: Status) -> str:
    """Returns the mean return, and the team's return if all agents share their reward."""
    agents = len(status.return_means)
    if no_episode_ended(status):
        return "- (no episode has ended yet)"
    if not (status.shared_reward and agents > 1):
        return f"{_number(status.return_mean)} (last episodes, with exploration)"
    team = _number(status.return_mean / agents)
    summed = _number(status.return_mean)
    return f"{summed} summed over agents; shared reward: {team} for the team (last episodes, with exploration)"


def learner_activity(learner: LearnerReport, seconds_since_seen: float) -> str:
    """Returns what the learner does, according to its last report."""
    if learner.finished:
        return "finished"
    if learner.doing and not learner.doing.startswith("warming up"):
        return learner.doing
    if seconds_since_seen > SILENT_S:
        return "no report since then"
    return f"waiting for {learner.waiting_for}" if learner.waiting_for else "training"


def _progress(learner: LearnerReport | None) -> str:
    if learner is None:
        return "no learner"
    return f"{learner.progress:.0%}{', finished' if learner.finished else ''}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.2f}"
