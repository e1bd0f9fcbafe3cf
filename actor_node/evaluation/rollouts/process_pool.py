"""Rollouts of an environment that is not batched, in processes: the parent's side. `play_process.py` is the child's.

    parent: hands out episode numbers in order          child: copies of the environment (copies.py)
       <-- ready -----------------------------------------  its imports are done
       --- task ----------------------------------------->  makes its copies
       <-- request ---------------------------------------  a copy is free
       --- number, or None for no more episodes --------->  plays the episode
       <-- report: the episode or its failure ------------
       <-- leaving ---------------------------------------  plays no more episodes; closes its copies and ends

| waits for                     | ended by                                                                           |
|-------------------------------|------------------------------------------------------------------------------------|
| parent: any child's message   | the message, the child's end; polled every 0.1 s; the watcher counts the episodes  |
| child: its task, a number     | the parent's answer, or the parent's end                                           |
| parent: children to end       | their end; SIGKILL 5 s after `leaving` or SIGTERM, to all at the same time         |

A child is a separate program (`python -m actor_node.evaluation.rollouts.play_process`), not a copy of the parent
(common/process/children/child_process.py).
"""

from __future__ import annotations

import contextlib
import math
import subprocess
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import NamedTuple

import msgspec

from actor_node.evaluation.rollouts.episodes import Actor, Episode, Watcher
from actor_node.evaluation.rollouts.schedule import EpisodeSchedule, PlayLimits
from common.errors import ConfigError, ShoalError, WorldError
from common.process.children.child_process import ChildProcess
from common.worlds import World

END_TIMEOUT_S = 5.0
"""Time in which a child must close its environments and end [s]."""
READY, REQUEST, LEAVING = b"ready", b"request", b"leaving"
_POLL_S = 0.1


class PoolTask(NamedTuple):
    """A team and the episodes that a child process plays, sent pickled through a pipe that this program made."""

    make: Callable[[int], World]
    """Makes a world of one copy with the given seed."""
    make_actor: Callable[[], Actor]
    seed: int
    """Seed of the first episode; episode e has seed + e."""
    limits: PlayLimits


class PlayReport(msgspec.Struct, frozen=True):
    """A message of a child process."""

    episode: Episode | None = None
    note: str = ""
    """A line for the user."""
    refusal: str = ""
    """Why the child cannot start."""
    is_config: bool = False
    """Whether the refusal is a ConfigError."""


class ProcessPool:
    """Plays episodes 0, 1, ... in child processes; episode e starts from `reset(seed=task.seed + e)`.

    Example: episodes = ProcessPool(task, watcher).run()
    """

    def __init__(self, task: PoolTask, watcher: Watcher) -> None:
        self._task, self._watcher = task, watcher
        self._schedule = EpisodeSchedule(task.limits, watcher)
        self._children: list[_Child] = []
        self._refusal: ShoalError | None = None
        self._notes: set[str] = set()

    def run(self) -> list[Episode]:
        """Plays until enough episodes are played or every child has ended; returns the results with the failures.

        Raises WorldError if no world can be made, ConfigError if the world refuses its options.
        """
        limits, schedule = self._task.limits, self._schedule
        # A child without an episode would make its copies for nothing.
        needed = min(limits.processes, limits.most_episodes)
        try:
            for _ in range(needed):
                self._children.append(_Child())
            while self._children:
                self._watcher.poll(sum(len(child.playing) for child in self._children))
                by_pipe = {child.pipe: child for child in self._children if child.left_at == math.inf}
                for ready in wait(list(by_pipe), _POLL_S):
                    self._receive(by_pipe[ready])  # type: ignore[index]
                for child in [child for child in self._children if child.is_over]:
                    self._remove(child)
        finally:
            _end(self._children)
        if self._refusal is not None and not schedule.episodes:
            raise self._refusal
        if schedule.has_next and schedule.episodes:
            why = f" ({str(self._refusal).splitlines()[0]})" if self._refusal is not None else ""
            played, expected = len(schedule.episodes), schedule.expected()
            self._watcher.notify(f"played {played:,} of {expected:,} episodes: every evaluation process has ended{why}")
        return schedule.episodes

    def _receive(self, child: _Child) -> None:
        try:
            message = child.pipe.recv_bytes()
            if message == READY:
                child.pipe.send(self._task)
        except (EOFError, OSError):
            message = LEAVING
        if message == LEAVING:
            child.left_at = time.monotonic()
        elif message == REQUEST:
            self._answer(child)
        elif message != READY:
            self._receive_report(child, msgspec.msgpack.decode(message, type=PlayReport))

    def _answer(self, child: _Child) -> None:
        schedule = self._schedule
        if not schedule.episodes and not any(other.playing for other in self._children):
            schedule.started_at = time.monotonic()
        number = schedule.next_number()
        if number is not None:
            child.playing.add(number)
            child.has_started = True
        with contextlib.suppress(OSError):  # the child has died, which is noticed next
            child.pipe.send_bytes(msgspec.msgpack.encode(number))

    def _receive_report(self, child: _Child, report: PlayReport) -> None:
        if report.note:
            self._notify_once(report.note)
        if report.refusal:
            self._refusal = (ConfigError if report.is_config else WorldError)(report.refusal)
        if report.episode is not None:
            child.playing.discard(report.episode.number)
            self._schedule.add(report.episode)

    def _remove(self, child: _Child) -> None:
        """Counts the episodes of a child that ended as failed, and starts another child if one is needed."""
        self._children.remove(child)
        has_hung = child.process.poll() is None
        code = child.kill()
        if has_hung:
            self._notify_once(
                f"an evaluation process did not close its environments within {END_TIMEOUT_S:.0f} s and was killed"
            )
        for number in sorted(child.playing):
            failure = f"the process that played the episode ended with exit code {code}"
            self._schedule.add(Episode(number, failure=failure))
        # A child that failed after it had started an episode is replaced; one that cannot start is not.
        if code and child.has_started and self._schedule.has_next:
            self._children.append(_Child())

    def _notify_once(self, text: str) -> None:
        if text not in self._notes:
            self._notes.add(text)
            self._watcher.notify(text)


class _Child(ChildProcess):
    """One child process and the episodes that it plays."""

    def __init__(self) -> None:
        super().__init__("actor_node.evaluation.rollouts.play_process")
        self.playing: set[int] = set()
        """Numbers of the episodes in progress."""
        self.has_started = False
        """Whether it has started an episode."""
        self.left_at = math.inf
        """When it sent `leaving` [s]; infinite before."""

    @property
    def is_over(self) -> bool:
        """Whether the child has ended, or its time to end has passed; its messages are received first.

        The pipe's end alone does not tell: a process that the environment forked may hold the pipe open.
        """
        if time.monotonic() - self.left_at >= END_TIMEOUT_S:
            return True
        return self.process.poll() is not None and (self.left_at < math.inf or not self.pipe.poll())


def _end(children: list[_Child]) -> None:
    """Ends all children at the same time: SIGTERM, and SIGKILL to those that have not ended within END_TIMEOUT_S."""
    for child in children:
        child.pipe.close()
        child.process.terminate()
    end_at = time.monotonic() + END_TIMEOUT_S
    try:
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(end_at - time.monotonic(), 0.0))
    finally:
        for child in children:
            child.kill()
