"""A worker's session with its replay server, and its subscription to the learner's weights.

The supervisor has a separate connection, for workers that cannot report (`monitoring/busy_reporter.py`).

    worker --Hello--> replay            each second until Welcome; NotReady: no learner has opened the run yet
    worker --Chunk--> replay            while the credit lasts; pending until acknowledged
    worker --ActorReport--> replay      each second; the replay answers with an Ack, so silence means a lost server
    learner --weights--> worker         PUB/SUB, newest frame only; the first weights come with the Welcome

| waits for          | ended by                                                 |
|--------------------|----------------------------------------------------------|
| the replay server  | a Welcome or a NotReady (a Hello each second asks for it)|
| the run            | a Welcome, once a learner has opened the run             |
| weights            | a broadcast, or the payload of a Welcome                 |
| credit             | an Ack with more credit, once the learner has sampled    |
"""

from __future__ import annotations

import logging

import zmq

from actor_node.outbox import Outbox, make_chunk
from common.errors import PeerError, ProtocolError, ShoalError
from common.policy.network import weight_count
from common.run.run import Run
from common.wire.audit import Acknowledged, AuditFile, Sent, digest
from common.wire.client import Client
from common.wire.codec import Buffer
from common.wire.keys import Keys
from common.wire.messages import (
    Ack,
    ActorReport,
    Bye,
    Fenced,
    Gap,
    Hello,
    NotReady,
    Refused,
    ToPeer,
    Unknown,
    Welcome,
)
from common.wire.refusals import Refusals
from common.wire.sockets import connect_secure, make_socket
from common.wire.weights import MAGIC, MAX_WEIGHTS_BYTES, Weights, unpack_weights

HELLO_PERIOD_S = 1.0
SILENCE_TIMEOUT_S = 5.0
"""The worker sends Hello again if it receives nothing from the replay server within this time."""
ACK_TIMEOUT_S = 10.0
"""The worker sends Hello again if none of the chunks in flight is acknowledged within this time: a lost connection may
have lost them."""
LINGER_MS = 200
"""Longest time that closing waits for the Bye to be sent."""

_log = logging.getLogger(__name__)


