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
import time
from collections.abc import Iterable

import zmq

from common.errors import ProtocolError
from common.messages import Refused
from common.process import Health, Stop, WaitLog
from common.wire import MAX_PEER_FRAME_BYTES, bind, decode_from_peer, encode, make_socket, receive, send
from replay_server.committer import Committer
from replay_server.instructions import Reply
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

_log = logging.getLogger(__name__)


class Server:
    """Serves one replay on one ROUTER socket."""

    def __init__(self, replay: Replay, endpoint: str, committer: Committer | None, timings: Timings) -> None:
        """Binds; ConfigError when the address cannot be had."""
        self._replay, self._committer, self._timings = replay, committer, timings
        self._context = zmq.Context()
        self._socket = make_socket(self._context, zmq.ROUTER, max_frame_bytes=MAX_PEER_FRAME_BYTES)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.SNDHWM, SEND_QUEUE)
        self._socket.setsockopt(zmq.RCVHWM, RECEIVE_QUEUE)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        if committer:
            self._poller.register(committer.wake_up, zmq.POLLIN)
        self._wait_logs = [
            (WaitLog(logging.getLogger(f"{__name__}.{wait.who}")), wait)
            for wait in (replay.actors_wait, replay.learner_wait)
        ]
        try:
            self.endpoint = bind(self._socket, endpoint, "--bind")
        except BaseException:
            self.close()
            raise

    def run(self, stop: Stop, health: Health) -> None:
        """Serves until asked to stop, then has the log take what has come."""
        while not stop.requested:
            self._poller.poll(POLL_MS)
            self._turn(time.monotonic())
            health.beat()
            health.not_ready = self._replay.journal.error
        self._drain()

    def close(self) -> None:
        """Closes the socket."""
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
            peer, *frames = receive(self._socket)
        except zmq.Again:
            return False
        id_ = bytes(peer)
        try:
            message, payload = decode_from_peer(frames)
        except ProtocolError as e:
            self._replay.tally.reject("malformed", str(e))
            self._send([Reply(id_, Refused(str(e)[:2_000]))])
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
