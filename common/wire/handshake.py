"""Why no session with a server begins: an unknown host, or a failed handshake, in words; and connecting again.

libzmq says nothing on the socket itself, and after some refusals it never tries again by itself. Here it does, so that
a server that gets its keys, or is told ours, is found.
"""

from __future__ import annotations

import logging
import struct
import time

import zmq

from common.wire.host_lookup import HostLookup
from common.wire.keys import Keys

AGAIN_S = 1.0
"""Between two knocks at a server that has refused."""
_REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH
_MISMATCH = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_CUT_OFF = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_EVENT = struct.Struct("=HI")
"""First frame of an event: which, and its value. pyzmq's own reader brings asyncio into every actor."""
_HEARD = _REFUSED | _MISMATCH | _CUT_OFF | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_CLOSED


class HandshakeMonitor:
    """Watches one socket's connection to one server."""

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str, keys: Keys | None) -> None:
        """Watches from now on; the socket is to connect after this."""
        self._socket, self._endpoint, self._keys = socket, endpoint, keys
        self._events = socket.get_monitor_socket(_HEARD)
        self._trouble = self._told = ""
        self._knock_at: float | None = None
        self._connected = False
        self._lookup = HostLookup(endpoint)

    def look(self) -> str:
        """Returns why the server is not found or does not let us in, empty when nothing is known; knocks when due."""
        while int(self._events.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            event, _address = self._events.recv_multipart()
            self._take(_EVENT.unpack(event)[0])
        if self._knock_at is not None and time.monotonic() >= self._knock_at:
            self._knock_at = None
            self._socket.disconnect(self._endpoint)
            self._socket.connect(self._endpoint)
        if self._connected:
            return ""
        self._lookup.look(time.monotonic())
        if self._lookup.needs_ipv6 and not self._socket.getsockopt(zmq.IPV6):
            self._socket.setsockopt(zmq.IPV6, 1)
            self._socket.disconnect(self._endpoint)
            self._socket.connect(self._endpoint)
        return self._trouble or self._lookup.trouble

    def tell(self, log: logging.Logger) -> str:
        """Does the same, and logs the reason when it is another one than the last time."""
        trouble = self.look()
        if trouble != self._told:
            self._told = trouble
            if not trouble:
                log.info("%s has nothing against us any more", self._endpoint)
            elif trouble == self._trouble:
                log.warning("%s does not let us in: %s", self._endpoint, trouble)
            else:
                log.warning("%s: %s", self._endpoint, trouble)
        return trouble

    def close(self) -> None:
        """Stops watching; before the socket is closed."""
        self._socket.disable_monitor()
        self._events.close()

    def _take(self, event: int) -> None:
        self._connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
        self._trouble = "" if event in (zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_CLOSED) else self._in_words(event)
        # After these two libzmq has given the connection up.
        if event in (_REFUSED, _MISMATCH):
            self._knock_at = time.monotonic() + AGAIN_S

    def _in_words(self, event: int) -> str:
        keys = self._keys
        if keys is None:
            return "it asks for a key, or is no server of Shoal's: give the keys for it by --keys DIR (`shoal keys`)"
        if event == _MISMATCH:
            return (
                "it has no keys, but this side was told to use them: give it its own by --keys, or leave them out here"
            )
        own = f"a line with {keys.name} {keys.public.decode()} in its allowed_clients"
        if event == _REFUSED:
            return f"it refuses this key: it needs {own}"
        return f"it ends the handshake: it has no keys, or others than {keys.directory} says, or it needs {own}"
