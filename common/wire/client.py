"""The client of a replay server: one socket that sends messages and receives answers."""

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
_ADVICE = "Check that the server runs and that the address is right."


class Client:
    """A DEALER socket that is connected to one replay server.

    Example:
        client = Client(context, "tcp://127.0.0.1:5555")
        status = client.ask(StatusRequest(), Status, timeout_s=5.0)
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        option: str = "--replay",
        *,
        keys: Keys | None = None,
    ) -> None:
        """Connects in the background; ConfigError if the endpoint is malformed."""
        self.endpoint = endpoint
        self.socket = make_socket(context, zmq.DEALER, max_frame_bytes=MAX_SERVER_FRAME_BYTES)
        # Unsent messages are dropped with the connection; the sender repeats them from its own window.
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.socket.setsockopt(zmq.SNDHWM, 1_000)
        self._monitor = connect_secure(self.socket, endpoint, option, keys, "replay")

    def connection_error(self, log: logging.Logger | None = None) -> str:
        """Returns why the server cannot be reached or refuses this client; empty if no reason is known.

        Call it about once a second: it also reconnects after a refusal. log: receives each change of the reason.
        """
        return self._monitor.log_changes(log) if log else self._monitor.poll()

    def send(self, message: Message, payload: Buffer | None = None) -> bool:
        """Sends a message without waiting; returns False if no server is connected or the send queue is full."""
        try:
            send(self.socket, encode(message, payload), flags=zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, timeout_s: float = 0.0) -> tuple[ToPeer, Buffer | None] | None:
        """Returns the next answer, None if none arrives within the timeout; ProtocolError if it is malformed."""
        if not self.socket.poll(int(timeout_s * 1_000)):
            return None
        try:
            return decode_to_peer(receive(self.socket))
        except zmq.Again:
            return None

    def ask(self, message: Message, answer: type[_M], timeout_s: float) -> _M:
        """Sends a message and returns the answer of the given type; PeerError if none arrives in time."""
        self.socket.setsockopt(zmq.SNDTIMEO, int(timeout_s * 1_000))
        try:
            send(self.socket, encode(message))
        except zmq.Again:
            raise PeerError(f"no replay server answers at {self.endpoint}{self._reason()}. {_ADVICE}") from None
        reply = self.receive(timeout_s)
        if reply is None:
            raise PeerError(
                f"no replay server answers at {self.endpoint} within {timeout_s:g} s{self._reason()}. {_ADVICE}"
            )
        if not isinstance(reply[0], answer):
            raise PeerError(f"{self.endpoint} answered {type(reply[0]).__name__}: {getattr(reply[0], 'reason', '')}")
        return reply[0]

    def close(self) -> None:
        """Closes the socket at once; unsent messages are dropped."""
        self._monitor.close()
        self.socket.close()

    def _reason(self) -> str:
        error = self.connection_error()
        return f": {error}" if error else ""
