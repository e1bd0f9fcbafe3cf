"""What a user sees while a run trains: a table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.wire.messages import LearnerReport, Status
from learner_node.inputs import first_words

LINE_PERIOD_S = 10.0
MOST_BUSY_SHOWN = 2
SILENT_S = 10.0
"""Of a learner, which reports once a second: longer, and nothing is known of what it does."""


class Display(Protocol):
    """Shows how a run goes."""

    def show(self, status: Status | None, troubles: Sequence[str]) -> None:
        """Shows the newest status; None when the replay server does not answer."""

    def say(self, text: str) -> None:
        """Prints something once, at once: a failure with its lines, what is waited for."""

    def close(self) -> None:
        """Ends the display; what it showed last stays."""


def make_display(console: Console, title: str) -> Display:
    """Returns a live table on a terminal, else lines."""
    return LiveTable(console, title) if console.is_terminal else LineDisplay(console)


class LiveTable:
    """A table that is drawn over itself."""

    def __init__(self, console: Console, title: str) -> None:
        self._title, self._started_at = title, time.monotonic()
        self._left = TimeLeft()
        self._live = Live(Text(f"{title}: starting"), console=console, refresh_per_second=4)
        self._live.start()

    def show(self, status: Status | None, troubles: Sequence[str]) -> None:
        """Draws the table anew."""
        now = time.monotonic()
        left_s = self._left(status, now)
        self._live.update(draw(self._title, status, troubles, now - self._started_at, left_s))

    def say(self, text: str) -> None:
        """Prints above the table."""
        self._live.console.print(Text(text, style="yellow"), soft_wrap=True)

    def close(self) -> None:
        """Leaves the last table on the screen."""
        self._live.stop()


class LineDisplay:
    """One line every ten seconds, for logs and pipes; troubles at once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started_at = time.monotonic()
        self._said_at = -LINE_PERIOD_S
        self._left = TimeLeft()
        self._troubles: list[str] = []
        self._warned: set[str] = set()

    def show(self, status: Status | None, troubles: Sequence[str]) -> None:
        """Prints a line when one is due."""
        for trouble in troubles:
            if trouble not in self._troubles:
                self._print(trouble)
        self._troubles = list(troubles)
        for warning in status.learner.warnings if status and status.learner else ():
            # A figure in it may change; what it is about does not.
            if (about := first_words(warning)) not in self._warned:
                self._warned.add(about)
                self._print(f"warning: {warning}")
        left = in_words(self._left(status, time.monotonic()))
        if time.monotonic() - self._said_at < LINE_PERIOD_S:
            return
        self._said_at = time.monotonic()
        if status is None:
            self._print("waiting for the replay server")
            return
        if status.learner is None:
            self._print("waiting for the learner to start")
            return
        figures = ", ".join(f"{name} {value}" for name, value in rows(status) if name not in ("waiting", "warning"))
        self._print(figures + left + "".join(f"; {wait}" for wait in status.waiting))

    def say(self, text: str) -> None:
        """Prints it with the time."""
        self._print(text)

    def close(self) -> None:
        """Has nothing to end."""

    def _print(self, text: str) -> None:
        self._console.print(
            f"[{clock(time.monotonic() - self._started_at)}] {text}", markup=False, emoji=False, soft_wrap=True
        )


