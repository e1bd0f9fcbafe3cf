"""The stop request of a process: SIGTERM, SIGINT or code ask every loop to end.

SIGTERM and SIGINT request a clean end. A second SIGINT ends the process at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType

from common.process.exit import DONE, INTERRUPTED


class Stop:
    """A request to end the process. Loops wait on it, so that it ends them at once.

    Example:
        stop = Stop()
        stop.on_signals()
        while not stop.wait(1.0):
            report()
    """

    def __init__(self) -> None:
        self.exit_code = DONE
        self.requested = False
        """Whether the process must end."""
        # A bare lock, which the request releases. threading.Event can deadlock: if a signal interrupts wait() at the
        # wrong instruction, set() in the handler waits for a lock that the interrupted code has acquired.
        self._released_on_request = threading.Lock()
        self._released_on_request.acquire()
        self._interrupts = 0

    def request(self, exit_code: int = DONE) -> None:
        """Requests the end; the first request sets the exit code."""
        if self.requested:
            return
        self.exit_code, self.requested = exit_code, True
        with contextlib.suppress(RuntimeError):  # a signal handler released it in between
            self._released_on_request.release()

    def wait(self, timeout_s: float) -> bool:
        """Waits up to `timeout_s` seconds for a request and returns whether there is one."""
        if not self.requested and self._released_on_request.acquire(timeout=max(timeout_s, 0.0)):
            self._released_on_request.release()  # for the next waiting thread
        return self.requested

    def on_signals(self) -> None:
        """Handles SIGINT (exit code 130) and SIGTERM (exit code 0); a second SIGINT ends the process at once."""
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        # A process that an environment forks must react to terminate() as usual.
        os.register_at_fork(after_in_child=self.release_signals)

    def release_signals(self) -> None:
        """Restores the default handlers: SIGINT raises KeyboardInterrupt, SIGTERM ends the process."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            os._exit(INTERRUPTED)
        self.request(INTERRUPTED if number == signal.SIGINT else DONE)
