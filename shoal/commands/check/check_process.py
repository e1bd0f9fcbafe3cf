"""A child process that checks a world: `python -m shoal.commands.check.check_process PIPE PARENT`.

`check.py` starts it. The standard output is redirected to a temporary file, in which the process counts the lines that
the world prints.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection
from typing import BinaryIO

import msgspec

from common.errors import ShoalError
from common.process.children.child_process import kill_session_with_parent, make_pipe_private
from common.process.exit import DONE
from common.run.players import with_sides
from common.worlds import World, find_state_dim, make_world, world_spaces
from common.worlds.adapters.conversion import conversion_reports
from common.worlds.adapters.first_copy import fault_of
from common.worlds.adapters.measure import measure
from common.worlds.history_world import without_history
from common.worlds.world import HasEnvironments
from shoal.commands.check.figures import (
    AdapterWarning,
    AgentsFound,
    CheckTask,
    ContractTest,
    Measured,
    Message,
    StageStarted,
    StateFound,
)
from shoal.commands.check.measurements import (
    API_TEST,
    BATCHED_COPIES,
    constant_kinds,
    measure_rate,
    pettingzoo_test,
    play,
    seed_test,
)

RANDOM_FRACTION, CONSTANT_FRACTION = 0.6, 0.3
"""Fractions of the time for random play, and for all constant actions together."""
_FIRST_LINES = 3
_MAX_LINE = 200


class _Check:
    """One check: sends the figures of each stage to the parent."""

    def __init__(self, pipe: Connection, task: CheckTask) -> None:
        self._pipe, self._task = pipe, task
        self._printed = _redirect_prints()

    def send(self, message: Message) -> None:
        with contextlib.suppress(OSError):  # the parent has ended
            self._pipe.send_bytes(msgspec.msgpack.encode(message))

    def run(self) -> None:
        """Makes the world and measures it stage by stage; raises what the world raises."""
        task = self._task
        self.send(StageStarted("making one copy"))
        started_at = time.monotonic()
        world = self._make()
        try:
            made_s = time.monotonic() - started_at
            for line in conversion_reports():
                self.send(AdapterWarning(line))
            agents = with_sides(world.spec, task.sides)
            self.send(AgentsFound(agents, world_spaces(world), made_s))
            self._find_state(world)
            self.send(StageStarted("a second of random actions"))
            self.send(Measured(measure(without_history(world))))
            self.send(StageStarted("random actions"))
            lines_before = self._lines()
            found = play(world, "random", seconds=RANDOM_FRACTION * task.seconds, seed=task.seed, columns=True)
            lines = self._lines()[len(lines_before) :]
            first = tuple(line[:_MAX_LINE] for line in lines[:_FIRST_LINES])
            self.send(msgspec.structs.replace(found, printed=first, printed_lines=len(lines)))
            kinds = constant_kinds(world.spec)
            for kind in kinds:
                self.send(StageStarted(f"constant actions ({kind})"))
                budget = CONSTANT_FRACTION * task.seconds / len(kinds)
                self.send(play(world, kind, seconds=budget, max_steps=max(found.steps // 4, 1), seed=task.seed))
        finally:
            self.send(StageStarted("close()"))
            world.close()
        if not isinstance(without_history(world), HasEnvironments):
            self._send_rate(CONSTANT_FRACTION * task.seconds / 4)
        self.send(StageStarted("the contract: the same seed twice"))
        self.send(seed_test(self._make, task.seed))
        self.send(StageStarted("the contract: PettingZoo's test"))
        self.send(self._pettingzoo_test())

    def _find_state(self, world: World) -> None:
        """Sends the length of the global state; raises ConfigError if the settings need one and there is none."""
        wants_state = self._task.wants_state
        self.send(StageStarted("reset() and state()"))
        try:
            self.send(StateFound(find_state_dim(world)))
        except ShoalError:
            # A fault of reset() appears again in the next stage.
            if wants_state:
                raise

    def _send_rate(self, seconds: float) -> None:
        """Measures a batched world with as many copies as a worker has by default."""
        self.send(StageStarted(f"{BATCHED_COPIES} copies at once"))
        world = self._make(BATCHED_COPIES)
        try:
            self.send(measure_rate(world, seconds, self._task.seed))
        finally:
            world.close()

    def _pettingzoo_test(self) -> ContractTest:
        world = self._make()
        try:
            inner = without_history(world)
            if not isinstance(inner, HasEnvironments):
                return ContractTest(API_TEST, skipped="this world is batched, not a ParallelEnv")
            return pettingzoo_test(inner.environments[0])
        finally:
            world.close()

    def _make(self, copies: int = 1) -> World:
        task = self._task
        return make_world(
            task.name, copies, seed=task.seed, options=task.options, max_episode_steps=task.max_episode_steps or 0
        )

    def _lines(self) -> list[str]:
        sys.stdout.flush()
        self._printed.seek(0)
        return self._printed.read().decode(errors="replace").splitlines()


class _WarningSender(logging.Handler):
    """Sends the warnings of the adapters to the parent."""

    def __init__(self, check: _Check) -> None:
        super().__init__(logging.WARNING)
        self._check = check

    def emit(self, record: logging.LogRecord) -> None:
        self._check.send(AdapterWarning(record.getMessage()))


def _redirect_prints() -> BinaryIO:
    """Redirects the standard output to a file without a name, and returns the file."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  (open until the process ends)
    sys.stdout.flush()
    os.dup2(file.fileno(), 1)
    return file


def main() -> None:
    """Checks the world of the parent's task and ends the process at once, even if the world left threads running."""
    pipe, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    make_pipe_private(pipe)
    kill_session_with_parent(parent)
    check = _Check(pipe, msgspec.msgpack.decode(pipe.recv_bytes(), type=CheckTask))
    logger = logging.getLogger("common.worlds")
    logger.addHandler(_WarningSender(check))
    logger.propagate = False
    try:
        check.run()
    except BaseException as e:  # noqa: BLE001  (the process ends here)
        check.send(fault_of(e, traceback.format_exc()))
    os._exit(DONE)


if __name__ == "__main__":
    main()
