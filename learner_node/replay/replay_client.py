"""The learner's client of its replay servers: requests batches ahead, and sends weights, reports and priorities.

    replay --Batch--> socket's queue --next()--> learner        at most `prefetch` batches requested or waiting here
    learner --SampleRequest, PutWeights, LearnerReport, StatusRequest, Priorities--> replay

libzmq's thread receives in the background. There is no Python thread: it would compete with the update for the
interpreter. Messages are decoded in `next`, when the learner takes a batch.

| waits for                 | freed by                                                                        |
|---------------------------|---------------------------------------------------------------------------------|
| a replay server's answer  | Opened; Open is sent once a second                                              |
| a batch                   | Batch; until then Held gives the reason, once a second                          |
| a lost server             | the time-out: after 5 s without an answer the session is opened again           |
| the end to be confirmed   | a Status with the last report, which is sent twice a second; at most 5 s        |

All waits are inside `next` and `report_finished`, for at most their time-outs. A server that holds batches back, or is
lost, does not delay the batches of other servers: its unanswered requests do not count toward `prefetch`.
"""

from __future__ import annotations

import logging
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
from common.wire.messages import LearnerReport, Message, PutWeights, SampleRequest, Status, StatusRequest
from common.wire.sockets import receive
from learner_node.replay.replay_session import BatchChecker, ReplaySession, SampledBatch, priority_update
from learner_node.replay.td_errors import TdErrors

POLL_MS = 100
"""Longest wait in `next` between two checks for lost servers [ms]."""
CONFIRM_PERIOD_S = 0.5
"""Time between two last reports to a server that has not confirmed one [s]."""

_log = logging.getLogger(__name__)


class ReplayClient(Protocol):
    """What a learner needs of its replay servers: batches, and a way to send messages."""

    def open(self, timeout_s: float) -> bool:
        """Waits at most `timeout_s` for a replay server; returns whether any accepted the learner."""

    def next(self, timeout_s: float) -> SampledBatch | None:
        """Returns the next batch, or None if no batch arrived in time; PeerError if no batch can arrive any more."""

    def send(self, message: Message, payload: bytes | None = None) -> None:
        """Sends a message to every replay server, without waiting."""

    def update_priorities(self, batch: SampledBatch, td_errors: Tensor) -> None:
        """Sends the absolute TD errors `[B]` of a batch's rows to the batch's replay server, without waiting."""

    def report_finished(self, report: LearnerReport, timeout_s: float) -> bool:
        """Sends the last report of a finished run; returns whether every replay server confirmed it in time."""

    def close(self) -> None:
        """Sends pending messages and frees all resources."""

    @property
    def opened(self) -> bool:
        """Whether any replay server accepted the learner."""

    @property
    def weights_version(self) -> int:
        """The newest version of the weights that any replay server stores."""

    @property
    def env_steps(self) -> int:
        """Transitions stored in the run, as far as the learner knows."""

    @property
    def status(self) -> Status | None:
        """The newest status of the first replay server."""

    @property
    def statuses(self) -> Sequence[Status]:
        """The newest status of each replay server that accepted the learner."""

    @property
    def rejected(self) -> int:
        """Number of batches that were dropped because of non-finite numbers."""

    @property
    def waiting_for(self) -> str:
        """The reason why no batch arrives, as text."""

    @property
    def absent(self) -> str:
        """The absent peer because of which no batch can arrive; empty otherwise."""


