"""The server: the one loop between the socket, the replay and the chunk log.

    peers --frames--> ROUTER --messages--> Replay.handle --replies--> ROUTER --frames--> peers
                                              | writes          ^ committed numbers
                                              v                 |
                                           Committer (thread) --+--> Redis

| who waits          | for what                              | what ends the wait                                   |
|--------------------|---------------------------------------|------------------------------------------------------|
| this loop          | a message, a commit, at most 50 ms    | the message, the commit, the end of that time        |
| the committer      | writes; Redis                         | this loop; Redis' answer, with back-off              |
| an actor           | a run                                 | the first learner's Open                             |
| an actor           | credit                                | a learner that samples; the committer; another lease |
| an actor           | credit after the end of the run       | a learner that continues the run or opens another    |
| an actor           | an acknowledgement                    | the committer (level ram: this iteration)            |
| a learner          | a batch                               | actors' chunks; until then Held, each second         |

Nothing here waits for a peer: replies that a peer does not read are dropped with its connection, and the peer asks
again for what it needs.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable

import zmq

from common.errors import ConfigError, ProtocolError
from common.process.monitoring.health import Health
from common.process.monitoring.logs import WaitLog
from common.process.monitoring.resources import private_bytes
from common.process.stop import Stop
from common.wire.authenticator import Authenticator
from common.wire.codec import MAX_PEER_FRAME_BYTES, decode_from_peer, encode
from common.wire.keys import ClientKind, Keys
from common.wire.messages import FromPeer, LearnerReport, Open, Priorities, PutWeights, Refused, SampleRequest
from common.wire.sockets import bind, make_socket, receive_from, send
from replay_server.durability.committer import Committer
from replay_server.memory_guard import MAX_EXTRA_BYTES_PER_RECORD, MemoryGuard
from replay_server.metrics import Timings
from replay_server.replay import Replay
from replay_server.sessions.session import Reply

POLL_TIMEOUT_MS = 50
"""Longest wait for a message [ms], and so the longest time between two checks of waits and dead connections."""
MAX_MESSAGES_PER_ITERATION = 64
"""Maximum number of messages handled before batches, credit and acknowledgements are sent."""
MAX_SEND_QUEUE = 256
"""Maximum number of replies that a peer has not read; further replies to it are dropped."""
MAX_RECEIVE_QUEUE = 64
"""Maximum number of messages that wait here for each peer; further messages wait at the peer.

An actor's window of chunks must fit.
"""
DRAIN_TIMEOUT_S = 3.0
"""Longest wait for the log at shutdown [s]."""
FAILING_DRAIN_TIMEOUT_S = 1.0
"""Longest wait at shutdown for a log that already fails [s]."""

PEER_BYTES = 2**30
"""Default limit of the memory that incomplete messages may take [bytes]."""
MEMORY_CHECK_PERIOD_S = 0.25
"""Time between two checks of the memory in use [s]."""
REBIND_WAIT_S = 0.5
"""Wait for freed memory to return to the system after all connections are closed [s]."""
LEARNERS_ONLY = (Open, SampleRequest, Priorities, PutWeights, LearnerReport)
"""Messages that a client with an actor's key may not send: they could replace the run or its policies."""

_log = logging.getLogger(__name__)


