"""A process that makes one copy of an environment and tells what it is: `python -m common.worlds.first_copy_process`.

Started by common/worlds/first_copy.py, which also has what it says to whom.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from multiprocessing.connection import Connection

import msgspec

from common.process.child_process import kill_session_with_parent, make_pipe_private
from common.process.exit import DONE, FAILED
from common.worlds import FOREIGN, make_world, world_spaces
from common.worlds.first_copy import Began, Fault, Found, Task, fault_of
from common.worlds.making import maker_of


def main() -> None:
    """Answers the parent, a process id, at the other end of the pipe, a file descriptor.

    Ends without a wait for threads and processes that the environment has left behind; the parent kills these.
    """
    descriptor, parent = (int(argument) for argument in sys.argv[1:3])
    pipe = Connection(descriptor)
    make_pipe_private(pipe)
    kill_session_with_parent(parent)

    def tell(message: Began | Found | Fault) -> None:
        with contextlib.suppress(OSError):  # the parent is gone
            pipe.send_bytes(msgspec.msgpack.encode(message))

    def failed(error: BaseException) -> None:
        # Before the copy is closed, which may hang.
        tell(fault_of(error, traceback.format_exc()))
        tell(Began("close()"))

    code = DONE
    try:
        task = msgspec.msgpack.decode(pipe.recv_bytes(), type=Task)
        tell(Began("the import of its module"))
        maker_of(task.name, task.name.removeprefix(FOREIGN))
        tell(Began("its constructor"))
        world = make_world(
            task.name,
            seed=0,
            options=task.options,
            on_made=lambda _: tell(Began("observation_space() or action_space()")),
            on_fault=failed,
        )
        try:
            tell(Found(world.spec, world_spaces(world)))
        finally:
            tell(Began("close()"))
            world.close()
    except BaseException as e:  # noqa: BLE001  (the process ends here)
        code = FAILED
        tell(fault_of(e, traceback.format_exc()))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
