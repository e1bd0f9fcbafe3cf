"""The actors' sessions: they accept each chunk once and in order. Pure.

a chunk's seq is ...      received + 1            the next chunk: it is inserted into the ring
                          at most `received`      a duplicate: it is acknowledged again
                          beyond received + 1     a gap: the message Gap asks the actor to send again from received + 1
its incarnation is ...    the session's           as above
                          older                   Fenced: a newer worker has replaced the sender
                          newer, or no session    Unknown: this server does not know the sender, which must send Hello

An absent actor's session stays, because its sequence number prevents duplicates when the actor returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

import msgspec

from common.wire.messages import Ack, ActorReport, Busy, Bye, Chunk, Fenced, Gap, Hello, Refused, Unknown
from replay_server.sessions.session import ActorSession, Reply

MAX_SESSIONS = 10_000
"""Maximum number of sessions, absent actors included. Beyond it, the actor that is silent for longest is forgotten."""
GAP_PERIOD_S = 1.0
"""Minimum time between two Gap messages to an actor [s]: chunks already in flight must not cause further ones."""


class SeqPosition(Enum):
    """Position of a chunk's seq in its session."""

    NEXT = auto()
    DUPLICATE = auto()
    GAP = auto()
    BEYOND_CREDIT = auto()


class Actors:
    """The table of sessions, by actor."""

    def __init__(self) -> None:
        self.sessions: dict[str, ActorSession] = {}
        self.forgotten: list[str] = []
        """Actors forgotten since this list was last emptied."""

    def live(self, now: float) -> Iterator[ActorSession]:
        """Yields the sessions with a valid lease: of actors that sent something within the last 15 s (`LEASE_S`)."""
        return (session for session in self.sessions.values() if session.live(now))

    def join(self, peer: bytes, hello: Hello, now: float) -> tuple[ActorSession | None, list[Reply]]:
        """Returns the session of an actor that sent Hello (None if it is rejected), and the replies to send."""
        known = self.sessions.get(hello.actor)
        if known and 0 < hello.incarnation < known.incarnation:
            return None, [Reply(peer, Fenced(known.incarnation))]
        replies: list[Reply] = []
        # From the same connection, incarnation 0 is a repeated Hello, sent before the Welcome arrived.
        if known and (hello.incarnation == known.incarnation or (known.peer == peer and not hello.incarnation)):
            session = known
        else:
            if known is None and not self._make_room(now):
                return None, [Reply(peer, Refused(f"{MAX_SESSIONS:,} actors are connected; stop some of them."))]
            incarnation = hello.incarnation or (known.incarnation if known else 0) + 1
            replies = _fence(known, peer, incarnation)
            session = self.restore(hello.actor, incarnation, 0)
            session.rejoined = hello.incarnation > 0
            if known:
                session.restarts, session.last_fault = known.restarts, known.last_fault
                session.faulted_at = known.faulted_at
        if hello.incarnation:
            # A restarted server trusts the actor: acknowledged chunks are not sent again.
            session.durable = max(session.durable, hello.acked)
            session.received = max(session.received, hello.acked)
            session.credit = max(session.credit, session.received)
        session.peer, session.last_seen_at = peer, now
        return session, replies

    def restore(self, actor: str, incarnation: int, seq: int) -> ActorSession:
        """Makes a session of which every chunk up to `seq` is inserted and durable."""
        session = ActorSession(actor, incarnation, received=seq, durable=seq, credit=seq, rejoined=seq > 0)
        self.sessions[actor] = session
        return session

    def find(self, peer: bytes, message: Chunk | ActorReport, now: float) -> ActorSession | Reply:
        """Returns the session a message belongs to, or the reply that rejects it.

        A known incarnation may return under another routing id: ZeroMQ reconnects without notice.
        """
        session = self.sessions.get(message.actor)
        if session is None or session.peer is None or message.incarnation > session.incarnation:
            return Reply(peer, Unknown())
        if message.incarnation < session.incarnation:
            return Reply(peer, Fenced(session.incarnation))
        session.peer, session.last_seen_at = peer, now
        return session

    def take_report(self, session: ActorSession, report: ActorReport, now: float) -> None:
        """Stores an actor's newest report, which an Ack must answer."""
        session.restarts = max(session.restarts, report.restarts)
        if report.last_fault and report.last_fault != session.last_fault:
            session.last_fault, session.faulted_at = report.last_fault, now
        session.report, session.owed_ack = report, True

    def renew_lease(self, busy: Busy, now: float) -> None:
        """Renews the lease of an actor whose supervisor reports it as busy. Does not create a session."""
        session = self.sessions.get(busy.actor)
        if session is None or session.peer is None or session.incarnation != busy.incarnation:
            return
        session.last_seen_at = now
        if session.report is not None:
            session.report = msgspec.structs.replace(session.report, doing=busy.doing)

    def faults(self) -> tuple[int, str]:
        """Returns how often workers were restarted, and the reason of the last restart."""
        sessions = self.sessions.values()
        last = max(sessions, key=lambda session: session.faulted_at, default=None)
        return sum(session.restarts for session in sessions), last.last_fault if last else ""

    def leave(self, bye: Bye) -> None:
        """Ends a session; its sequence number stays known."""
        session = self.sessions.get(bye.actor)
        if session and session.incarnation == bye.incarnation:
            session.peer, session.report = None, None
            session.credit = session.received

    def acknowledge(self, reason: str) -> list[Reply]:
        """Returns the Acks that are due. reason: what an actor without credit waits for."""
        replies = []
        for session in self.sessions.values():
            if session.owed_ack and session.peer is not None:
                session.owed_ack = False
                waits = session.credit <= session.received
                ack = Ack(session.incarnation, session.durable, session.credit, reason if waits else "")
                replies.append(Reply(session.peer, ack))
        return replies

    def _make_room(self, now: float) -> bool:
        if len(self.sessions) < MAX_SESSIONS:
            return True
        absent = [session for session in self.sessions.values() if not session.live(now)]
        if not absent:
            return False
        oldest = min(absent, key=lambda session: session.last_seen_at)
        del self.sessions[oldest.actor]
        self.forgotten.append(oldest.actor)
        return True


def seq_position(session: ActorSession, seq: int) -> SeqPosition:
    """Returns the position of a chunk's seq in its session."""
    if seq <= session.received:
        return SeqPosition.DUPLICATE
    if seq > session.received + 1:
        return SeqPosition.GAP
    return SeqPosition.NEXT if seq <= session.credit else SeqPosition.BEYOND_CREDIT


def request_resend(session: ActorSession, now: float) -> list[Reply]:
    """Returns a Gap that asks an actor to send again from the next seq on; none within GAP_PERIOD_S of the last."""
    if session.peer is None or now - session.gap_sent_at < GAP_PERIOD_S:
        return []
    session.gap_sent_at = now
    return [Reply(session.peer, Gap(session.incarnation, session.received))]


def _fence(old: ActorSession | None, peer: bytes, incarnation: int) -> list[Reply]:
    if old is None or old.peer is None or old.peer == peer:
        return []
    return [Reply(old.peer, Fenced(incarnation))]
