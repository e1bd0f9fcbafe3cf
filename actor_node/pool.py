"""Episodes of an environment that is not batched, played by processes of their own.

    parent: hands out episode numbers in order          child: worlds side by side (side_by_side.py)
       <-- take ------------------------------------------  a copy is free
       --- number, or none is left ---------------------->  plays it
       <-- the episode, or what it failed with -----------

| waits for                     | frees it                                                     |
|-------------------------------|--------------------------------------------------------------|
| parent: any child's message   | the message, the child's end; looks around every 0.2 s       |
| child: its task, a number     | the parent's answer, or its end                              |
| parent: children to end       | their end, SIGKILL after 5 s                                 |

A child is a program of its own (`python -m actor_node.play_process`), not a copy of the parent: a script that calls
Shoal need not guard its main part, and nothing of the parent's environment lives on in the child.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

import msgspec

from actor_node.episodes import Acts, Episode, Watcher
from actor_node.side_by_side import SideBySide, play_side_by_side, words_of
from common.errors import ConfigError, ShoalError, WorldError
from common.process import die_with_parent
from common.worlds import World

LEAST_EPISODES, MOST_EPISODES = 20, 1_000
"""Where the time decides how many are played."""
_LOOK_S = 0.2
_END_S = 5.0
_FORECAST_AFTER_S = 5.0
_TAKE = b"take"


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

    @property
    def most_failures(self) -> int:
        """Episodes that may fail while none has been played: more are not tried. Those that fail early come first."""
        return LEAST_EPISODES + 2 * self.copies * max(self.processes, 1)

    @property
    def most(self) -> int:
        """Episodes that may be played."""
        return self.episodes or MOST_EPISODES


class Ended(NamedTuple):
    """What came of it."""

    episodes: list[Episode]
    copies: int
    """The most that one process had."""


class Task(NamedTuple):
    """What a process needs to play; goes to it pickled, by a pipe that this program made."""

    make: Callable[[int], World]
    make_team: Callable[[], Acts]
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
        extent, number = self._extent, self._next
        failures = len(self.found) - self.played
        late = time.monotonic() - self.began_at >= extent.within_s
        time_is_up = not extent.episodes and number >= LEAST_EPISODES and late
        if number >= extent.most or time_is_up or (not self.played and failures >= extent.most_failures):
            return None
        self._next = number + 1
        return number

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
        return min(max(fitting, LEAST_EPISODES, len(self.found)), MOST_EPISODES)

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


def play_apart(
    make: Callable[[int], World], make_team: Callable[[], Acts], seed: int, extent: Extent, watcher: Watcher
) -> Ended:
    """Plays episodes 0, 1, ... of an environment; episode e starts from `reset(seed=seed + e)`.

    make: makes a world of one copy with a seed of its own; with processes it and make_team go to them, pickled.
    Raises WorldError where no world can be made, ConfigError where the world refuses its options.
    """
    sheet = _Sheet(extent, watcher)
    if extent.processes:
        return _Parent(Task(make, make_team, seed, extent), watcher, sheet).run()
    worlds = _Made(make, extent.copies)
    try:
        if worlds.worlds.note:
            watcher.say(worlds.worlds.note)
        play_side_by_side(
            worlds.worlds, make_team, seed, extent.max_steps, take=sheet.take, give=sheet.give, tick=watcher.tick
        )
    finally:
        worlds.worlds.close()
    return Ended(sheet.found, worlds.worlds.copies)


class _Made:
    """Worlds side by side, each made with another seed."""

    def __init__(self, make: Callable[[int], World], copies: int) -> None:
        self._make, self._count = make, 0
        try:
            self.worlds = SideBySide(self._next, copies)
        except ShoalError:
            raise
        except Exception as e:
            raise WorldError(f"the environment could not be made: {words_of(e)}") from e

    def _next(self) -> World:
        self._count += 1
        return self._make(self._count)


class _Child:
    """One process and what it has in hand."""

    def __init__(self, task: Task) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        # -P: like the parent's, its modules are those of sys.path, whatever the working directory holds.
        self.process = subprocess.Popen(  # noqa: S603  (our own argument list, no shell)
            [sys.executable, "-P", "-m", "actor_node.play_process", str(theirs.fileno()), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            # Ctrl-C in the terminal is for the parent.
            start_new_session=True,
        )
        theirs.close()
        self.in_hand: set[int] = set()
        self.played = 0
        with contextlib.suppress(OSError):  # it has died; its end is heard next
            self.pipe.send(task)


class _Parent:
    """Hands out episodes to processes and hears what came of them."""

    def __init__(self, task: Task, watcher: Watcher, sheet: _Sheet) -> None:
        self._task, self._watcher, self._sheet = task, watcher, sheet
        self._children: list[_Child] = []
        self._refused: ShoalError | None = None
        self._notes: set[str] = set()
        self._copies = 0

    def run(self) -> Ended:
        """Plays until enough are played or no process is left."""
        extent = self._task.extent
        # A process for which there will be no episode would make its copies for nothing.
        needed = min(extent.processes, extent.most)
        try:
            for _ in range(needed):
                self._children.append(_Child(self._task))
            while self._children:
                self._watcher.tick()
                by_pipe = {child.pipe: child for child in self._children}
                for ready in wait(list(by_pipe), _LOOK_S):
                    self._hear(by_pipe[ready])  # type: ignore[index]
        finally:
            _end(self._children)
        if self._refused is not None and not self._sheet.found:
            raise self._refused
        return Ended(self._sheet.found, self._copies)

    def _hear(self, child: _Child) -> None:
        try:
            message = child.pipe.recv_bytes()
        except (EOFError, OSError):
            self._children.remove(child)
            _buried(child, self._sheet)
            # A process that played before it died is worth another; one that cannot begin is not.
            if child.played and child.process.returncode:
                self._children.append(_Child(self._task))
            return
        if message == _TAKE:
            self._answer(child)
        else:
            self._note(child, msgspec.msgpack.decode(message, type=_Told))

    def _answer(self, child: _Child) -> None:
        if not self._sheet.found and not any(other.in_hand for other in self._children):
            self._sheet.began_at = time.monotonic()
        number = self._sheet.take()
        if number is not None:
            child.in_hand.add(number)
        with contextlib.suppress(OSError):  # it has died; its end is heard next
            child.pipe.send_bytes(msgspec.msgpack.encode(number))

    def _note(self, child: _Child, told: _Told) -> None:
        self._copies = max(self._copies, told.copies)
        if told.note and told.note not in self._notes:
            self._notes.add(told.note)
            self._watcher.say(told.note)
        if told.refusal:
            self._refused = (ConfigError if told.is_config else WorldError)(told.refusal)
        if told.episode is not None:
            child.in_hand.discard(told.episode.number)
            child.played += not told.episode.failure
            self._sheet.give(told.episode)


class _Told(msgspec.Struct, frozen=True):
    """What a child says."""

    episode: Episode | None = None
    copies: int = 0
    note: str = ""
    refusal: str = ""
    """Why it cannot begin."""
    is_config: bool = False


def _buried(child: _Child, sheet: _Sheet) -> None:
    """Counts what a process had in hand when it died as failed."""
    code = _ended(child)
    for number in sorted(child.in_hand):
        sheet.give(Episode(number, failure=f"the process that played it ended with code {code}"))


def _end(children: list[_Child]) -> None:
    for child in children:
        child.process.terminate()
    for child in children:
        _ended(child)


def _ended(child: _Child) -> int:
    """Waits for a process's end, kills what it leaves behind, and returns its exit code."""
    try:
        code = child.process.wait(_END_S)
    except subprocess.TimeoutExpired:
        child.process.kill()
        code = child.process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)
    child.pipe.close()
    return code


def play_for(pipe: Connection, parent: int) -> None:
    """Is the main function of a process that plays: takes its task from the pipe, and answers there."""
    # SIGTERM unwinds, so that environments are closed.
    signal.signal(signal.SIGTERM, _leave)
    die_with_parent(parent)
    # What an environment prints is not a result.
    sys.stdout.flush()
    os.dup2(2, 1)
    task: Task = pipe.recv()
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
    except (EOFError, OSError):
        sys.exit(1)  # the parent is gone
    finally:
        worlds.close()


def _leave(*_: object) -> None:
    sys.exit(128 + signal.SIGTERM)
