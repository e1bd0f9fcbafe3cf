"""How a process ends when its parent is gone."""

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
    """Ends this process (SIGTERM) when its parent is gone, however the parent ends; returns at once.

    On Linux the kernel sends the signal when the *thread* that started us ends, so parents start children from their
    main thread. Elsewhere a thread looks once a second.
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