class ReplaySession:
    """One worker's session with a replay server, and the newest weights. All times are monotonic seconds.

    The learner's session, which requests batches, is the class of this name in learner_node/replay/replay_session.py.

    Example:
        session = ReplaySession("node-0", "tcp://replay:5555", "tcp://learner:5556")
        session.poll(time.monotonic(), timeout_s=0.05)          # until session.waiting_for() == ("", "")
        session.add_chunk(256, session.weights.header.version, payload)
    """

    def __init__(
        self,
        actor: str,
        replay_url: str,
        weights_url: str,
        audit: AuditFile | None = None,
        keys: Keys | None = None,
    ) -> None:
        """Connects in the background; ConfigError for an invalid address."""
        self._actor, self._audit, self._audited = actor, audit, 0
        self._context = zmq.Context()
        self._client = Client(self._context, replay_url, keys=keys)
        self._broadcast = make_socket(self._context, zmq.SUB, max_frame_bytes=MAX_WEIGHTS_BYTES)
        self._broadcast.setsockopt(zmq.CONFLATE, 1)
        self._broadcast.setsockopt(zmq.SUBSCRIBE, MAGIC)
        self._weights_error = ""
        self._weights_handshake = connect_secure(self._broadcast, weights_url, "--weights", keys, "learner")
        self._poller = zmq.Poller()
        self._poller.register(self._client.socket, zmq.POLLIN)
        self._poller.register(self._broadcast, zmq.POLLIN)
        self.outbox = Outbox()
        self.run: Run | None = None
        self.weights: Weights | None = None
        self.weights_at = 0.0
        self.weights_rejected = 0
        """Number of rejected frames."""
        self.rejection_reason = ""
        """Why the newest frame was rejected; empty if it was accepted. Reports call it `weights_refused`."""
        self._refusals = Refusals(self._client.endpoint, "actor")
        self._admitted = False
        self._received_at = self._hello_at = -SILENCE_TIMEOUT_S
        self._acked_at = 0.0
        """When a chunk was last acknowledged, or none was in flight."""
        self._not_ready = ""
        """What the replay server waits for before it admits actors; empty if unknown."""
        self._credit_reason = ""
        """What more credit waits for; empty if unknown."""

    def waiting_for(self) -> tuple[str, str]:
        """Returns the kind of wait ("replay", "weights", "credit") and its reason; ("", "") if the worker may collect.

        The reason is a noun phrase after "waiting for".
        """
        if self._not_ready:
            return "replay", self._not_ready
        if not self._admitted:
            error = self._client.connection_error(_log)
            return "replay", _with_reason(f"the replay server at {self._client.endpoint}", error)
        if self.weights is None:
            rejected = f"rejected: {self.rejection_reason}" if self.rejection_reason else ""
            return "weights", _with_reason("the learner's first weights", rejected or self._weights_error)
        if not self.outbox.has_credit:
            return "credit", self._credit_reason or "acknowledgements of the replay server"
        return "", ""

    def poll(self, now: float, timeout_s: float = 0.0) -> None:
        """Handles all messages that have arrived, waiting up to `timeout_s` for the first, then sends what is due.

        Raises PeerError if the replay server refuses this actor repeatedly, and ShoalError if the worker must restart.
        """
        if timeout_s:
            self._poller.poll(int(timeout_s * 1_000))
        while received := self._receive():
            self._received_at = now
            self._handle(*received, now)
        self._weights_error = self._weights_handshake.log_changes(_log)
        self._receive_weights(now)
        self._check_timeouts(now)
        if self._admitted:
            self._send_chunks()
        elif now - self._hello_at >= HELLO_PERIOD_S:
            self._send_hello(now)
        if self._audit and self.outbox.acked > self._audited:
            self._audited = self.outbox.acked
            self._audit.write(Acknowledged(self._actor, self.outbox.incarnation, self._audited))

    def add_chunk(
        self, count: int, policy_version: int, payload: Buffer, *, copies: int = 0, ends: bytes = b""
    ) -> None:
        """Adds a chunk of `count` records, and sends it now or once the connection allows.

        policy_version: of the weights that chose the actions. copies: world copies that stepped together; 0 = unknown.
        ends: one bit a record, highest bit first: whether the episode ended with it.
        """
        if self.run is None:
            raise RuntimeError("add_chunk() before the run is known")
        pending = make_chunk(
            payload,
            actor=self._actor,
            incarnation=self.outbox.incarnation,
            seq=self.outbox.next_seq,
            count=count,
            policy_version=policy_version,
            data_hash=self.run.data_hash,
            run=self.run.id,
            copies=copies,
            ends=ends,
        )
        if self._audit:
            self._audit.write(Sent(self._actor, pending.chunk.incarnation, pending.chunk.seq, count, digest(payload)))
        self.outbox.add(pending)
        if self._admitted:
            self._send_chunks()

    def report(self, report: ActorReport) -> None:
        """Sends the worker's report if the replay server has admitted the worker."""
        if self._admitted:
            self._client.send(report)

    def exclude_pause(self, seconds: float) -> None:
        """Excludes a time without `poll` from the time-outs: it proves nothing about the replay server."""
        self._received_at += seconds
        self._acked_at += seconds

    def close(self) -> None:
        """Sends Bye and closes the sockets; unacknowledged chunks are lost."""
        if self._admitted:
            self._client.send(Bye(self._actor, self.outbox.incarnation))
        self._context.destroy(linger=LINGER_MS)

    def _receive(self) -> tuple[ToPeer, Buffer | None] | None:
        try:
            return self._client.receive()
        except ProtocolError as e:
            _log.warning("ignored a malformed reply: replay=%s error=%s", self._client.endpoint, e)
            return None

    def _check_timeouts(self, now: float) -> None:
        """Ends the session after silence, or if no chunk in flight was acknowledged; a Hello starts the next one."""
        endpoint = self._client.endpoint
        if now - self._received_at > SILENCE_TIMEOUT_S:
            self._not_ready = ""
            if self._admitted:
                _log.warning("no answer, reconnecting: replay=%s silence_s=%.0f", endpoint, SILENCE_TIMEOUT_S)
            self._admitted = False
        if not self.outbox.in_flight:
            self._acked_at = now
        elif self._admitted and now - self._acked_at > ACK_TIMEOUT_S:
            _log.warning(
                "no acknowledgement, reconnecting to send again: replay=%s silence_s=%.0f chunks=%d",
                endpoint,
                ACK_TIMEOUT_S,
                self.outbox.in_flight,
            )
            self._admitted, self._acked_at = False, now

    def _send_hello(self, now: float) -> None:
        data_hash, run = (self.run.data_hash, self.run.id) if self.run else ("", "")
        # Without a connection it is not sent and is tried again at the next poll, not in a second.
        if self._client.send(Hello(self._actor, self.outbox.incarnation, self.outbox.acked, data_hash, run)):
            self._hello_at = now

    def _send_chunks(self) -> None:
        while (pending := self.outbox.next_to_send()) and self._client.send(*pending):
            self.outbox.mark_sent()

    def _handle(self, message: ToPeer, payload: Buffer | None, now: float) -> None:
        match message:
            case Ack() if message.incarnation == self.outbox.incarnation:
                if message.stored > self.outbox.acked:
                    self._acked_at = now
                    self._refusals.reset()
                self.outbox.on_ack(message.stored, message.credit)
                self._credit_reason = message.reason
            case Gap() if message.incarnation == self.outbox.incarnation:
                self.outbox.on_gap(message.received)
            case Welcome():
                self._admit(message, payload, now)
            case NotReady():
                self._not_ready = message.reason
            case Unknown():
                self._admitted = False
            case Fenced():
                raise PeerError(f"another worker named {self._actor} replaced this one; give each node its own --name")
            case Refused():
                self._refusals.add(message.reason)
                self._admitted = False
            case _:
                _log.debug("ignored %s", message)

    def _admit(self, welcome: Welcome, weights: Buffer | None, now: float) -> None:
        endpoint = self._client.endpoint
        if self.run is not None and not _acts_alike(self.run, welcome.run):
            raise ShoalError(f"{endpoint} serves another run, or other settings of the run; the worker restarts")
        if self.outbox.incarnation not in (0, welcome.incarnation):
            raise ShoalError(f"{endpoint} assigned a different incarnation; the worker restarts")
        self.run, self._not_ready, self._admitted = welcome.run, "", True
        self.outbox.on_welcome(welcome.incarnation, welcome.stored, welcome.credit)
        if weights is not None and len(weights):
            self._accept_weights(weights, now)

    def _receive_weights(self, now: float) -> None:
        try:
            frame = self._broadcast.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return
        if self.run is not None:
            self._accept_weights(frame.buffer, now)

    def _accept_weights(self, frame: Buffer, now: float) -> None:
        """Accepts weights of this run with a correct digest; an equal version proves only that the learner is alive."""
        try:
            weights = unpack_weights(frame)
        except ProtocolError as e:
            self._reject(str(e))
            return
        run, header = self.run, weights.header
        if run is None or (header.run, header.data_hash) != (run.id, run.data_hash):
            self._reject(f"the weights belong to run {header.run}")
        elif weights.flat.size != (needed := weight_count(run.players, run.spec.network)):
            self._reject(f"{weights.flat.size} numbers do not fit policies of {needed}")
        else:
            self.rejection_reason = ""
            if self.weights is None or weights.header.version >= self.weights.header.version:
                self.weights, self.weights_at = weights, now

    def _reject(self, reason: str) -> None:
        self.weights_rejected += 1
        self.rejection_reason = reason
        _log.warning("weights rejected: reason=%s", reason)


def _acts_alike(old: Run, new: Run) -> bool:
    """Returns whether a worker of the old run may collect for the new one: their budgets may differ."""
    same_settings = (old.spec.network, old.spec.exploration) == (new.spec.network, new.spec.exploration)
    return old.id == new.id and old.data_hash == new.data_hash and same_settings


def _with_reason(text: str, reason: str) -> str:
    return f"{text} ({reason})" if reason else text
