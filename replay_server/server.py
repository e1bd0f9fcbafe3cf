"""The server: the one loop between the socket, the replay and the chunk log.

    peers --frames--> ROUTER --messages--> Replay.handle --replies--> ROUTER --frames--> peers
                                              | writes          ^ committed numbers
                                              v                 |
                                           Committer (thread) --+--> Redis

| who waits          | for what                              | who frees it                                         |
|--------------------|---------------------------------------|------------------------------------------------------|
| this loop          | a message, a commit, at most 50 ms    | peers, the committer, the clock                      |
| the committer      | writes; Redis                         | this loop; Redis' return, tried again with back-off  |
| an actor           | a run                                 | the first learner's Open                             |
| an actor           | credit                                | a learner that samples; the committer; another lease |
| an actor           | an acknowledgement                    | the committer (level ram: this turn)                 |
| a learner          | a batch                               | actors' chunks; until then Held, each second         |

Nobody waits for a peer: replies that a peer does not take are dropped with its connection, and what it needs of them
it asks for again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable

import zmq

from common.errors import ConfigError, ProtocolError
from common.process.health import Health
from common.process.logs import WaitLog
from common.process.resources import private_bytes
from common.process.stop import Stop
from common.wire.authenticator import Authenticator
from common.wire.codec import MAX_PEER_FRAME_BYTES, decode_from_peer, encode
from common.wire.keys import ClientKind, Keys
from common.wire.messages import FromPeer, LearnerReport, Open, Priorities, PutWeights, Refused, SampleRequest
from common.wire.sockets import bind, make_socket, receive_from, send
from replay_server.durability.committer import Committer
from replay_server.instructions import Reply
from replay_server.memory_guard import BYTES_BESIDE_A_RECORD, MemoryGuard
from replay_server.metrics import Timings
from replay_server.replay import Replay

POLL_MS = 50
"""Also how often ZeroMQ gets to reap dead connections, and waits are looked at."""
MESSAGES_A_TURN = 64
SEND_QUEUE = 256
"""Messages a peer may leave unread before replies to it are dropped."""
RECEIVE_QUEUE = 64
"""Messages of a peer that may wait here; more wait with the peer. A window of chunks and the rest fit."""
DRAIN_S = 3.0
"""Longest wait for the log at the end."""
DRAIN_GONE_S = 1.0
"""The same, where the log has been failing already."""

PEER_BYTES = 2**30
LOOK_PERIOD_S = 0.25
"""Between two looks at the memory in use."""
START_OVER_S = 0.5
"""How long memory is given to come back once all connections have ended."""
LEARNERS_ONLY = (Open, SampleRequest, Priorities, PutWeights, LearnerReport)
"""What a client with an actor's key may not send: it could make the run another, or its policies another's."""

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
        """Binds; ConfigError when the address cannot be had, or it cannot be known whom to let in.

        peer_bytes: what messages that are not whole yet may take.
        """
        self._replay, self._committer, self._timings, self._keys = replay, committer, timings, keys
        self._overhang, self._look_at = MemoryGuard(peer_bytes), 0.0
        self._context = zmq.Context()
        self._gate = Authenticator(self._context, keys) if keys else None
        self._poller = zmq.Poller()
        if committer:
            self._poller.register(committer.wake_up, zmq.POLLIN)
        self._wait_logs = [
            (WaitLog(logging.getLogger(f"{__name__}.{wait.who}")), wait)
            for wait in (replay.actors_wait, replay.learner_wait)
        ]
        try:
            self.endpoint = self._open(endpoint)
        except BaseException:
            self.close()
            raise

    def _open(self, endpoint: str) -> str:
        """Makes the socket, binds it and returns the endpoint as resolved."""
        self._socket = make_socket(self._context, zmq.ROUTER, max_frame_bytes=MAX_PEER_FRAME_BYTES)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.SNDHWM, SEND_QUEUE)
        self._socket.setsockopt(zmq.RCVHWM, RECEIVE_QUEUE)
        if self._keys:
            self._keys.secure_server(self._socket)
        resolved = bind(self._socket, endpoint, "--bind")
        self._poller.register(self._socket, zmq.POLLIN)
        return resolved

    def run(self, stop: Stop, health: Health) -> None:
        """Serves until asked to stop, then has the log take what has come."""
        while not stop.requested:
            self._poller.poll(POLL_MS)
            self._turn(time.monotonic())
            self._look_at_memory(time.monotonic())
            health.beat()
            health.not_ready = self._replay.journal.error
        self._drain()

    def close(self) -> None:
        """Closes the socket."""
        if self._gate:
            self._gate.close()
        self._context.destroy(linger=200)

    def _turn(self, now: float) -> None:
        received = 0
        while received < MESSAGES_A_TURN and self._take_message(now):
            received += 1
        self._settle(now)
        for log, wait in self._wait_logs:
            if wait.reason.cause and not wait.moved:
                log.waiting(wait.reason.text, now)
            else:
                log.done(now)
        if received:
            self._timings.turn.observe(time.monotonic() - now)

    def _look_at_memory(self, now: float) -> None:
        """Ends all connections when peers send messages without end."""
        if now < self._look_at or not self.endpoint.startswith("tcp://"):
            return
        self._look_at = now + LOOK_PERIOD_S
        if self._overhang.beyond(private_bytes(os.getpid()), self._records_bytes()):
            _log.error(
                "memory grows by messages that never end, or by batches that nobody takes; ending all connections"
                " (if all peers are yours, raise --peer-memory)"
            )
            self._replay.tally.reject("endless", "a peer sent a message without end")
            self._start_over(now)

    def _start_over(self, now: float) -> None:
        """Closes the socket and opens it again: peers come back by themselves, and lose nothing by it."""
        self._poller.unregister(self._socket)
        self._socket.close(linger=0)
        # libzmq frees what it held, and gives the address back, in a thread of its own.
        while time.monotonic() < now + START_OVER_S:
            time.sleep(0.05)
            self._overhang.alone(private_bytes(os.getpid()), self._records_bytes())
        while True:
            try:
                self._open(self.endpoint)
            except ConfigError as e:
                self._socket.close(linger=0)
                if time.monotonic() > now + 10 * START_OVER_S:
                    raise
                _log.debug("%s", e)
                time.sleep(0.05)
            else:
                return

    def _records_bytes(self) -> int:
        table = self._replay.table
        return table.size * (table.ring.dtype.itemsize + BYTES_BESIDE_A_RECORD) if table else 0

    def _settle(self, now: float) -> None:
        """Brings commits in, replies out, and new writes on their way."""
        if self._committer:
            for report in self._committer.take_reports():
                self._replay.journal.committed(report.number)
                self._timings.commit.observe(report.seconds)
            self._replay.journal.error = self._committer.error
        self._send(self._replay.tick(now))
        if self._committer:
            self._committer.submit(self._replay.journal.take_writes())

    def _take_message(self, now: float) -> bool:
        """Takes one message in; returns whether there was one. Nothing a peer sends ends the server."""
        try:
            sender, frames = receive_from(self._socket)
        except zmq.Again:
            return False
        id_ = sender.bytes
        try:
            message, payload = decode_from_peer(frames)
        except ProtocolError as e:
            self._replay.tally.reject("malformed", str(e))
            self._send([Reply(id_, Refused(str(e)[:2_000]))])
            return True
        if self._gate and (reason := not_permitted(self._gate.kind_of(sender), message)):
            self._replay.tally.reject("key", reason)
            self._send([Reply(id_, Refused(reason))])
            return True
        self._send(self._replay.handle(id_, message, payload, now))
        return True

    def _send(self, replies: Iterable[Reply]) -> None:
        for peer, message, payload in replies:
            try:
                send(self._socket, [peer, *encode(message, payload)], flags=zmq.NOBLOCK)
            except zmq.Again:
                self._replay.tally.reject(
                    "unread", f"a peer does not read its replies; dropped {type(message).__name__}"
                )
            except zmq.ZMQError as e:
                if e.errno != zmq.EHOSTUNREACH:
                    raise
                self._replay.unreachable(peer)

    def _drain(self) -> None:
        """Takes no more messages, and waits a while for the log to take what has come, so that it is acknowledged."""
        self._replay.drain()
        gone = self._committer is not None and bool(self._committer.error)
        deadline = time.monotonic() + (DRAIN_GONE_S if gone else DRAIN_S)
        self._settle(time.monotonic())
        while self._committer and not self._committer.idle and time.monotonic() < deadline:
            self._poller.poll(POLL_MS)
            self._settle(time.monotonic())
        self._settle(time.monotonic())
        if left := len(self._replay.journal):
            _log.warning("ended with %d chunks that Redis does not have; their actors keep and re-send them", left)


def not_permitted(kind: ClientKind | None, message: FromPeer) -> str:
    """Says why a client of this kind may not send this message; empty when it may."""
    if kind == "learner" or (kind == "actor" and not isinstance(message, LEARNERS_ONLY)):
        return ""
    allowed = "only a client that allowed_clients calls `learner` may" if kind else "its key is no longer allowed"
    return f"{type(message).__name__} refused: {allowed}"
