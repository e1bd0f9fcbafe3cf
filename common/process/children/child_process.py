"""A child process that runs a module of Shoal, and with it the user's code, at the other end of a pipe.

    child = ChildProcess("shoal.commands.check.check_process")     # python -m MODULE PIPE PARENT
    child.pipe.send_bytes(b"a task")
    while child.may_send:
        message = child.receive(timeout_s=0.1)
    child.kill()                                                   # also kills every process that it started

The child is a separate program, not a fork: a script that calls Shoal needs no `if __name__ == "__main__"`, threads of
the parent are harmless, and the child does not inherit the parent's environments. The child leads a separate session,
so that the terminal's Ctrl-C reaches only the parent, and processes that the user's code leaves behind are killed.
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
from collections.abc import Mapping
from multiprocessing.connection import Connection

from common.process.children.python_command import module_command, python_path
from common.process.posix import require_posix

PARENT_CHECK_PERIOD_S = 0.5


class ChildProcess:
    """A child process and the parent's end of the pipe."""

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        """Starts `python -m MODULE PIPE PARENT`; raises ConfigError on a system that is not POSIX.

        environment: variables that the child has besides those of this process.
        """
        require_posix("Code of a user's environment runs in a separate process, which")
        self.pipe, child_end = multiprocessing.Pipe()
        # -P: the child finds the modules of the parent's sys.path, whatever the working directory contains.
        self.process = subprocess.Popen(  # noqa: S603  (our own argument list, no shell)
            module_command(module, str(child_end.fileno()), str(os.getpid()), safe_path=True),
            stdin=subprocess.DEVNULL,
            pass_fds=[child_end.fileno()],
            env={**os.environ, **(environment or {}), "PYTHONPATH": python_path()},
            start_new_session=True,
        )
        child_end.close()
        self._pipe_closed = False

    def receive(self, timeout_s: float) -> bytes | None:
        """Returns the child's next message; None if none arrives within the time, or if the child closed the pipe."""
        try:
            return self.pipe.recv_bytes() if self.pipe.poll(timeout_s) else None
        except (EOFError, OSError):
            # The user's code may have closed the pipe: without a pause the wait for the child's end would spin.
            self._pipe_closed = True
            time.sleep(timeout_s / 10.0)
            return None

    @property
    def may_send(self) -> bool:
        """Whether messages may follow: the child runs, or the pipe still contains some."""
        return self.process.poll() is None or (not self._pipe_closed and self.pipe.poll())

    def kill(self) -> int:
        """Kills the process and every process of its session; returns its exit code."""
        self.pipe.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()


def make_pipe_private(pipe: Connection) -> None:
    """Makes the pipe private to this process, and redirects the user's prints to the standard error.

    Call it first in a child process: programs that the user's code starts then do not inherit the pipe.
    """
    os.set_inheritable(pipe.fileno(), False)
    sys.stdout.flush()
    os.dup2(2, 1)


def kill_session_with_parent(parent: int) -> None:
    """Starts a thread that kills this process's session when the parent ends, even if the main thread is blocked."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_PERIOD_S)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