class ShardedReplayClient:
    """A client of one or several replay servers, which draws from each in proportion to its transitions.

    It is not thread-safe.

    Example:
        replay = ShardedReplayClient(run, "learner-1", ("tcp://replay:5555",), prefetch=4, pin=False)
        batch = replay.next(timeout_s=1.0)
        replay.send(StatusRequest())
    """

    def __init__(
        self,
        run: Run,
        learner: str,
        endpoints: tuple[str, ...],
        prefetch: int,
        *,
        pin: bool,
        inserts: int = 0,
        samples: int = 0,
        fresh: bool = False,
        keys: Keys | None = None,
    ) -> None:
        """Connects in the background; ConfigError if an address is not valid.

        inserts, samples: transitions stored and transitions sampled in the run, as far as the learner knows. Servers
        that lost their counts continue from them. fresh: whether to discard another run that is not finished.
        """
        self._context = zmq.Context()
        self._checker = checker = BatchChecker(run, pin=pin)
        # Each server stores and samples an equal part of the run.
        inserts, samples = inserts // len(endpoints), samples // len(endpoints)
        self._sessions = [
            ReplaySession(
                Client(self._context, endpoint, keys=keys),
                run,
                learner,
                checker,
                inserts=inserts,
                samples=samples,
                fresh=fresh,
            )
            for endpoint in endpoints
        ]
        self._poller = zmq.Poller()
        for session in self._sessions:
            self._poller.register(session.client.socket, zmq.POLLIN)
        self._prefetch, self._batch = prefetch, run.spec.replay.batch
        self._received: deque[SampledBatch] = deque()
        """Batches that arrived and wait to be taken."""
        self._td_errors = TdErrors()
        self._requested = 0
        self._virtual_time = 0.0

    @property
    def opened(self) -> bool:
        """Whether any replay server accepted the learner."""
        return any(session.opened for session in self._sessions)

    @property
    def weights_version(self) -> int:
        """The newest version of the weights that any server stores."""
        return max(session.opened.weights_version if session.opened else 0 for session in self._sessions)

    @property
    def env_steps(self) -> int:
        """Transitions stored in the run, as far as the learner knows."""
        return sum(session.inserts for session in self._sessions)

    @property
    def status(self) -> Status | None:
        """The newest status of the first server."""
        return self._sessions[0].status

    @property
    def statuses(self) -> Sequence[Status]:
        """The newest status of each server that accepted the learner."""
        return [session.status for session in self._sessions if session.opened and session.status]

    @property
    def rejected(self) -> int:
        """Number of batches that were dropped because of non-finite numbers."""
        return self._checker.rejected

    @property
    def waiting_for(self) -> str:
        """The reason why no batch arrives, as text."""
        if not self.opened:
            if reasons := [session.not_ready for session in self._sessions if session.not_ready]:
                return reasons[0]
            return f"the replay server at {', '.join(session.address for session in self._sessions)}"
        return next(
            (session.wait_reason for session in self._sessions if session.wait_reason), "the replay server's batches"
        )

    @property
    def absent(self) -> str:
        """The absent peer; empty while any server can send batches."""
        if not self.opened:
            return self.waiting_for
        absent = [session.status.absent if session.status else "" for session in self._sessions if session.opened]
        return absent[0] if all(absent) else ""

    def open(self, timeout_s: float) -> bool:
        """Waits at most `timeout_s` for a server; returns whether any accepted the learner. Requests no batch.

        PeerError if a server refuses this learner.
        """
        give_up_at = time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            self._poll_sessions(now)
            if self.opened or now >= give_up_at:
                return self.opened
            self._poller.poll(min(math.ceil((give_up_at - now) * 1_000), POLL_MS))

    def next(self, timeout_s: float) -> SampledBatch | None:
        """Returns the next batch, or None if no batch arrived in time; PeerError if a server refuses this learner.

        Handles all other received messages too, so it must be called regularly.
        """
        give_up_at = time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            self._poll_sessions(now)
            batch = self._received.popleft() if self._received else None
            self._request(now)
            self._send_priorities()
            if batch is not None or now >= give_up_at:
                return batch
            self._poller.poll(min(math.ceil((give_up_at - now) * 1_000), POLL_MS))

    def send(self, message: Message, payload: bytes | None = None) -> None:
        """Sends a message to every server with an open session. The payload is sent with PutWeights only."""
        for session in self._sessions:
            if session.opened:
                session.client.send(message, payload if isinstance(message, PutWeights) else None)

    def update_priorities(self, batch: SampledBatch, td_errors: Tensor) -> None:
        """Sends the absolute TD errors `[B]` of a batch's rows to the batch's server, without waiting."""
        self._td_errors.start(batch, td_errors)
        self._send_priorities()

    def report_finished(self, report: LearnerReport, timeout_s: float) -> bool:
        """Sends the last report of a finished run until every server confirms it, or the time is over.

        Returns whether every server has confirmed it: from then on it may serve another run.
        """
        now = send_at = time.monotonic()
        give_up_at = now + timeout_s
        while now < give_up_at:
            if now >= send_at:
                send_at = now + CONFIRM_PERIOD_S
                self.send(report)
                self.send(StatusRequest())
            try:
                self._poll_sessions(now)
            except PeerError as e:
                _log.warning("%s", e)
                return False
            if all(session.confirms_finished for session in self._sessions):
                return True
            self._poller.poll(POLL_MS)
            now = time.monotonic()
        return False

    def close(self) -> None:
        """Closes the sockets."""
        # The final weights and the last report have 200 ms to be sent.
        self._context.destroy(linger=200)

    def _send_priorities(self) -> None:
        for batch, td_errors in self._td_errors.arrived():
            for session in self._sessions:
                if session.opened and session.client.endpoint == batch.origin:
                    session.client.send(*priority_update(batch, td_errors))

    def _poll_sessions(self, now: float) -> None:
        for session in self._sessions:
            self._receive(session, now)
            session.check_timeouts(now)

    def _receive(self, session: ReplaySession, now: float) -> None:
        """Handles all received messages of a server."""
        socket = session.client.socket
        # Checking first is cheaper than the exception of a receive without a message.
        while int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            try:
                message, payload = decode_to_peer(receive(socket))
            except ProtocolError as e:
                raise PeerError(
                    f"{session.client.endpoint} sent a message that this version cannot decode: {e}. Run replay"
                    " server and learner with the same version of Shoal."
                ) from e
            batch = session.handle(message, payload, now)
            if batch is not None:
                self._received.append(batch)

    def _request(self, now: float) -> None:
        """Requests batches until `prefetch` of them are requested or received."""
        ready = [session for session in self._sessions if session.opened and not session.wait_reason]
        while ready and len(self._received) + sum(len(session.requests) for session in ready) < self._prefetch:
            session = self._next_session(ready)
            self._requested += 1
            if not session.request(SampleRequest(self._requested, self._batch), now):
                ready.remove(session)

    def _next_session(self, ready: list[ReplaySession]) -> ReplaySession:
        """Returns the session of the next request; each server's part is in proportion to its transitions.

        Start-time fair queueing (Goyal et al. 1996): a server that was absent does not catch up on missed requests.
        """
        session = min(ready, key=lambda session: session.virtual_time)
        self._virtual_time = max(self._virtual_time, session.virtual_time)
        session.virtual_time = self._virtual_time + 1.0 / max(session.size, 1)
        return session
