"""The committer: a thread that commits the journal's writes to the log, so that serving never waits for Redis.

The writes that arrive during one commit make the next group: the slower the log, the larger the groups.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from common.errors import PeerError
from replay_server.durability.chunk_log import (
    GROUP_BYTES,
    MAX_GROUP_CHUNKS,
    ChunkLog,
    LoggedChunk,
    StoreSamples,
    StoreWeights,
    Write,
)

FIRST_DELAY_S = 0.05
"""Delay before the first retry of a transaction [s]; it doubles with each further retry."""
MAX_DELAY_S = 2.0
CHECK_PERIOD_S = 5.0
"""After this time without a write, an empty transaction checks that the log is still there, and complete."""

_log = logging.getLogger(__name__)


class Committed(NamedTuple):
    """Reports one group: every chunk up to `number` is durable."""

    number: int
    seconds: float


class Committer:
    """Owns the log in its own thread; the server's loop submits writes and takes reports."""

    def __init__(self, log: ChunkLog) -> None:
        self._chunk_log = log
        self._pending: deque[Write] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._stopping = threading.Event()
        self._reports: deque[Committed] = deque()
        self.wake_up, self._waker = socket.socketpair()
        """Readable when there are reports or the error has changed."""
        self.wake_up.setblocking(False)
        self._waker.setblocking(False)
        self.error = ""
        """Why the log does not commit the current group; empty while it commits."""
        self.errors = 0
        """Number of failed attempts."""
        self._defect: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="committer", daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether every submitted write is durable."""
        with self._changed:
            return not self._busy and not self._pending

    def submit(self, writes: Sequence[Write]) -> None:
        """Queues writes, in order. Weights and sample counts replace older ones in the queue, to bound it."""
        if writes:
            with self._changed:
                for write in writes:
                    if isinstance(write, StoreWeights | StoreSamples):
                        self._pending = deque(one for one in self._pending if type(one) is not type(write))
                    self._pending.append(write)
                self._changed.notify()

    def take_reports(self) -> list[Committed]:
        """Returns the reports since the last call; raises the exception that ended the thread, if there is one."""
        try:
            while self.wake_up.recv(4096):
                pass
        except BlockingIOError:
            pass
        if self._defect:
            raise self._defect
        return [self._reports.popleft() for _ in range(len(self._reports))]

    def close(self) -> None:
        """Ends the thread and drops the writes that the log has not taken."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(timeout=1.0)
        self._waker.close()
        self.wake_up.close()

    def _work(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                self._commit(group)
        except BaseException as e:  # noqa: BLE001  (handed to the loop, which ends the server with it)
            self._defect = e
            self._wake()

    def _next_group(self) -> list[Write] | None:
        """Returns the next writes, an empty list after CHECK_PERIOD_S without any, or None at the end."""
        with self._changed:
            self._busy = False
            self._changed.wait_for(lambda: self._pending or self._stopping.is_set(), timeout=CHECK_PERIOD_S)
            if self._stopping.is_set():
                return None
            self._busy = True
            group: list[Write] = []
            size = 0
            while self._pending and len(group) < MAX_GROUP_CHUNKS and size < GROUP_BYTES:
                group.append(self._pending.popleft())
                size += len(group[-1].payload) if isinstance(group[-1], LoggedChunk) else 0
            return group

    def _commit(self, group: Sequence[Write]) -> None:
        transaction = self._chunk_log.prepare(group)
        started = time.monotonic()
        delay_s = FIRST_DELAY_S
        while not self._stopping.is_set():
            try:
                self._chunk_log.execute(transaction)
            except PeerError as e:
                self._failed(str(e))
            else:
                break
            self._stopping.wait(delay_s)
            delay_s = min(delay_s * 2, MAX_DELAY_S)
        else:
            return
        if self.error:
            _log.info("chunk log commits again after_s=%.1f", time.monotonic() - started)
        self.error = ""
        if group:
            self._reports.append(Committed(transaction.last_number, time.monotonic() - started))
        self._wake()

    def _failed(self, error: str) -> None:
        self.errors += 1
        if error != self.error:
            _log.warning("chunk log does not commit, retrying error=%s", error)
        self.error = error
        self._wake()

    def _wake(self) -> None:
        # If the pipe is full, the reader wakes anyway; if it is closed, there is no reader.
        with contextlib.suppress(OSError):
            self._waker.send(b"!")
