"""A child process that plays episodes for its parent.

usage: python -m actor_node.evaluation.rollouts.play_process PIPE PARENT

`process_pool.py` starts it and has the picture of their messages; `copies.py` plays the episodes.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection

import msgspec

from actor_node.collection.collector import Interrupted
from actor_node.evaluation.rollouts.copies import make_copy_set, play_in_copies
from actor_node.evaluation.rollouts.process_pool import END_TIMEOUT_S, LEAVING, READY, REQUEST, PlayReport, PoolTask
from common.errors import ConfigError, ShoalError
from common.process.children.child_process import make_pipe_private
from common.process.children.parent import die_with_parent
from common.process.exit import DONE, FAILED


def main() -> None:
    """Plays for the parent, a process id, at the other end of the pipe, a file descriptor.

    Ends without waiting for threads and processes of the environment; the parent kills them.
    """
    pipe, parent = (int(argument) for argument in sys.argv[1:3])
    code = DONE
    try:
        play_for(Connection(pipe), parent)
    except Interrupted:
        code = 128 + signal.SIGTERM
    except (EOFError, OSError):
        code = FAILED  # the parent is gone
    except BaseException:  # noqa: BLE001  (the process ends here)
        traceback.print_exc()
        code = FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def play_for(pipe: Connection, parent: int) -> None:
    """Receives a task from the parent, a process id, plays its episodes, and reports each.

    Raises Interrupted after SIGTERM, EOFError or OSError if the parent is gone.
    """
    make_pipe_private(pipe)
    # SIGTERM raises an exception, so that environments are closed.
    signal.signal(signal.SIGTERM, _interrupt)
    die_with_parent(parent)
    pipe.send_bytes(READY)
    task: PoolTask = pipe.recv()
    first_seed = os.getpid() * 1_000

    def report(message: PlayReport) -> None:
        pipe.send_bytes(msgspec.msgpack.encode(message))

    def next_number() -> int | None:
        pipe.send_bytes(REQUEST)
        number: int | None = msgspec.msgpack.decode(pipe.recv_bytes(), type=int | None)
        return number

    try:
        copies = make_copy_set(lambda count: task.make(first_seed + count), task.limits.copies)
    except ShoalError as e:
        report(PlayReport(refusal=str(e), is_config=isinstance(e, ConfigError)))
        return
    if copies.note:
        report(PlayReport(note=copies.note))
    try:
        play_in_copies(
            copies,
            task.make_actor,
            task.seed,
            task.limits.max_steps,
            next_number=next_number,
            on_episode=lambda episode: report(PlayReport(episode=episode)),
        )
        pipe.send_bytes(LEAVING)
    finally:
        # Before the environments are closed, which may hang: the parent then knows that this process plays no more.
        pipe.close()
        copies.close()


def _interrupt(*_: object) -> None:
    """Raises Interrupted in the running call; if that does not end the process in time, the kernel does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(END_TIMEOUT_S))
    raise Interrupted


if __name__ == "__main__":
    main()
