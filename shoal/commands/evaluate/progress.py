"""What commands that play episodes have in common: their options, and what they show meanwhile."""

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

LINE_PERIOD_S = 10.0
ProcessesOption = Annotated[
    int,
    Meta(
        ge=0,
        le=4096,
        description="Processes that play a world that is not batched.  [default: as many as actors trained, "
        "at most one a core]",
    ),
]
CopiesOption = Annotated[
    int,
    Meta(
        ge=0,
        le=65_536,
        description="Copies of the world in one process, at most.  [default: never more than in training]",
    ),
]
MaxEpisodeStepsOption = Annotated[
    int,
    Meta(ge=0, description="Cut an episode off as truncated after this number of steps.  [default: as in training]"),
]


class EvaluationStopped(ShoalError):  # noqa: N818  (a request, not a mistake)
    """Says that a stop was asked for while episodes were played."""


class PlayConfig(Protocol):
    """Settings of a command that plays."""

    @property
    def processes(self) -> int:
        """0 = as in training."""
        ...

    @property
    def copies(self) -> int:
        """0 = as in training."""
        ...

    @property
    def max_episode_steps(self) -> int:
        """0 = as in training."""
        ...


def play_options(spec: RunSpec, config: PlayConfig, launch: Mapping[str, Any]) -> PlayOptions:
    """Returns who plays: what the command says, else no more processes and copies than training had, and cores.

    launch: what `shoal train` noted of how the run was started; empty of a run that was started otherwise.
    """
    copies, processes = config.copies, config.processes
    if is_foreign(spec):
        copies = copies or min(_count(launch, "copies", FOREIGN_COPIES), FOREIGN_COPIES)
        # Who trained on a cluster has not all its cores here.
        processes = processes or min(_count(launch, "actors", 1), os.cpu_count() or 1)
    return PlayOptions(processes=processes, copies=copies, max_steps=config.max_episode_steps)


def _count(launch: Mapping[str, Any], name: str, default: int) -> int:
    value = launch.get(name)
    return value if isinstance(value, int) and value > 0 else default


class ProgressWatcher(Watcher):
    """Shows how play goes: a bar on a terminal, elsewhere a line every ten seconds."""

    def __init__(
        self, screen: Console, doing: str, stopped: Callable[[], bool] = lambda: False, *, quiet: bool = False
    ) -> None:
        """Takes what is said at the start; quiet: says it on a terminal only, as the bar's name."""
        self._screen, self._doing, self._stopped, self._quiet = screen, doing, stopped, quiet
        self._bar = Progress(console=screen, transient=True, disable=not screen.is_terminal)
        self._began_at = self._said_at = self._done_at = time.monotonic()
        self._done = 0

    def __enter__(self) -> Self:
        """Begins to show."""
        self._bar.start()
        self._task = self._bar.add_task(escape(self._doing), total=None)
        if not self._screen.is_terminal and not self._quiet:
            self._print(self._doing)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends what is shown."""
        self._bar.stop()

    def done(self, episodes: int, total: int) -> None:
        """Shows how far it has come."""
        now = self._done_at = time.monotonic()
        self._done = episodes
        self._bar.update(self._task, completed=episodes, total=total, description=self._doing)
        if not self._screen.is_terminal and now - self._said_at >= LINE_PERIOD_S and episodes < total:
            self._said_at = now
            left_s = (now - self._began_at) / episodes * (total - episodes)
            minutes, seconds = divmod(round(left_s), 60)
            self._print(f"{episodes:,} of {total:,} episodes, about {minutes}:{seconds:02} to go")

    def say(self, text: str) -> None:
        """Prints a line."""
        if not self._quiet:
            self._print(text)

    def tick(self, playing: int = 0) -> None:
        """Raises EvaluationStopped after a stop request; says for how long no episode has ended, if that is long."""
        if self._stopped():
            raise EvaluationStopped(f"stopped after {self._done:,} episodes")
        now = time.monotonic()
        if now - max(self._said_at, self._done_at) < LINE_PERIOD_S:
            return
        self._said_at = now
        begun = f"; {playing:,} being played" if playing else ""
        silence = f"no episode has ended for {now - self._done_at:.0f} s{begun}, {self._done:,} done"
        if self._screen.is_terminal:
            self._bar.update(self._task, description=f"{self._doing}: {silence}")
        else:
            self._print(silence)

    def _print(self, text: str) -> None:
        self._screen.print(text, soft_wrap=True, markup=False, highlight=False)
