"""Parent death: a process ends when its parent ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_ON_LINUX = sys.platform.startswith("linux")
# Loaded at import: loading it between fork and exec could deadlock on a lock of another thread.
_prctl = ctypes.CDLL(None).prctl if _ON_LINUX else None
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Sends this process SIGTERM when its parent ends for any reason; returns at once.

    On Linux the kernel sends the signal when the parent *thread* that started this process ends, so parents must start
    children from their main thread. On other systems a thread checks the parent once a second.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent_pid:
            os.kill(os.getpid(), signal.SIGTERM)
        return

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def end_with_parent(parent_pid: int) -> None:
    """Lets any program end with its parent, as subprocess.Popen's `preexec_fn` on Linux: SIGTERM when the parent ends.

    The signal comes when the parent *thread* that started the program ends. Elsewhere the function has no effect.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        os._exit(1)
