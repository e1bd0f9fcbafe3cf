"""Episodes of an environment that is not batched, played by processes of their own.

    parent: hands out episode numbers in order          child: worlds side by side (copy_rollouts.py)
       <-- ready -----------------------------------------  its imports are done
       --- task ----------------------------------------->  makes its copies
       <-- take ------------------------------------------  a copy is free
       --- number, or none is left ---------------------->  plays it
       <-- the episode, or what it failed with -----------
       <-- leaving ---------------------------------------  plays no more; closes its copies and ends

| waits for                     | frees it                                                                         |
|-------------------------------|----------------------------------------------------------------------------------|
| parent: any child's message   | the message, the child's end; looks every 0.1 s; the watcher names what plays     |
| child: its task, a number     | the parent's answer, or its end                                                  |
| parent: children to end       | their end; SIGKILL 5 s after they leave or are told to end, all at the same time  |

A child is a program of its own (`python -m actor_node.evaluation.play_process`), not a copy of the parent
(common/process/child_process.py).
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

import msgspec

from actor_node.collector import Interrupted
from actor_node.evaluation.batched_rollouts import Actor, Episode, Watcher
from actor_node.evaluation.copy_rollouts import CopySet, play_side_by_side, words_of
from common.errors import ConfigError, ShoalError, WorldError
from common.process.child_process import ChildProcess, keep_for_itself
from common.process.parent import die_with_parent
from common.worlds import World

LEAST_EPISODES, MOST_EPISODES = 20, 1_000
"""Where the time decides how many are played."""
_LOOK_S = 0.1
_END_S = 5.0
_FORECAST_AFTER_S = 5.0
_READY, _TAKE, _LEAVING = b"ready", b"take", b"leaving"


class Extent(NamedTuple):
    """How many episodes are played, by whom."""

    episodes: int
    """0 = as many as begin within the time, from LEAST_EPISODES to MOST_EPISODES."""
    within_s: float
    processes: int
    """0 = in this process."""
    copies: int
    """Of each process, at most."""
    max_steps: int
    """Of an episode; 0 = as the world ends it."""
    at_most: int = MOST_EPISODES
    """Where the time decides: no more than these."""

    @property
    def most_failures(self) -> int:
        """Episodes that may fail while none has been played: more are not tried. Those that fail early come first."""
        return LEAST_EPISODES + 2 * self.copies * max(self.processes, 1)

    @property
    def most(self) -> int:
        """Episodes that may be played."""
        return self.episodes or self.at_most


class ProcessEnded(NamedTuple):
    """What came of it."""

    episodes: list[Episode]
    copies: int
    """The most that one process had."""


class PoolTask(NamedTuple):
    """What a process needs to play; goes to it pickled, by a pipe that this program made."""

    make: Callable[[int], World]
    make_team: Callable[[], Actor]
    seed: int
    extent: Extent


class _Sheet:
    """Who plays what, what has come of it, and how long the rest will take."""

    def __init__(self, extent: Extent, watcher: Watcher) -> None:
        self._extent, self._watcher = extent, watcher
        self._next = 0
        self._forecast_given = False
        self.began_at = time.monotonic()
        self.found: list[Episode] = []
        self.played = 0

    def take(self) -> int | None:
        """Returns the next episode's number; None where enough have begun."""
        if not self.is_left:
            return None
        self._next += 1
        return self._next - 1

    @property
    def is_left(self) -> bool:
        """Whether another episode shall begin."""
        extent = self._extent
        failures = len(self.found) - self.played
        late = time.monotonic() - self.began_at >= extent.within_s
        time_is_up = not extent.episodes and self._next >= LEAST_EPISODES and late
        return self._next < extent.most and not time_is_up and (self.played > 0 or failures < extent.most_failures)

    def give(self, episode: Episode) -> None:
        """Notes an episode."""
        self.found.append(episode)
        self.played += not episode.failure
        self._watcher.done(len(self.found), self.expected())
        self._forecast()

    def expected(self) -> int:
        """Returns how many episodes there will be, as far as is known."""
        extent = self._extent
        if extent.episodes or not self.found:
            return extent.most
        fitting = math.ceil(len(self.found) / max(time.monotonic() - self.began_at, 1e-3) * extent.within_s)
        return min(max(fitting, LEAST_EPISODES, len(self.found)), extent.most)

    def _forecast(self) -> None:
        passed, count = time.monotonic() - self.began_at, len(self.found)
        if self._forecast_given or (count < LEAST_EPISODES and passed < _FORECAST_AFTER_S):
            return
        self._forecast_given = True
        total = self.expected()
        expected_s = passed / count * total
        if expected_s < _FORECAST_AFTER_S:
            return
        minutes, seconds = divmod(round(expected_s), 60)
        on = "1 process" if self._extent.processes < 2 else f"{self._extent.processes} processes"
        self._watcher.say(f"about {minutes}:{seconds:02} for {total:,} episodes on {on}")


