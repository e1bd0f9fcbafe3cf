"""A client's socket to a replay server."""

from __future__ import annotations

import logging
from typing import TypeVar

import zmq

from common.errors import PeerError
from common.wire.codec import MAX_SERVER_FRAME_BYTES, Buffer, decode_to_peer, encode
from common.wire.keys import Keys
from common.wire.messages import Message, ToPeer
from common.wire.sockets import connect_secure, make_socket, receive, send

_M = TypeVar("_M")


class Client:
    """A DEALER to one replay server: sends messages, receives answers, and asks once whether anyone is there."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        option: str = "--replay",
        *,
        keys: Keys | None = None,
    ) -> None:
        """Connects in the background; ConfigError when the endpoint cannot be one."""
        self.endpoint = endpoint
        self.socket = make_socket(context, zmq.DEALER, max_frame_bytes=MAX_SERVER_FRAME_BYTES)
        # What the peer has not taken is dropped with the connection: the sender's own window is what is re-sent.
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.socket.setsockopt(zmq.SNDHWM, 1_000)
        self._handshake = connect_secure(self.socket, endpoint, option, keys, "replay")

    def trouble(self, log: logging.Logger | None = None) -> str:
        """Returns why the server does not let us in, empty when nothing is known; to be asked now and then."""
        return self._handshake.tell(log) if log else self._handshake.look()

    def send(self, message: Message, payload: Buffer | None = None) -> bool:
        """Sends unless no peer is connected or its queue is full; returns whether it did."""
        try:
            send(self.socket, encode(message, payload), flags=zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, timeout_s: float = 0.0) -> tuple[ToPeer, Buffer | None] | None:
        """Returns the next answer, or None when none came within the timeout; ProtocolError when it is malformed."""
        if not self.socket.poll(int(timeout_s * 1_000)):
            return None
        try:
            return decode_to_peer(receive(self.socket))
        except zmq.Again:
            return None

    def ask(self, message: Message, answer: type[_M], timeout_s: float) -> _M:
        """Sends a message and returns the answer of the given kind; PeerError when none comes in time."""
        self.socket.setsockopt(zmq.SNDTIMEO, int(timeout_s * 1_000))
        try:
            send(self.socket, encode(message))
        except zmq.Again:
            raise PeerError(f"no replay server answers at {self.endpoint}{self._because()}") from None
        reply = self.receive(timeout_s)
        if reply is None:
            raise PeerError(f"no replay server answers at {self.endpoint} within {timeout_s:g} s{self._because()}")
        if not isinstance(reply[0], answer):
            raise PeerError(f"{self.endpoint} answered {type(reply[0]).__name__}: {getattr(reply[0], 'reason', '')}")
        return reply[0]

    def close(self) -> None:
        """Closes the socket; nothing lingers."""
        self._handshake.close()
        self.socket.close()

    def _because(self) -> str:
        trouble = self.trouble()
        return f": {trouble}" if trouble else ""
