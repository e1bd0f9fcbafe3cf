"""Exit codes, and how a process exits with one.

0 done, 1 failed, 2 bad usage or configuration, 3 a peer could not be reached, 130 interrupted.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import sys
import threading
from typing import NoReturn

DONE, FAILED, BAD_USAGE, NO_PEER, INTERRUPTED = 0, 1, 2, 3, 130


def exit_process(code: int) -> NoReturn:
    """Exits without waiting for threads and processes that an environment left behind.

    `sys.exit` would wait for both without a limit. Remaining child processes are killed.
    """
    left = [thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()]
    children = multiprocessing.active_children()
    if not left and not children:
        sys.exit(code)
    for child in children:
        child.kill()
    # os._exit does not run exit handlers.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
