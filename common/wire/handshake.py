"""The handshake monitor: why a connection to a server fails (unknown host, refused key), and reconnection.

libzmq reports nothing on the socket itself, and after some refusals it never reconnects. The monitor reconnects, so a
client finds a server that was given its keys, or the client's key, later.
"""

from __future__ import annotations

import logging
import struct
import time

import zmq

from common.wire.host_lookup import HostLookup
from common.wire.keys import Keys

RECONNECT_PERIOD_S = 1.0
"""Time between two connection attempts to a server that refused one [s]."""
_REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH
_MISMATCH = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_CUT_OFF = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_EVENT = struct.Struct("=HI")
"""First frame of an event: its number and its value. pyzmq's own parser imports asyncio into every actor."""
_MONITORED = _REFUSED | _MISMATCH | _CUT_OFF | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_CLOSED


class HandshakeMonitor:
    """Monitors one socket's connection to one server.

    Example:
        monitor = connect_secure(socket, "tcp://replay:5555", "--replay", keys, "replay")
        while not connected:
            monitor.log_changes(logger)
    """

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str, keys: Keys | None) -> None:
        """Starts monitoring; create the monitor before the socket connects."""
        self._socket, self._endpoint, self._keys = socket, endpoint, keys
        self._events = socket.get_monitor_socket(_MONITORED)
        self._handshake_error = self._last_logged = ""
        self._reconnect_at: float | None = None
        self._connected = False
        self._lookup = HostLookup(endpoint)

    @property
    def error(self) -> str:
        """Why the server cannot be reached or refuses this client, as of the last poll; empty if no reason is known."""
        return "" if self._connected else self._handshake_error or self._lookup.error

    def poll(self) -> str:
        """Processes the connection's events, reconnects when due, and returns `error`."""
        while int(self._events.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            event, _address = self._events.recv_multipart()
            self._process(_EVENT.unpack(event)[0])
        if self._reconnect_at is not None and time.monotonic() >= self._reconnect_at:
            self._reconnect_at = None
            self._reconnect()
        if not self._connected:
            self._lookup.poll(time.monotonic())
            if self._lookup.needs_ipv6 and not self._socket.getsockopt(zmq.IPV6):
                self._socket.setsockopt(zmq.IPV6, 1)
                self._reconnect()
        return self.error

    def log_changes(self, log: logging.Logger) -> str:
        """Polls, logs the error if it differs from the one logged last, and returns it."""
        error = self.poll()
        if error != self._last_logged:
            self._last_logged = error
            if not error:
                log.info("connection error resolved: endpoint=%s", self._endpoint)
            elif error == self._handshake_error:
                log.warning("connection refused: endpoint=%s reason=%s", self._endpoint, error)
            else:
                log.warning("connection failed: endpoint=%s reason=%s", self._endpoint, error)
        return error

    def close(self) -> None:
        """Stops monitoring; call it before the socket is closed."""
        self._socket.disable_monitor()
        self._events.close()

    def _reconnect(self) -> None:
        self._socket.disconnect(self._endpoint)
        self._socket.connect(self._endpoint)

    def _process(self, event: int) -> None:
        self._connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
        self._handshake_error = (
            "" if event in (zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_CLOSED) else self._explain(event)
        )
        # libzmq abandons the connection after these two.
        if event in (_REFUSED, _MISMATCH):
            self._reconnect_at = time.monotonic() + RECONNECT_PERIOD_S

    def _explain(self, event: int) -> str:
        keys = self._keys
        if keys is None:
            return (
                "the server asks for a key, or is not a Shoal server; pass --keys DIR (`shoal keys` creates the keys)"
            )
        if event == _MISMATCH:
            return "the server has no keys, but this process has --keys; pass --keys to the server, or omit it here"
        entry = f"a line with '{keys.name} {keys.public.decode()}' in the server's allowed_clients"
        if event == _REFUSED:
            return f"the server refuses this key; add {entry}"
        return (
            f"the server ended the handshake: it has no keys, its key is not the one in '{keys.directory}', or it does"
            f" not know this client; pass --keys to the server, copy its key, or add {entry}"
        )
