"""A worker's connections: chunks to one replay server, weights from the learner. The only file with sockets here.

    worker --Hello--> replay            until Welcome (NotReady: the run is not defined yet; ask again each second)
    worker --Chunk--> replay            while credit lasts; kept until acknowledged
    worker --ActorReport--> replay      each second; answered by an Ack, so silence means a lost server
    learner --weights--> worker         PUB/SUB, newest only; the first ones come with the Welcome

| waits for          | frees it                                             |
|--------------------|------------------------------------------------------|
| the replay server  | a Welcome or NotReady (asked for each second)        |
| the run            | Welcome instead of NotReady, when a learner opened it |
| weights            | a broadcast, or the payload of a Welcome             |
| credit             | an Ack with more: the learner sampled enough         |
"""

from __future__ import annotations

import logging

import zmq

from actor_node.outbox import Outbox, PendingChunk
from common.errors import PeerError, ProtocolError, ShoalError
from common.policy.network import weight_count
from common.run.run import Run
from common.wire.audit import Acknowledged, AuditFile, Sent, digest
from common.wire.client import Client
from common.wire.codec import Buffer, checksum
from common.wire.keys import Keys
from common.wire.messages import (
    Ack,
    ActorReport,
    Busy,
    Bye,
    Chunk,
    Fenced,
    Gap,
    Hello,
    NotReady,
    Refused,
    ToPeer,
    Unknown,
    Welcome,
)
from common.wire.sockets import connect_secure, make_socket
from common.wire.weights import MAGIC, MAX_WEIGHTS_BYTES, Weights, unpack_weights

HELLO_PERIOD_S = 1.0
SILENCE_S = 5.0
"""With no word from the replay for so long, the worker introduces itself again."""
STANDSTILL_S = 10.0
"""With chunks sent and none acknowledged for so long, too: they may have been lost with a connection."""
FAREWELL_MS = 200
"""Longest wait for the good-bye to leave."""

_log = logging.getLogger(__name__)


