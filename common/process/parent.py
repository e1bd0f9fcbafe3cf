"""Parent death: a process ends when its parent ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_ON_LINUX = sys.platform.startswith("linux")

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Sends this process SIGTERM when its parent ends for any reason; returns at once.

    On Linux the kernel sends the signal when the parent *thread* that started this process ends, so parents must start
    children from their main thread. On other systems a thread checks the parent once a second.
    """
    if _ON_LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent_pid:
            os.kill(os.getpid(), signal.SIGTERM)
        return

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
