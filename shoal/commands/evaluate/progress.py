"""The progress display of the commands that play episodes."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from actor_node.evaluation.rollouts.episodes import Watcher
from common.errors import ShoalError
from shoal.number_format import duration

LINE_PERIOD_S = 10.0


class EvaluationStopped(ShoalError):  # noqa: N818  (a request, not a mistake)
    """Raised when a stop is requested during an evaluation."""


class ProgressWatcher(Watcher):
    """Shows the progress of an evaluation: a bar on a terminal, elsewhere a line every ten seconds."""

    def __init__(
        self, screen: Console, text: str, stopped: Callable[[], bool] = lambda: False, *, quiet: bool = False
    ) -> None:
        """Creates a display.

        text: label of the bar, also printed at the start. quiet: without a terminal, print only long silences.
        """
        self._screen, self._text, self._stopped, self._quiet = screen, text, stopped, quiet
        self._bar = Progress(console=screen, transient=True, disable=not screen.is_terminal)
        self._started_at = self._printed_at = self._done_at = time.monotonic()
        self._done = 0

    def __enter__(self) -> Self:
        """Starts the display."""
        self._bar.start()
        self._task = self._bar.add_task(escape(self._text), total=None)
        if not self._screen.is_terminal and not self._quiet:
            self._print(self._text)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the display."""
        self._bar.stop()

    def done(self, episodes: int, total: int) -> None:
        """Shows the number of finished episodes."""
        now = self._done_at = time.monotonic()
        self._done = episodes
        self._bar.update(self._task, completed=episodes, total=total, description=self._text)
        if not self._screen.is_terminal and now - self._printed_at >= LINE_PERIOD_S and episodes < total:
            self._printed_at = now
            left_s = (now - self._started_at) / episodes * (total - episodes)
            self._print(f"{episodes:,} of {total:,} episodes, about {duration(left_s)} left")

    def notify(self, text: str) -> None:
        """Prints a line."""
        if not self._quiet:
            self._print(text)

    def poll(self, playing: int = 0) -> None:
        """Raises EvaluationStopped after a stop request; reports when no episode has ended for LINE_PERIOD_S."""
        if self._stopped():
            raise EvaluationStopped(f"stopped after {self._done:,} episodes")
        now = time.monotonic()
        if now - max(self._printed_at, self._done_at) < LINE_PERIOD_S:
            return
        self._printed_at = now
        running = f"; {playing:,} running" if playing else ""
        silence = f"no episode has ended for {now - self._done_at:.0f} s{running}, {self._done:,} done"
        if self._screen.is_terminal:
            self._bar.update(self._task, description=f"{self._text}: {silence}")
        else:
            self._print(silence)

    def _print(self, text: str) -> None:
        self._screen.print(text, soft_wrap=True, markup=False, highlight=False)
