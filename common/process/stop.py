"""The request to end a process, made by a signal or by code.

SIGTERM and SIGINT ask for a clean end. A second SIGINT ends the process at once. A process that a terminal started may
take SIGHUP, the end of the terminal, as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from common.process.exit import DONE, INTERRUPTED

_HUNG_UP = 128 + signal.SIGHUP
_STDERR = 2


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
        self._pid = os.getpid()
        self.signal = 0
        """The signal that made the first request; 0 where code made it, or nobody yet."""
        self.hint = ""
        """Line for the user when a second SIGINT, or the terminal's end, leaves no time for more; empty = none."""

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

    def on_hangup(self) -> None:
        """Takes SIGHUP, the end of the terminal (exit code 129), unless the process was started to ignore it."""
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._on_hangup)

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Takes SIGINT and SIGTERM while the block runs, then gives them back: for a program that is not Shoal's.

        A second SIGINT raises KeyboardInterrupt. Outside the main thread, where Python handles no signals, the block
        runs without them.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        taken = (signal.SIGINT, signal.SIGTERM)
        before = [signal.getsignal(number) for number in taken]
        for number in taken:
            signal.signal(number, self._on_signal_of_a_guest)
        try:
            yield
        finally:
            for number, handler in zip(taken, before, strict=True):
                # None: a handler that was not set from Python, which Python cannot set again.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def release_signals(self) -> None:
        """Gives the signals back their usual meaning: SIGINT raises KeyboardInterrupt, SIGTERM ends the process."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            self._write_hint()
            os._exit(INTERRUPTED)
        self._request_by(number, INTERRUPTED if number == signal.SIGINT else DONE)

    def _on_signal_of_a_guest(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A fork of the program, which is an ordinary process.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
        self._request_by(number, INTERRUPTED if number == signal.SIGINT else DONE)

    def _on_hangup(self, number: int, _frame: FrameType | None) -> None:
        if not self._write_hint():
            # Nobody reads any more, and what is shown must not fail for that.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, _STDERR):
                os.dup2(nowhere, stream)
            os.close(nowhere)
        self._request_by(number, _HUNG_UP)

    def _request_by(self, number: int, exit_code: int) -> None:
        if not self.requested:
            self.signal = number
        self.request(exit_code)

    def _write_hint(self) -> bool:
        """Writes the hint to the standard error and returns whether somebody may read it."""
        try:
            # Not by sys.stderr, which the interrupted code may be writing to.
            os.write(_STDERR, f"\n{self.hint}\n".encode(errors="replace") if self.hint else b"")
        except OSError:
            return False
        return True