class ReplaySession:
    """Keeps one worker's session with the replay and its newest weights. All times are monotonic seconds."""

    def __init__(
        self,
        actor: str,
        replay_url: str,
        weights_url: str,
        audit: AuditFile | None = None,
        keys: Keys | None = None,
    ) -> None:
        """Connects in the background; ConfigError when an address cannot be one."""
        self._actor, self._audit, self._audited = actor, audit, 0
        self._context = zmq.Context()
        self._client = Client(self._context, replay_url, keys=keys)
        self._broadcast = make_socket(self._context, zmq.SUB, max_frame_bytes=MAX_WEIGHTS_BYTES)
        self._broadcast.setsockopt(zmq.CONFLATE, 1)
        self._broadcast.setsockopt(zmq.SUBSCRIBE, MAGIC)
        self._weights_trouble = ""
        self._weights_handshake = connect_secure(self._broadcast, weights_url, "--weights", keys, "learner")
        self._poller = zmq.Poller()
        self._poller.register(self._client.socket, zmq.POLLIN)
        self._poller.register(self._broadcast, zmq.POLLIN)
        self.outbox = Outbox()
        self.run: Run | None = None
        self.weights: Weights | None = None
        self.weights_at = 0.0
        self.weights_rejected = 0
        self.weights_refused = ""
        """Why the newest frame was refused; empty if it was accepted."""
        self._admitted = False
        self._heard_at = self._hello_at = -SILENCE_S
        self._acked_at = 0.0
        """When the last acknowledgement got further, or nothing was left to acknowledge."""
        self._no_run = ""
        self._no_credit = ""

    def waiting_for(self) -> tuple[str, str]:
        """Returns who is waited for (replay, weights, credit) and the reason in words; ("", "") when nobody is."""
        if self._no_run:
            return "replay", self._no_run
        if not self._admitted:
            return "replay", _with(f"the replay server at {self._client.endpoint}", self._client.connection_error(_log))
        if self.weights is None:
            refused = f"refused: {self.weights_refused}" if self.weights_refused else ""
            return "weights", _with("the learner's first weights", refused or self._weights_trouble)
        if not self.outbox.may_add:
            return "credit", self._no_credit or "acknowledgements of the replay server"
        return "", ""

    def pump(self, now: float, timeout_s: float = 0.0) -> None:
        """Takes all that has arrived (waiting up to `timeout_s` for something), then sends all that may be sent.

        PeerError when the replay refuses this actor for good, ShoalError when the worker must begin anew.
        """
        if timeout_s:
            self._poller.poll(int(timeout_s * 1_000))
        while received := self._receive():
            self._heard_at = now
            self._take(*received, now)
        self._weights_trouble = self._weights_handshake.log_changes(_log)
        self._take_broadcast(now)
        self._doubt(now)
        if self._admitted:
            self._send_chunks()
        elif now - self._hello_at >= HELLO_PERIOD_S:
            self._hello(now)
        if self._audit and self.outbox.acked > self._audited:
            self._audited = self.outbox.acked
            self._audit.write(Acknowledged(self._actor, self.outbox.incarnation, self._audited))

    def add_chunk(
        self, count: int, policy_version: int, payload: Buffer, *, copies: int = 0, ends: bytes = b""
    ) -> None:
        """Hands over a chunk of records; it is sent now or when the connection allows. See Chunk for the last two."""
        if self.run is None:
            raise RuntimeError("a chunk before the run is known")
        chunk = Chunk(
            self._actor,
            self.outbox.incarnation,
            self.outbox.next_seq,
            count,
            policy_version,
            checksum(payload),
            self.run.data_hash,
            copies,
            ends,
        )
        if self._audit:
            self._audit.write(Sent(chunk.actor, chunk.incarnation, chunk.seq, count, digest(payload)))
        self.outbox.add(PendingChunk(chunk, payload))
        if self._admitted:
            self._send_chunks()

    def report(self, report: ActorReport) -> None:
        """Sends the worker's figures, if the replay knows it."""
        if self._admitted:
            self._client.send(report)

    def was_away(self, seconds: float) -> None:
        """Notes that nothing was listened to for so long: that silence says nothing about the replay server."""
        self._heard_at += seconds
        self._acked_at += seconds

    def close(self) -> None:
        """Says good-bye and closes; nothing un-acknowledged is kept."""
        if self._admitted:
            self._client.send(Bye(self._actor, self.outbox.incarnation))
        self._context.destroy(linger=FAREWELL_MS)

    def _receive(self) -> tuple[ToPeer, Buffer | None] | None:
        try:
            return self._client.receive()
        except ProtocolError as e:
            _log.warning("ignored an answer of %s: %s", self._client.endpoint, e)
            return None

    def _doubt(self, now: float) -> None:
        """Stops believing in a session that gives no sign of life."""
        endpoint = self._client.endpoint
        if now - self._heard_at > SILENCE_S:
            self._no_run = ""
            if self._admitted:
                _log.warning("no word from %s for %.0f s; introducing myself again", endpoint, SILENCE_S)
            self._admitted = False
        if not self.outbox.under_way:
            self._acked_at = now
        elif self._admitted and now - self._acked_at > STANDSTILL_S:
            _log.warning(
                "%s has acknowledged nothing for %.0f s; introducing myself again, to send again %d chunks",
                endpoint,
                STANDSTILL_S,
                self.outbox.under_way,
            )
            self._admitted, self._acked_at = False, now

    def _hello(self, now: float) -> None:
        data_hash = self.run.data_hash if self.run else ""
        # Unsent for want of a connection, it is tried again at once, not in a second.
        if self._client.send(Hello(self._actor, self.outbox.incarnation, self.outbox.acked, data_hash)):
            self._hello_at = now

    def _send_chunks(self) -> None:
        while (parcel := self.outbox.next_to_send()) and self._client.send(parcel.chunk, parcel.payload):
            self.outbox.sent()

    def _take(self, message: ToPeer, payload: Buffer | None, now: float) -> None:
        match message:
            case Ack() if message.incarnation == self.outbox.incarnation:
                if message.stored > self.outbox.acked:
                    self._acked_at = now
                self.outbox.on_ack(message.stored, message.credit)
                self._no_credit = message.reason
            case Gap() if message.incarnation == self.outbox.incarnation:
                self.outbox.on_gap(message.received)
            case Welcome():
                self._admit(message, payload, now)
            case NotReady():
                self._no_run = message.reason
            case Unknown():
                self._admitted = False
            case Fenced():
                raise PeerError(
                    f"another worker named {self._actor} has taken this one's place; give nodes their own --name"
                )
            case Refused():
                raise PeerError(f"{self._client.endpoint} refuses this actor: {message.reason}")
            case _:
                _log.debug("ignored %s", message)

    def _admit(self, welcome: Welcome, weights: Buffer | None, now: float) -> None:
        endpoint = self._client.endpoint
        if self.run is not None and not _acts_alike(self.run, welcome.run):
            raise ShoalError(f"{endpoint} serves another run now, or other settings of it; this worker begins anew")
        if self.outbox.incarnation not in (0, welcome.incarnation):
            raise ShoalError(f"{endpoint} takes this worker for another one's successor; it begins anew")
        self.run, self._no_run, self._admitted = welcome.run, "", True
        self.outbox.on_welcome(welcome.incarnation, welcome.stored, welcome.credit)
        if weights is not None and len(weights):
            self._take_weights(weights, now)

    def _take_broadcast(self, now: float) -> None:
        try:
            frame = self._broadcast.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return
        if self.run is not None:
            self._take_weights(frame.buffer, now)

    def _take_weights(self, frame: Buffer, now: float) -> None:
        """Takes weights that pass digest and run; the same version again only proves that the learner lives."""
        try:
            weights = unpack_weights(frame)
        except ProtocolError as e:
            self._reject(str(e))
            return
        run, header = self.run, weights.header
        if run is None or (header.run, header.data_hash) != (run.id, run.data_hash):
            self._reject(f"they belong to run {header.run}")
        elif weights.flat.size != (needed := weight_count(run.players, run.spec.network)):
            self._reject(f"{weights.flat.size} numbers do not fit policies of {needed}")
        else:
            self.weights_refused = ""
            if self.weights is None or weights.header.version >= self.weights.header.version:
                self.weights, self.weights_at = weights, now

    def _reject(self, reason: str) -> None:
        self.weights_rejected += 1
        self.weights_refused = reason
        _log.warning("refused weights: %s", reason)


class Proxy:
    """Speaks to replay servers for workers whose environments keep them from it. Connects when first needed."""

    def __init__(self, keys: Keys | None = None) -> None:
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._clients: dict[str, Client] = {}

    def say(self, replay_url: str, busy: Busy) -> None:
        """Sends, if the connection takes it; the next one comes soon."""
        if self._context is None:
            self._context = zmq.Context()
        if replay_url not in self._clients:
            self._clients[replay_url] = Client(self._context, replay_url, keys=self._keys)
        self._clients[replay_url].send(busy)

    def close(self) -> None:
        """Closes the connections."""
        if self._context is not None:
            self._context.destroy(linger=0)


def _acts_alike(held: Run, new: Run) -> bool:
    """Says whether a worker that has begun with one run may go on with the other: the budget does not concern it."""
    same_settings = (held.spec.network, held.spec.exploration) == (new.spec.network, new.spec.exploration)
    return held.id == new.id and held.data_hash == new.data_hash and same_settings


def _with(what: str, why: str) -> str:
    return f"{what} ({why})" if why else what
