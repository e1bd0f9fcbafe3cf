"""The committer: a thread that brings the journal's writes into the log, so that serving never waits for Redis.

What gathers while one group is under way makes the next: the slower the log, the larger the groups.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from common.errors import PeerError
from replay_server.durability.redis_protocol import Command
from replay_server.instructions import StoreChunk, StoreSamples, StoreWeights, Write

Mark = tuple[int, ...]
"""A few values by which a log is told from an older state of itself."""

GROUP_CHUNKS = 64
GROUP_BYTES = 4 * 2**20
FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 2.0
LOOK_EVERY_S = 5.0
"""With nothing to write for so long, an empty transaction finds out whether the log is still there, and whole."""

_log = logging.getLogger(__name__)


class Transaction(NamedTuple):
    """A group made ready for the log: `commands` may be executed again and again to the same effect."""

    commands: Sequence[Command]
    last_number: int
    """Number of the newest chunk in it; -1 when it holds none."""
    before: Mark = ()
    """What the log's mark must be before it is executed for the first time."""
    after: Mark = ()
    """The same afterwards: what is found where it was executed and the answer was lost."""


class ChunkLog(Protocol):
    """What keeps chunks: Redis, or a stand-in for it."""

    def prepare(self, writes: Sequence[Write]) -> Transaction:
        """Returns the transaction for a group of writes; called once for each group, in order."""

    def execute(self, transaction: Transaction) -> None:
        """Makes a transaction durable, all of it or nothing; PeerError when it is not known to be."""


class Committed(NamedTuple):
    """Reports one group: every chunk up to `number` is durable."""

    number: int
    seconds: float


class Committer:
    """Owns the log from its own thread; the server's loop hands writes in and takes reports out."""

    def __init__(self, log: ChunkLog) -> None:
        self._kept_by = log
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
        """Why the log does not take the current group; empty while it does."""
        self.errors = 0
        """Failed attempts."""
        self._defect: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="committer", daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether everything handed in is durable."""
        with self._changed:
            return not self._busy and not self._pending

    def submit(self, writes: Sequence[Write]) -> None:
        """Hands writes in, in order. Of weights and of sample counts only the newest wait: more would pile up."""
        if writes:
            with self._changed:
                for write in writes:
                    if isinstance(write, StoreWeights | StoreSamples):
                        self._pending = deque(one for one in self._pending if type(one) is not type(write))
                    self._pending.append(write)
                self._changed.notify()

    def take_reports(self) -> list[Committed]:
        """Returns the reports since the last call; raises what has ended the thread, if anything has."""
        try:
            while self.wake_up.recv(4096):
                pass
        except BlockingIOError:
            pass
        if self._defect:
            raise self._defect
        return [self._reports.popleft() for _ in range(len(self._reports))]

    def close(self) -> None:
        """Ends the thread, giving up what the log has not taken."""
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
        """Returns the next writes, none of them after a while without any, or None at the end."""
        with self._changed:
            self._busy = False
            self._changed.wait_for(lambda: self._pending or self._stopping.is_set(), timeout=LOOK_EVERY_S)
            if self._stopping.is_set():
                return None
            self._busy = True
            group: list[Write] = []
            size = 0
            while self._pending and len(group) < GROUP_CHUNKS and size < GROUP_BYTES:
                group.append(self._pending.popleft())
                size += len(group[-1].payload) if isinstance(group[-1], StoreChunk) else 0
            return group

    def _commit(self, group: Sequence[Write]) -> None:
        transaction = self._kept_by.prepare(group)
        started = time.monotonic()
        delay_s = FIRST_DELAY_S
        while not self._stopping.is_set():
            try:
                self._kept_by.execute(transaction)
            except PeerError as e:
                self._failed(str(e))
            else:
                break
            self._stopping.wait(delay_s)
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)
        else:
            return
        if self.error:
            _log.info("the log takes chunks again, after %.1f s", time.monotonic() - started)
        self.error = ""
        if group:
            self._reports.append(Committed(transaction.last_number, time.monotonic() - started))
        self._wake()

    def _failed(self, error: str) -> None:
        self.errors += 1
        if error != self.error:
            _log.warning("the log takes no chunks, trying again: %s", error)
        self.error = error
        self._wake()

    def _wake(self) -> None:
        # A full pipe wakes as well, and a closed one has nobody left to wake.
        with contextlib.suppress(OSError):
            self._waker.send(b"!")
