"""A module of Shoal that runs the user's code as a program of its own, at the other end of a pipe.

    child = ChildProcess("actor_node.evaluation.play_process")        # python -m actor_node.play_process PIPE PARENT
    child.pipe.send_bytes(b"a task")
    child.kill()                                           # with everything that it started

A program, not a copy of the parent: a script that calls Shoal need not guard its main part, threads of the parent do
no harm, and nothing of the parent's environment lives on in the child. It leads a session of its own, so that the
terminal's Ctrl-C reaches the parent alone, and so that what the user's code leaves behind is killed with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection

from common.process.own_python import module_command, python_path

ORPHAN_PERIOD_S = 0.5


class ChildProcess:
    """One such process and the parent's end of the pipe."""

    def __init__(self, module: str) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        # -P: like the parent's, its modules are those of sys.path, whatever the working directory holds.
        self.process = subprocess.Popen(  # noqa: S603  (our own argument list, no shell)
            module_command(module, str(theirs.fileno()), str(os.getpid()), safe_path=True),
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": python_path()},
            start_new_session=True,
        )
        theirs.close()

    def kill(self) -> int:
        """Kills the process, if it has not ended, and what it leaves behind; returns its exit code."""
        self.pipe.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()


def keep_for_itself(pipe: Connection) -> None:
    """Begins a child process: programs that the user's code starts do not get its pipe, and prints are no results."""
    os.set_inheritable(pipe.fileno(), False)
    sys.stdout.flush()
    os.dup2(2, 1)


def end_session_without(parent: int) -> None:
    """Has a thread kill this process and its whole session once the parent is gone, whatever the main thread does."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHAN_PERIOD_S)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