def play_in_processes(
    make: Callable[[int], World], make_team: Callable[[], Actor], seed: int, extent: Extent, watcher: Watcher
) -> ProcessEnded:
    """Plays episodes 0, 1, ... of an environment; episode e starts from `reset(seed=seed + e)`.

    make: makes a world of one copy with a seed of its own; with processes it and make_team go to them, pickled.
    Raises WorldError where no world can be made, ConfigError where the world refuses its options.
    """
    sheet = _Sheet(extent, watcher)
    if extent.processes:
        return _Parent(PoolTask(make, make_team, seed, extent), watcher, sheet).run()
    worlds = _Made(make, extent.copies)
    try:
        if worlds.worlds.note:
            watcher.say(worlds.worlds.note)
        play_side_by_side(
            worlds.worlds, make_team, seed, extent.max_steps, take=sheet.take, give=sheet.give, tick=watcher.tick
        )
    finally:
        worlds.worlds.close()
    return ProcessEnded(sheet.found, worlds.worlds.copies)


class _Made:
    """Worlds side by side, each made with another seed."""

    def __init__(self, make: Callable[[int], World], copies: int) -> None:
        self._make, self._count = make, 0
        try:
            self.worlds = CopySet(self._next, copies)
        except ShoalError:
            raise
        except Exception as e:
            raise WorldError(f"the environment could not be made: {words_of(e)}") from e

    def _next(self) -> World:
        self._count += 1
        return self._make(self._count)


class _Child(ChildProcess):
    """One process and what it has in hand."""

    def __init__(self) -> None:
        super().__init__("actor_node.evaluation.play_process")
        self.in_hand: set[int] = set()
        self.has_begun = False
        """Whether it has begun an episode."""
        self.left_at = math.inf
        """When it said that it plays no more; infinite before."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or has had its time to; what it said before is heard first.

        Its end is not always heard: a process that the environment forked may hold the pipe.
        """
        if time.monotonic() - self.left_at >= _END_S:
            return True
        return self.process.poll() is not None and (self.left_at < math.inf or not self.pipe.poll())


