"""Options and progress display shared by the commands that play episodes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Annotated, Any, Protocol, Self

from msgspec import Meta
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from actor_node.evaluation.episodes import Watcher
from actor_node.evaluation.rollouts import FOREIGN_COPIES, PlayOptions
from actor_node.evaluation.task import is_foreign
from common.errors import ShoalError
from common.run.run import RunSpec
from common.worlds import is_batched
from shoal.number_format import duration

LINE_PERIOD_S = 10.0
ProcessesOption = Annotated[
    int,
    Meta(
        ge=0,
        le=4096,
        description="Processes that play, in a world that is not batched; 0 is the number of actors in training, at "
        "most one per core.",
    ),
]
CopiesOption = Annotated[
    int,
    Meta(
        ge=0,
        le=65_536,
        description="Most world copies in one process [copies]; 0 is the number in training.",
    ),
]
MaxEpisodeStepsOption = Annotated[
    int,
    Meta(ge=0, description="Truncate an episode after this length [steps]; 0 is the limit in training."),
]


class EvaluationStopped(ShoalError):  # noqa: N818  (a request, not a mistake)
    """Raised when a stop is requested during an evaluation."""


class PlayConfig(Protocol):
    """Settings of a command that plays episodes."""

    @property
    def processes(self) -> int:
        """Number of processes that play; 0 means as in training."""
        ...

    @property
    def copies(self) -> int:
        """Most copies in one process; 0 means as in training."""
        ...

    @property
    def max_episode_steps(self) -> int:
        """Longest episode [steps]; 0 means as in training."""
        ...


def play_options(spec: RunSpec, config: PlayConfig, launch: Mapping[str, Any]) -> PlayOptions:
    """Returns the processes and copies to play with: as configured, by default no more than in training.

    launch: the launch settings that `shoal train` recorded; empty for a run that was started otherwise.
    """
    copies, processes = config.copies, config.processes
    if is_foreign(spec) and not is_batched(spec.scenario):
        copies = copies or min(_count(launch, "copies", FOREIGN_COPIES), FOREIGN_COPIES)
        # A run trained on a cluster may have had more actors than this machine has cores.
        processes = processes or min(_count(launch, "actors", 1), os.cpu_count() or 1)
    return PlayOptions(processes=processes, copies=copies, max_steps=config.max_episode_steps)


def _count(launch: Mapping[str, Any], name: str, default: int) -> int:
    value = launch.get(name)
    return value if isinstance(value, int) and value > 0 else default


class ProgressWatcher(Watcher):
    """Shows the progress of an evaluation: a bar on a terminal, elsewhere a line every ten seconds."""

    def __init__(
        self, screen: Console, text: str, stopped: Callable[[], bool] = lambda: False, *, quiet: bool = False
    ) -> None:
        """`text` is printed at the start and labels the bar; quiet: no output outside a terminal but a long silence."""
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

    def say(self, text: str) -> None:
        """Prints a line."""
        if not self._quiet:
            self._print(text)

    def tick(self, playing: int = 0) -> None:
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
