"""The learners and their requests for batches, served in fair order. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from common.wire.messages import Batch, Held, LearnerReport, Refused, SampleRequest
from replay_server.sessions.session import LEASE_S, Reply
from replay_server.table.table import Table

MAX_LEARNERS = 64
MAX_REQUESTS = 64
"""Maximum number of waiting requests of one learner."""
FORGET_S = 60.0
"""A learner that is silent for this time [s] is dropped with its requests; it must open the run again."""
WAIT_REPORT_PERIOD_S = 1.0
"""Time between two Held for one request [s]."""


@dataclass(slots=True)
class WaitingRequest:
    """A request that has not been served."""

    message: SampleRequest
    last_sent_at: float
    """When the request arrived, or when the last Held was sent for it."""


@dataclass(slots=True)
class LearnerSession:
    """One peer that has opened the run."""

    name: str
    peer: bytes
    last_seen_at: float
    requests: deque[WaitingRequest] = field(default_factory=deque)


class Learners:
    """The table of learners, by routing id."""

    def __init__(self) -> None:
        self._by_peer: dict[bytes, LearnerSession] = {}
        self.report: LearnerReport | None = None
        """The newest report of any learner."""
        self.last_seen_at = 0.0
        """Monotonic time of the last message of any learner."""

    def __len__(self) -> int:
        return len(self._by_peer)

    def live(self, now: float) -> list[LearnerSession]:
        """Returns the learners with a valid lease: those that sent something within the last 15 s (`LEASE_S`)."""
        return [learner for learner in list(self._by_peer.values()) if now - learner.last_seen_at <= LEASE_S]

    def open(self, peer: bytes, name: str, now: float) -> list[Reply]:
        """Adds a learner. Drops earlier requests of a learner with this name, from any routing id."""
        self._by_peer = {id_: learner for id_, learner in self._by_peer.items() if learner.name != name}
        if len(self._by_peer) >= MAX_LEARNERS:
            return [Reply(peer, Refused(f"{MAX_LEARNERS} learners are connected; stop one of them."))]
        self._by_peer[peer] = LearnerSession(name, peer, now)
        self.last_seen_at = now
        return []

    def find(self, peer: bytes, now: float) -> LearnerSession | None:
        """Returns the learner behind a routing id and renews its lease."""
        learner = self._by_peer.get(peer)
        if learner:
            learner.last_seen_at = self.last_seen_at = now
        return learner

    @property
    def finished(self) -> bool:
        """Whether the newest report says that the run has used its budget."""
        return self.report is not None and self.report.finished

    def enqueue(self, learner: LearnerSession, message: SampleRequest, now: float) -> list[Reply]:
        """Queues a request, or refuses it if too many wait."""
        if len(learner.requests) >= MAX_REQUESTS:
            return [Reply(learner.peer, Refused(f"{MAX_REQUESTS} requests wait already; receive batches first."))]
        learner.requests.append(WaitingRequest(message, now))
        return []

    def serve(self, table: Table) -> list[Reply]:
        """Returns the batches that the rate limiter allows, round robin over learners, oldest request first."""
        replies: list[Reply] = []
        while served := [
            self._batch(learner, table) for learner in self._by_peer.values() if _servable(learner, table)
        ]:
            replies += served
        return replies

    def waiting(self) -> Iterator[tuple[LearnerSession, WaitingRequest]]:
        """Yields the requests that wait."""
        return ((learner, request) for learner in self._by_peer.values() for request in learner.requests)

    def report_waits(self, table: Table, reason: str, now: float) -> list[Reply]:
        """Returns a Held for each request that has had no reply for a second."""
        replies = []
        for learner, waiting in self.waiting():
            if now - waiting.last_sent_at >= WAIT_REPORT_PERIOD_S:
                waiting.last_sent_at = now
                notice = Held(waiting.message.request, table.limiter.inserts, reason)
                replies.append(Reply(learner.peer, notice))
        return replies

    def forget_silent(self, now: float) -> None:
        """Drops learners that have been silent for FORGET_S."""
        silent = [peer for peer, learner in self._by_peer.items() if now - learner.last_seen_at > FORGET_S]
        for peer in silent:
            self.forget(peer)

    def forget(self, peer: bytes) -> None:
        """Drops a learner that cannot be reached, with its requests."""
        self._by_peer.pop(peer, None)

    def _batch(self, learner: LearnerSession, table: Table) -> Reply:
        message = learner.requests.popleft().message
        payload = table.sample(message.count)
        return Reply(learner.peer, Batch(message.request, message.count, table.limiter.inserts, table.size), payload)


def _servable(learner: LearnerSession, table: Table) -> bool:
    return bool(learner.requests) and table.limiter.may_sample(learner.requests[0].message.count, table.size)
