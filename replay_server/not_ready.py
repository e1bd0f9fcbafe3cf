"""Answers peers while the replay server cannot serve yet: while it waits for Redis, or recovers its chunks.

    peer            message          answer
    actor           Hello            NotReady(reason)
    learner         Open             NotReady(reason)
    `shoal status`  StatusRequest    Status with the reason
    any             any other        Unknown, which makes the peer send Hello or Open again

The answers come from a separate thread during the recovery. It frees the address before the server binds it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import zmq

from common.errors import ProtocolError
from common.wire.authenticator import Authenticator
from common.wire.codec import MAX_PEER_FRAME_BYTES, decode_from_peer, encode
from common.wire.keys import Keys
from common.wire.messages import FromPeer, Hello, NotReady, Open, StatusRequest, ToPeer, Unknown
from common.wire.socket_file import SocketFile
from common.wire.sockets import bind, make_socket, receive_from, send
from replay_server.replay import Replay
from replay_server.server import why_not_permitted

POLL_TIMEOUT_MS = 100


class NotReadyServer:
    """Binds the server's address and answers with a reason, from the first reason on until it is closed."""

    def __init__(self, replay: Replay, endpoint: str, keys: Keys | None) -> None:
        """Takes the address to bind; binds at the first reason.

        replay: an idle replay without a run, which makes the status.
        """
        self.endpoint = endpoint
        """The address to bind; after the first reason, with the port that was chosen."""
        self._replay, self._keys = replay, keys
        self._reason = ""
        self._closing = False
        self._thread: threading.Thread | None = None

    def set_reason(self, reason: str) -> None:
        """Answers with this reason from now on; ConfigError when the address cannot be bound.

        reason: completes "the replay server is", as in "waiting for Redis".
        """
        self._reason = reason
        if self._thread is None:
            self._context = zmq.Context()
            try:
                self._authenticator = Authenticator(self._context, self._keys) if self._keys else None
                self._socket = self._open()
            except BaseException:
                self._context.destroy(linger=0)
                raise
            self._file = SocketFile(self.endpoint)
            self._thread = threading.Thread(target=self._serve, name="not-ready", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Frees the address; peers reconnect by themselves once the server binds it."""
        if self._thread is None:
            return
        self._closing = True
        self._thread.join()
        self._thread = None
        if self._authenticator:
            self._authenticator.close()
        self._context.destroy(linger=0)
        self._file.remove()

    def _open(self) -> zmq.Socket[bytes]:
        bound = make_socket(self._context, zmq.ROUTER, max_frame_bytes=MAX_PEER_FRAME_BYTES)
        if self._keys:
            self._keys.secure_server(bound)
        self.endpoint = bind(bound, self.endpoint, "--bind")
        return bound

    def _serve(self) -> None:
        while not self._closing:
            if not self._socket.poll(POLL_TIMEOUT_MS):
                continue
            # A peer whose connection is gone needs no answer.
            with contextlib.suppress(zmq.ZMQError):
                sender, frames = receive_from(self._socket)
                for message in self._answer(sender, frames):
                    send(self._socket, [sender.bytes, *encode(message)], flags=zmq.NOBLOCK)

    def _answer(self, sender: zmq.Frame, frames: list[memoryview]) -> Iterator[ToPeer]:
        try:
            message: FromPeer = decode_from_peer(frames)[0]
        except ProtocolError:
            return
        if self._authenticator and why_not_permitted(self._authenticator.kind_of(sender), message):
            return
        match message:
            case Hello() | Open():
                yield NotReady(f"the replay server, which is {self._reason}")
            case StatusRequest():
                yield self._replay.status(time.monotonic(), not_ready=f"the replay server is {self._reason}")
            case _:
                yield Unknown()
