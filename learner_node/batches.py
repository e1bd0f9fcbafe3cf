"""Batches, prefetched: libzmq receives in the background, the learner takes what has come and asks for more.

    replay --Batch--> socket's queue --next()--> learner        at most `prefetch` batches asked for and not taken
    learner --SampleRequest, PutWeights, LearnerReport, StatusRequest, Priorities--> replay

There is no thread of Python's: libzmq's own receives without the interpreter, and one that decodes would only take
turns for it with the update. What is left to do here is done when a batch is taken.

| waits for             | frees it                                                                  |
|-----------------------|---------------------------------------------------------------------------|
| a replay that answers | Opened; asked for each second                                             |
| a batch               | Batch; until then Held says why, each second                              |
| a lost server         | five seconds without an answer: opened again, batches asked for once more |

All of them inside `next`, for as long as it was given. A server that holds its batches back, or is gone, keeps nobody
from the others' batches: its requests do not count.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import zmq
from torch import Tensor

from common.errors import PeerError, ProtocolError
from common.run.run import Run
from common.wire.client import Client
from common.wire.codec import decode_to_peer
from common.wire.keys import Keys
from common.wire.messages import Message, PutWeights, SampleRequest, Status
from common.wire.sockets import receive
from learner_node.replay_session import BatchChecker, ReplaySession, SampledBatch, priority_update
from learner_node.td_errors import TdErrors

POLL_MS = 100
"""How often lost servers are looked after while `next` waits."""


class Batches(Protocol):
    """What the learner needs of whatever brings its batches."""

    def open(self, timeout_s: float) -> bool:
        """Returns whether any replay has taken the learner in, waiting for that up to `timeout_s`."""

    def next(self, timeout_s: float) -> SampledBatch | None:
        """Returns the next batch, or None when none came in time; PeerError when none can come any more."""

    def send(self, message: Message, payload: bytes | None = None) -> None:
        """Sends a message to every replay there is, without waiting."""

    def update_priorities(self, records: SampledBatch, errors: Tensor) -> None:
        """Tells where the batch came from how large the TD errors `[B]` of its records were, without waiting."""

    def close(self) -> None:
        """Sends what is left and gives everything back."""

    @property
    def opened(self) -> bool:
        """Whether any replay has taken the learner in."""

    @property
    def weights_version(self) -> int:
        """The newest weights any replay remembers."""

    @property
    def env_steps(self) -> int:
        """Transitions ever stored in the run, as far as is known here."""

    @property
    def status(self) -> Status | None:
        """The newest one asked for."""

    @property
    def statuses(self) -> Sequence[Status]:
        """The newest one of each replay server that has taken the learner in."""

    @property
    def rejected(self) -> int:
        """Batches thrown away because they held non-finite numbers."""

    @property
    def waiting_for(self) -> str:
        """Why no batch comes, in words."""

    @property
    def absent(self) -> str:
        """The peer that the run had and that is gone, so that no batch can come; empty otherwise."""


class BatchStream:
    """Batches from one or several replay servers, from each as many as it holds transitions. For one thread."""

    def __init__(
        self,
        run: Run,
        learner: str,
        endpoints: tuple[str, ...],
        prefetch: int,
        *,
        pin: bool,
        clock: tuple[int, int] = (0, 0),
        keys: Keys | None = None,
    ) -> None:
        """Connects in the background; ConfigError when an address cannot be one.

        clock: inserts and samples of the run as far as the learner knows, for servers that have forgotten.
        """
        self._context = zmq.Context()
        self._inspector = inspector = BatchChecker(run, pin=pin)
        shares = [amount // len(endpoints) for amount in clock]
        self._sources = [
            ReplaySession(Client(self._context, endpoint, keys=keys), run, learner, (shares[0], shares[1]), inspector)
            for endpoint in endpoints
        ]
        self._poller = zmq.Poller()
        for source in self._sources:
            self._poller.register(source.client.socket, zmq.POLLIN)
        self._prefetch, self._batch = prefetch, run.spec.replay.batch
        self._come: deque[SampledBatch] = deque()
        """Batches that have come and are not taken."""
        self._errors = TdErrors()
        self._requested = 0
        self._turn = 0.0

    @property
    def opened(self) -> bool:
        """Whether any replay server has taken the learner in."""
        return any(source.opened for source in self._sources)

    @property
    def weights_version(self) -> int:
        """The newest weights any server remembers."""
        return max(source.opened.weights_version if source.opened else 0 for source in self._sources)

    @property
    def env_steps(self) -> int:
        """Transitions ever stored in the run, as far as is known here."""
        return sum(source.inserts for source in self._sources)

    @property
    def status(self) -> Status | None:
        """The newest one asked for, of the first server."""
        return self._sources[0].status

    @property
    def statuses(self) -> Sequence[Status]:
        """The newest one of each replay server that has taken the learner in."""
        return [source.status for source in self._sources if source.opened and source.status]

    @property
    def rejected(self) -> int:
        """Batches thrown away because they held non-finite numbers."""
        return self._inspector.rejected

    @property
    def waiting_for(self) -> str:
        """Why no batch comes, in words."""
        if not self.opened:
            if reasons := [source.not_ready for source in self._sources if source.not_ready]:
                return reasons[0]
            return f"the replay server at {', '.join(source.where for source in self._sources)}"
        return next((source.held for source in self._sources if source.held), "the replay server's batches")

    @property
    def absent(self) -> str:
        """The peer that the run had and that is gone; empty while any server can send batches."""
        if not self.opened:
            return self.waiting_for
        told = [source.status.absent if source.status else "" for source in self._sources if source.opened]
        return told[0] if all(told) else ""

    def open(self, timeout_s: float) -> bool:
        """Returns whether any server has taken the learner in, waiting for that up to `timeout_s`; asks for no batch.

        PeerError when a server will not serve this learner.
        """
        give_up_at = time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            self._look_after_sources(now)
            if self.opened or now >= give_up_at:
                return self.opened
            self._poller.poll(min(math.ceil((give_up_at - now) * 1_000), POLL_MS))

    def next(self, timeout_s: float) -> SampledBatch | None:
        """Returns the next batch, or None when none came in time; PeerError when a server will not serve this learner.

        Everything else that has come is taken in as well, so it must be called again and again.
        """
        give_up_at = time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            self._look_after_sources(now)
            records = self._come.popleft() if self._come else None
            self._request(now)
            self._send_errors()
            if records is not None or now >= give_up_at:
                return records
            self._poller.poll(min(math.ceil((give_up_at - now) * 1_000), POLL_MS))

    def _look_after_sources(self, now: float) -> None:
        for source in self._sources:
            self._take_in(source, now)
            source.look_after(now)

    def send(self, message: Message, payload: bytes | None = None) -> None:
        """Sends a message to every replay server that is there; the payload only with weights."""
        for source in self._sources:
            if source.opened:
                source.client.send(message, payload if isinstance(message, PutWeights) else None)

    def update_priorities(self, records: SampledBatch, errors: Tensor) -> None:
        """Tells the server of a batch how large the TD errors `[B]` of its records were, without waiting."""
        self._errors.start(records, errors)
        self._send_errors()

    def close(self) -> None:
        """Closes the sockets."""
        # What was sent last, the final weights and report, gets a moment to leave.
        self._context.destroy(linger=200)

    def _send_errors(self) -> None:
        for records, errors in self._errors.arrived():
            for source in self._sources:
                if source.opened and source.client.endpoint == records.origin:
                    source.client.send(*priority_update(records, errors))

    def _take_in(self, source: ReplaySession, now: float) -> None:
        """Takes in all that has come from a server."""
        socket = source.client.socket
        # To ask is cheaper than to be told by an exception that nothing more is there.
        while int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            try:
                message, payload = decode_to_peer(receive(socket))
            except ProtocolError as e:
                raise PeerError(f"{source.client.endpoint} does not speak this version's protocol: {e}") from e
            records = source.take(message, payload, now)
            if records is not None:
                self._come.append(records)

    def _request(self, now: float) -> None:
        """Keeps as many batches asked for or here as are to be prefetched."""
        ready = [source for source in self._sources if source.opened and not source.held]
        while ready and len(self._come) + sum(len(source.requests) for source in ready) < self._prefetch:
            source = self._in_turn(ready)
            self._requested += 1
            if not source.request(SampleRequest(self._requested, self._batch), now):
                ready.remove(source)

    def _in_turn(self, ready: list[ReplaySession]) -> ReplaySession:
        """Returns the server whose turn it is, so that each is drawn from in proportion to what it holds.

        Start-time fair queueing (Goyal et al. 1996): one that was away does not catch up on what it missed.
        """
        source = min(ready, key=lambda source: source.turn)
        self._turn = max(self._turn, source.turn)
        source.turn = self._turn + 1.0 / max(source.size, 1)
        return source
