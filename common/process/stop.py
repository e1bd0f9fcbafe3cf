"""The stop request of a process: SIGTERM, SIGINT or code ask every loop to end.

SIGTERM and SIGINT request a clean end. A second SIGINT ends the process at once. A process that a terminal started can
also handle SIGHUP, the end of the terminal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from common.process.exit import DONE, INTERRUPTED

_HUNG_UP = 128 + 1
"""Exit code after SIGHUP, by number: Windows has no such signal."""
_STDERR = 2


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
        self._pid = os.getpid()
        self.signal = 0
        """Number of the signal that made the first request; 0 if code made it, or before a request."""
        self.hint = ""
        """Line that the process writes for the user when a signal ends it at once; empty = none."""
        self._ends_at_once = False

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
        if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
            # A process that an environment forks must react to terminate() as usual.
            os.register_at_fork(after_in_child=self.release_signals)

    def on_hangup(self) -> None:
        """Handles SIGHUP, the end of the terminal (exit code 129), unless the process was started to ignore it."""
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._on_hangup)

    @contextlib.contextmanager
    def ending_at_once(self) -> Iterator[None]:
        """Lets the first SIGINT or SIGTERM end the process at once while the block runs, after writing the hint.

        For work that has nothing to save and that no check of `requested` can interrupt, such as importing torch. Has
        no effect within `signals`, because the process belongs to another program there.
        """
        self._ends_at_once = True
        try:
            yield
        finally:
            self._ends_at_once = False

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Handles SIGINT and SIGTERM while the block runs, then restores the handlers: for programs that embed Shoal.

        A second SIGINT raises KeyboardInterrupt. Outside the main thread, where Python handles no signals, the block
        runs without them.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        taken = (signal.SIGINT, signal.SIGTERM)
        before = [signal.getsignal(number) for number in taken]
        for number in taken:
            signal.signal(number, self._on_embedded_signal)
        try:
            yield
        finally:
            for number, handler in zip(taken, before, strict=True):
                # None: a handler that was not set from Python, which Python cannot set again.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def release_signals(self) -> None:
        """Restores the default handlers: SIGINT raises KeyboardInterrupt, SIGTERM ends the process."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        self._request_by(number, INTERRUPTED if number == signal.SIGINT else DONE)
        if self._ends_at_once or self._interrupts > 1:
            self._write_hint()
            os._exit(INTERRUPTED if self._interrupts > 1 else self.exit_code)

    def _on_embedded_signal(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A fork of the embedding program must react to the signal as usual.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
        self._request_by(number, INTERRUPTED if number == signal.SIGINT else DONE)

    def _on_hangup(self, number: int, _frame: FrameType | None) -> None:
        if not self._write_hint():
            # The terminal is gone: output must not fail.
            null = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, _STDERR):
                os.dup2(null, stream)
            os.close(null)
        self._request_by(number, _HUNG_UP)

    def _request_by(self, number: int, exit_code: int) -> None:
        if not self.requested:
            self.signal = number
        self.request(exit_code)

    def _write_hint(self) -> bool:
        """Writes the hint to the standard error and returns whether the write succeeded."""
        try:
            # Not through sys.stderr, to which the interrupted code may be writing.
            os.write(_STDERR, f"\n{self.hint}\n".encode(errors="replace") if self.hint else b"")
        except OSError:
            return False
        return True