class Server:
    """Serves one replay on one ROUTER socket."""

    def __init__(
        self,
        replay: Replay,
        endpoint: str,
        committer: Committer | None,
        timings: Timings,
        keys: Keys | None = None,
        *,
        peer_bytes: int = PEER_BYTES,
    ) -> None:
        """Binds; ConfigError when the address cannot be bound, or the allowed keys cannot be read.

        peer_bytes: memory that incomplete messages may take.
        """
        self._replay, self._committer, self._timings, self._keys = replay, committer, timings, keys
        self._memory_guard, self._memory_check_at = MemoryGuard(peer_bytes), 0.0
        self._context = zmq.Context()
        self._authenticator = Authenticator(self._context, keys) if keys else None
        self._poller = zmq.Poller()
        if committer:
            self._poller.register(committer.wake_up, zmq.POLLIN)
        self._wait_logs = [
            (WaitLog(logging.getLogger(f"{__name__}.{wait.side}")), wait)
            for wait in (replay.actors_wait, replay.learner_wait)
        ]
        try:
            self.endpoint = self._open(endpoint)
        except BaseException:
            self.close()
            raise

    def _open(self, endpoint: str) -> str:
        """Makes and binds the socket; returns the resolved endpoint."""
        self._socket = make_socket(self._context, zmq.ROUTER, max_frame_bytes=MAX_PEER_FRAME_BYTES)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.SNDHWM, MAX_SEND_QUEUE)
        self._socket.setsockopt(zmq.RCVHWM, MAX_RECEIVE_QUEUE)
        if self._keys:
            self._keys.secure_server(self._socket)
        resolved = bind(self._socket, endpoint, "--bind")
        self._poller.register(self._socket, zmq.POLLIN)
        return resolved

    def run(self, stop: Stop, health: Health) -> None:
        """Serves until a stop is requested, then waits for the log to commit the received chunks."""
        while not stop.requested:
            self._poller.poll(POLL_TIMEOUT_MS)
            self._iterate(time.monotonic())
            self._check_memory(time.monotonic())
            health.beat()
            health.not_ready = self._replay.journal.error
        self._drain()

    def close(self) -> None:
        """Closes the socket."""
        if self._authenticator:
            self._authenticator.close()
        self._context.destroy(linger=200)

    def _iterate(self, now: float) -> None:
        received = 0
        while received < MAX_MESSAGES_PER_ITERATION and self._handle_next_message(now):
            received += 1
        self._advance(now)
        for log, wait in self._wait_logs:
            if wait.reason.cause and not wait.progressed:
                log.waiting(wait.reason.text, now)
            else:
                log.done(now)
        if received:
            self._timings.iteration.observe(time.monotonic() - now)

    def _check_memory(self, now: float) -> None:
        """Closes all connections when peers send messages that never end."""
        if now < self._memory_check_at or not self.endpoint.startswith("tcp://"):
            return
        self._memory_check_at = now + MEMORY_CHECK_PERIOD_S
        if self._memory_guard.excess(private_bytes(os.getpid()), self._records_bytes()):
            _log.error(
                "closing all connections: memory grows by messages that never end, or by batches that no peer reads"
                " (if you trust all peers, raise --peer-memory)"
            )
            self._replay.rejections.reject("endless", "a peer sent a message without end")
            self._rebind(now)

    def _rebind(self, now: float) -> None:
        """Closes the socket and opens it again: peers reconnect by themselves, and nothing is lost."""
        self._poller.unregister(self._socket)
        self._socket.close(linger=0)
        # libzmq frees memory and address in its own thread.
        while time.monotonic() < now + REBIND_WAIT_S:
            time.sleep(0.05)
            self._memory_guard.set_baseline(private_bytes(os.getpid()), self._records_bytes())
        while True:
            try:
                self._open(self.endpoint)
            except ConfigError as e:
                self._socket.close(linger=0)
                if time.monotonic() > now + 10 * REBIND_WAIT_S:
                    raise
                _log.debug("%s", e)
                time.sleep(0.05)
            else:
                return

    def _records_bytes(self) -> int:
        table = self._replay.table
        return table.size * (table.ring.dtype.itemsize + MAX_EXTRA_BYTES_PER_RECORD) if table else 0

    def _advance(self, now: float) -> None:
        """Applies commits, sends replies, and submits new writes."""
        if self._committer:
            for report in self._committer.take_reports():
                self._replay.journal.mark_durable(report.number)
                self._timings.commit.observe(report.seconds)
            self._replay.journal.error = self._committer.error
        self._send(self._replay.advance(now))
        if self._committer:
            self._committer.submit(self._replay.journal.take_writes())

    def _handle_next_message(self, now: float) -> bool:
        """Handles one message; returns whether there was one. A malformed message must not end the server."""
        try:
            sender, frames = receive_from(self._socket)
        except zmq.Again:
            return False
        peer = sender.bytes
        try:
            message, payload = decode_from_peer(frames)
        except ProtocolError as e:
            self._replay.rejections.reject("malformed", str(e))
            self._send([Reply(peer, Refused(str(e)[:2_000]))])
            return True
        if self._authenticator and (reason := why_not_permitted(self._authenticator.kind_of(sender), message)):
            self._replay.rejections.reject("key", reason)
            self._send([Reply(peer, Refused(reason))])
            return True
        self._send(self._replay.handle(peer, message, payload, now))
        return True

    def _send(self, replies: Iterable[Reply]) -> None:
        for peer, message, payload in replies:
            try:
                send(self._socket, [peer, *encode(message, payload)], flags=zmq.NOBLOCK)
            except zmq.Again:
                self._replay.rejections.reject(
                    "unread", f"a peer does not read its replies; dropped {type(message).__name__}"
                )
            except zmq.ZMQError as e:
                if e.errno != zmq.EHOSTUNREACH:
                    raise
                self._replay.drop_peer(peer)

    def _drain(self) -> None:
        """Stops receiving, waits for the log to commit the received chunks, and acknowledges them."""
        self._replay.drain()
        failing = self._committer is not None and bool(self._committer.error)
        deadline = time.monotonic() + (FAILING_DRAIN_TIMEOUT_S if failing else DRAIN_TIMEOUT_S)
        self._advance(time.monotonic())
        while self._committer and not self._committer.idle and time.monotonic() < deadline:
            self._poller.poll(POLL_TIMEOUT_MS)
            self._advance(time.monotonic())
        self._advance(time.monotonic())
        if uncommitted := len(self._replay.journal):
            _log.warning("chunks not committed at shutdown, their actors send them again chunks=%d", uncommitted)


def why_not_permitted(kind: ClientKind | None, message: FromPeer) -> str:
    """Returns why a client of this kind may not send this message; empty if it may."""
    if kind == "learner" or (kind == "actor" and not isinstance(message, LEARNERS_ONLY)):
        return ""
    allowed = (
        "only a client listed as `learner` in allowed_clients may send it" if kind else "its key is no longer allowed"
    )
    return f"{type(message).__name__} refused: {allowed}"