class TimeLeft:
    """Estimates how long a run still takes, from how far it has come since it was first seen to get on."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None

    def __call__(self, status: Status | None, now: float) -> float | None:
        """Returns seconds; None while there is nothing to tell by."""
        progress = status.learner.progress if status is not None and status.learner else 0.0
        if progress <= 0.0:
            return None
        if self._first is None:
            self._first = now, progress
        began_at, began_with = self._first
        gained = progress - began_with
        return (1.0 - progress) * (now - began_at) / gained if gained > 0.0 else None


def in_words(left_s: float | None) -> str:
    """Returns what is added to a line about the time that is left."""
    return "" if left_s is None else f", about {clock(left_s)} to go"


def draw(
    title: str, status: Status | None, troubles: Sequence[str], elapsed_s: float, left_s: float | None = None
) -> RenderableType:
    """Returns the table of one moment."""
    parts: list[RenderableType] = [Text(f"{title}  {clock(elapsed_s)}{in_words(left_s)}", style="bold")]
    if status is None:
        parts.append(Text("waiting for the replay server", style="yellow"))
    else:
        table = Table.grid(padding=(0, 2))
        if status.learner:
            table.add_row(
                Text("budget", style="dim"), ProgressBar(total=1.0, completed=status.learner.progress, width=40)
            )
        for name, value in rows(status):
            # Text: what an environment says may look like markup.
            table.add_row(Text(name, style="dim"), Text(value))
        parts.append(table)
    parts.extend(Text(trouble, style="yellow") for trouble in troubles)
    return Group(*parts)


def rows(status: Status) -> list[tuple[str, str]]:
    """Returns what is shown of a status: names and values in words."""
    learner = status.learner
    shown = [
        ("progress", _progress(learner)),
        ("return", _return_in_words(status)),
        ("env steps", f"{status.inserts:,} ({status.inserts_per_s:,.0f}/s)"),
        ("updates", f"{learner.updates:,} ({learner.updates_per_s:,.0f}/s)" if learner else "-"),
        (
            "samples per insert",
            f"{_number(status.samples_per_insert)} (target {status.target_samples_per_insert:g})",
        ),
        ("policy lag", f"{_number(status.policy_lag)} versions"),
        ("replay", f"{status.size:,} of {status.capacity:,}, {status.durability}"),
        ("actors", _actors(status)),
    ]
    if status.worker_restarts:
        shown.append(("worker restarts", f"{status.worker_restarts}, last: {status.last_fault}"))
    shown += _of_learner(status)
    if learner and learner.last_checkpoint_s >= 0:
        shown.append(("checkpoint", f"{learner.last_checkpoint_s:.0f} s ago"))
    if status.waiting:
        shown.append(("waiting", "\n".join(status.waiting)))
    if learner and learner.warnings:
        shown.append(("warning", "\n".join(learner.warnings)))
    if status.last_error:
        shown.append(("last error", status.last_error))
    told = [status.software, *(actor.software for actor in status.actors), learner.software if learner else ""]
    if len(versions := sorted(set(told) - {""})) > 1:
        shown.append(("software", f"differs: {', '.join(versions)}"))
    return shown


def _actors(status: Status) -> str:
    """Returns how many there are, and what keeps some of them from the usual pace."""
    busy = [f"{actor.actor}: {actor.doing}" for actor in status.actors if actor.doing]
    more = [f"{len(busy) - MOST_BUSY_SHOWN} more"] if len(busy) > MOST_BUSY_SHOWN else []
    return "; ".join([str(status.actor_count), *busy[:MOST_BUSY_SHOWN], *more])


def _of_learner(status: Status) -> list[tuple[str, str]]:
    """Returns what is shown of the learner's clock and its start: names and values in words."""
    learner, shown = status.learner, []
    if learner is None:
        return []
    budget_s = status.run.spec.budget.seconds if status.run else 0.0
    if budget_s:
        paused = f", paused: not charged to --time: waiting for {learner.paused}" if learner.paused else ""
        shown.append(("time", f"{clock(learner.trained_s)} of {clock(budget_s)}{paused}"))
    if learner.doing:
        shown.append(("learner", learner.doing))
    return shown


def known_to_be_endless(status: Status) -> bool:
    """Returns whether no episode has ended: actors count episodes in their reports, which come after their chunks."""
    reported = sum(actor.env_steps for actor in status.actors)
    return not status.episodes and 0 < status.inserts <= 2 * reported


def _return_in_words(status: Status) -> str:
    """Returns the mean return; where all agents share a reward, as the team's too."""
    agents = len(status.return_means)
    if known_to_be_endless(status):
        return "- (no episode has ended yet)"
    if not (status.shared_reward and agents > 1):
        return f"{_number(status.return_mean)} (last episodes, with exploration)"
    team = _number(status.return_mean / agents)
    summed = _number(status.return_mean)
    return f"{summed} summed over agents; shared reward: {team} for the team (last episodes, with exploration)"


def learner_doing(learner: LearnerReport, seconds_since_seen: float) -> str:
    """Returns what the learner does, as far as its last report tells."""
    if learner.finished:
        return "finished"
    if learner.doing and not learner.doing.startswith("warming up"):
        return learner.doing
    if seconds_since_seen > SILENT_S:
        return "silent since then"
    return f"waiting for {learner.waiting_for}" if learner.waiting_for else "training"


def clock(seconds: float) -> str:
    """Returns a length of time as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _progress(learner: LearnerReport | None) -> str:
    if learner is None:
        return "no learner"
    return f"{learner.progress:.0%}{', finished' if learner.finished else ''}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.2f}"
