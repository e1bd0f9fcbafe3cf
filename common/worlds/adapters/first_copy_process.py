"""A child process that makes one copy of an environment, reports its spaces, and measures its steps if asked to.

`common/worlds/adapters/first_copy.py` starts it, `python -m common.worlds.adapters.first_copy_process PIPE PARENT`, and
has the picture of their messages.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from multiprocessing.connection import Connection

import msgspec

from common.errors import ShoalError
from common.process.children.child_process import kill_session_with_parent, make_pipe_private
from common.process.exit import DONE, FAILED
from common.worlds import World, find_state_dim, make_world, world_spaces
from common.worlds.adapters.constructor_options import describe_options
from common.worlds.adapters.conversion import conversion_reports
from common.worlds.adapters.first_copy import STEPS, Began, Fault, Found, Measured, Task, fault_of
from common.worlds.adapters.measure import measure
from common.worlds.batched.checked_world import without_passed
from common.worlds.families import Constructor, Family, family_of
from common.worlds.history_world import without_history


def main() -> None:
    """Answers the parent, a process id, at the other end of the pipe, a file descriptor.

    Ends without waiting for threads and processes of the environment; the parent kills them.
    """
    descriptor, parent = (int(argument) for argument in sys.argv[1:3])
    pipe = Connection(descriptor)
    make_pipe_private(pipe)
    kill_session_with_parent(parent)

    def report(message: Began | Found | Measured | Fault) -> None:
        with contextlib.suppress(OSError):  # the parent is gone
            pipe.send_bytes(msgspec.msgpack.encode(message))

    def failed(error: BaseException) -> None:
        # Before the copy is closed, which may hang.
        report(fault_of(error, traceback.format_exc()))
        report(Began("close()"))

    code = DONE
    try:
        task = msgspec.msgpack.decode(pipe.recv_bytes(), type=Task)
        report(Began("the import of its module"))
        family = family_of(task.name)
        options = () if family is None else describe_options(_constructor(family, task.name))
        report(Began("its constructor"))
        world = make_world(
            task.name,
            seed=0,
            options=task.options,
            on_made=lambda _: report(Began("observation_space(), action_space() or reset()")),
            on_fault=failed,
        )
        try:
            spec = world.spec
            if task.wants_state:
                report(Began("reset() or state()"))
                spec = msgspec.structs.replace(spec, state_dim=find_state_dim(world))
            report(Found(spec, world_spaces(world), options, conversion_reports()))
            if task.measure:
                report(Began(STEPS))
                report(_measured(world))
        finally:
            report(Began("close()"))
            world.close()
    except BaseException as e:  # noqa: BLE001  (the process ends here)
        code = FAILED
        report(fault_of(e, traceback.format_exc()))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _constructor(family: Family, name: str) -> Constructor:
    make = family.find_constructor(name)
    return without_passed(make) if family.is_batched else make


def _measured(world: World) -> Measured:
    """Returns the measurements of a world, or why there are none.

    Raises the error of an environment that fails twice: it would fail in every actor. One that fails once is measured
    by the second attempt, because actors restart after an occasional error.
    """
    plain = without_history(world)
    try:
        return Measured(measure(plain))
    except ShoalError as e:
        try:
            return Measured(measure(plain))
        except ShoalError:
            raise e from None
    except Exception as e:  # noqa: BLE001  (the actors will meet and report it)
        return Measured(None, fault_of(e, f"{type(e).__name__}: {e}").text)


if __name__ == "__main__":
    main()