class _Parent:
    """Hands out episodes to processes and hears what came of them."""

    def __init__(self, task: PoolTask, watcher: Watcher, sheet: _Sheet) -> None:
        self._task, self._watcher, self._sheet = task, watcher, sheet
        self._children: list[_Child] = []
        self._refused: ShoalError | None = None
        self._notes: set[str] = set()
        self._copies = 0

    def run(self) -> ProcessEnded:
        """Plays until enough are played or no process is left."""
        extent = self._task.extent
        # A process for which there will be no episode would make its copies for nothing.
        needed = min(extent.processes, extent.most)
        try:
            for _ in range(needed):
                self._children.append(_Child())
            while self._children:
                self._watcher.tick(sum(len(child.in_hand) for child in self._children))
                by_pipe = {child.pipe: child for child in self._children if child.left_at == math.inf}
                for ready in wait(list(by_pipe), _LOOK_S):
                    self._hear(by_pipe[ready])  # type: ignore[index]
                for child in [child for child in self._children if child.is_over]:
                    self._bury(child)
        finally:
            _end(self._children)
        if self._refused is not None and not self._sheet.found:
            raise self._refused
        if self._sheet.is_left and self._sheet.found:
            why = f" ({str(self._refused).splitlines()[0]})" if self._refused is not None else ""
            begun, meant = len(self._sheet.found), self._sheet.expected()
            self._watcher.say(f"{begun:,} of {meant:,} episodes were begun: no process is left that plays{why}")
        return ProcessEnded(self._sheet.found, self._copies)

    def _hear(self, child: _Child) -> None:
        try:
            message = child.pipe.recv_bytes()
            if message == _READY:
                child.pipe.send(self._task)
        except (EOFError, OSError):
            message = _LEAVING
        if message == _LEAVING:
            child.left_at = time.monotonic()
        elif message == _TAKE:
            self._answer(child)
        elif message != _READY:
            self._note(child, msgspec.msgpack.decode(message, type=_Told))

    def _bury(self, child: _Child) -> None:
        """Counts what a process had in hand when it ended as failed, and starts another where one is needed."""
        self._children.remove(child)
        has_hung = child.process.poll() is None
        code = child.kill()
        if has_hung:
            self._say_once(f"a process that plays did not close its environments within {_END_S:.0f} s; killed")
        for number in sorted(child.in_hand):
            self._sheet.give(Episode(number, failure=f"the process that played it ended with code {code}"))
        # One that has begun an episode before it failed is worth another; one that cannot begin is not.
        if code and child.has_begun and self._sheet.is_left:
            self._children.append(_Child())

    def _answer(self, child: _Child) -> None:
        if not self._sheet.found and not any(other.in_hand for other in self._children):
            self._sheet.began_at = time.monotonic()
        number = self._sheet.take()
        if number is not None:
            child.in_hand.add(number)
            child.has_begun = True
        with contextlib.suppress(OSError):  # it has died; its end is heard next
            child.pipe.send_bytes(msgspec.msgpack.encode(number))

    def _say_once(self, text: str) -> None:
        if text not in self._notes:
            self._notes.add(text)
            self._watcher.say(text)

    def _note(self, child: _Child, told: _Told) -> None:
        self._copies = max(self._copies, told.copies)
        if told.note:
            self._say_once(told.note)
        if told.refusal:
            self._refused = (ConfigError if told.is_config else WorldError)(told.refusal)
        if told.episode is not None:
            child.in_hand.discard(told.episode.number)
            self._sheet.give(told.episode)


class _Told(msgspec.Struct, frozen=True):
    """What a child says."""

    episode: Episode | None = None
    copies: int = 0
    note: str = ""
    refusal: str = ""
    """Why it cannot begin."""
    is_config: bool = False


def _end(children: list[_Child]) -> None:
    """Ends processes, all at the same time: asks them, and kills them where they have not ended by then."""
    for child in children:
        child.pipe.close()
        child.process.terminate()
    end_at = time.monotonic() + _END_S
    try:
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(end_at - time.monotonic(), 0.0))
    finally:
        for child in children:
            child.kill()


def play_for(pipe: Connection, parent: int) -> None:
    """Plays for the parent, a process id: takes a task from the pipe, and answers there.

    Raises Interrupted once the process shall end, EOFError or OSError where the parent is gone.
    """
    keep_for_itself(pipe)
    # SIGTERM unwinds, so that environments are closed.
    signal.signal(signal.SIGTERM, _leave)
    die_with_parent(parent)
    pipe.send_bytes(_READY)
    task: PoolTask = pipe.recv()
    first_seed = os.getpid() * 1_000

    def tell(told: _Told) -> None:
        pipe.send_bytes(msgspec.msgpack.encode(told))

    def take() -> int | None:
        pipe.send_bytes(_TAKE)
        number: int | None = msgspec.msgpack.decode(pipe.recv_bytes(), type=int | None)
        return number

    try:
        made = _Made(lambda count: task.make(first_seed + count), task.extent.copies)
    except ShoalError as e:
        tell(_Told(refusal=str(e), is_config=isinstance(e, ConfigError)))
        return
    worlds = made.worlds
    tell(_Told(copies=worlds.copies, note=worlds.note))
    try:
        play_side_by_side(
            worlds,
            task.make_team,
            task.seed,
            task.extent.max_steps,
            take=take,
            give=lambda episode: tell(_Told(episode=episode)),
        )
        pipe.send_bytes(_LEAVING)
    finally:
        # Before what may hang: the parent hears that this process plays no more.
        pipe.close()
        worlds.close()


def _leave(*_: object) -> None:
    """Breaks off whatever runs; where that does not end the process in time, the kernel does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(_END_S))
    raise Interrupted
