"""The request to end a process, made by a signal or by code.

SIGTERM and SIGINT ask for a clean end. A second SIGINT ends the process at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType

from common.process.exit import DONE, INTERRUPTED


class Stop:
    """A request to end, made by a signal or by code: both clock and exit of every loop."""

    def __init__(self) -> None:
        self.exit_code = DONE
        self.requested = False
        """Whether the process shall end."""
        # A bare lock that the request opens. threading.Event would hang for ever when a signal interrupts its wait()
        # in the wrong place: its set() then waits for a lock that the interrupted code holds.
        self._gate = threading.Lock()
        self._gate.acquire()
        self._interrupts = 0

    def request(self, exit_code: int = DONE) -> None:
        """Asks the loops to end; the first request decides the exit code."""
        if self.requested:
            return
        self.exit_code, self.requested = exit_code, True
        with contextlib.suppress(RuntimeError):  # a signal came in between and has opened it
            self._gate.release()

    def wait(self, timeout_s: float) -> bool:
        """Waits up to `timeout_s` and returns whether the process shall end."""
        if not self.requested and self._gate.acquire(timeout=max(timeout_s, 0.0)):
            self._gate.release()  # for the next one that waits
        return self.requested

    def on_signals(self) -> None:
        """Takes SIGINT (exit code 130) and SIGTERM (exit code 0); a second SIGINT ends the process at once."""
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        # What an environment forks is an ordinary process: its terminate() must end it.
        os.register_at_fork(after_in_child=self.release_signals)

    def release_signals(self) -> None:
        """Gives the signals back their usual meaning: SIGINT raises KeyboardInterrupt, SIGTERM ends the process."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            os._exit(INTERRUPTED)
        self.request(INTERRUPTED if number == signal.SIGINT else DONE)
