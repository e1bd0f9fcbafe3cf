"""The authenticator of a server: decides at each handshake whether a client's key is admitted (ZAP, ZeroMQ's RFC 27).

The allow list is read again when its file changes, so clients are added and revoked without a restart. A server that
calls `kind_of` for each message also rejects revoked clients that are still connected. A broadcast receives no
messages, so it continues to serve connected clients. While the file cannot be read, no new client is admitted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import zmq
from zmq.auth.thread import ThreadAuthenticator

from common.errors import ConfigError
from common.wire.keys import ALLOW_LIST, DOMAIN, AllowedClient, ClientKind, Keys, read_clients

CHECK_PERIOD_S = 0.25
"""Time between two checks of the list's file while messages arrive [s]."""
MAX_REFUSED_KEYS = 256
"""Refused keys that are counted one by one; further keys share one count, so that memory stays bounded."""

_log = logging.getLogger(__name__)


class Authenticator:
    """Authenticates the clients of one context's sockets in a separate thread, so that handshakes never wait."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: Keys) -> None:
        """Starts the thread; ConfigError if the allow list cannot be read."""
        self._allowed = AllowList(keys.directory / ALLOW_LIST)
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.configure_curve_callback(DOMAIN, self._allowed)
        self._authenticator.start()
        _log.info("encryption enabled: public_key=%s allowed_clients=%d", keys.public.decode(), len(self._allowed))

    def kind_of(self, frame: zmq.Frame) -> ClientKind | None:
        """Returns the permissions of a received frame's sender; None for a client that was revoked."""
        return self._allowed.kind_of(str(frame.get("User-Id")))

    def close(self) -> None:
        """Stops the thread; call it before the context is closed."""
        self._authenticator.stop()


class AllowList:
    """The clients that a server admits, as its file currently lists them."""

    def __init__(self, path: Path) -> None:
        """Reads the file; ConfigError if it cannot be read or is malformed."""
        self._path, self._lock = path, threading.Lock()
        self._stamp, self._checked_at = self._file_stamp(), 0.0
        self._clients = read_clients(path)
        self._kinds = _kinds(self._clients)
        self._refused: dict[bytes, int] = {}
        self._refused_others = 0

    def __len__(self) -> int:
        return len(self._clients)

    def find(self, key: bytes) -> AllowedClient | None:
        """Returns the client of a public key; None for a key that is not listed."""
        with self._lock:
            self._reload_if_changed()
            return self._clients.get(key)

    def kind_of(self, user: str) -> ClientKind | None:
        """Returns the permissions of an admitted client by its key; None once the key is no longer listed."""
        now = time.monotonic()
        if now - self._checked_at > CHECK_PERIOD_S:
            with self._lock:
                self._checked_at = now
                self._reload_if_changed()
        return self._kinds.get(user)

    def callback(self, _domain: str, key: bytes) -> bool:
        """Answers pyzmq's authenticator; logs a refused key whenever its count has doubled."""
        if self.find(key) is not None:
            return True
        if key in self._refused or len(self._refused) < MAX_REFUSED_KEYS:
            count = self._refused[key] = self._refused.get(key, 0) + 1
        else:
            count = self._refused_others = self._refused_others + 1
        if count.bit_count() == 1:
            _log.warning(
                "client refused: public_key=%s count=%d list=%s. If the client is yours, add a line 'actor NAME KEY'.",
                key.decode(),
                count,
                self._path,
            )
        return False

    def _reload_if_changed(self) -> None:
        stamp = self._file_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._clients = read_clients(self._path)
        except ConfigError as e:
            self._clients = {}
            _log.error("allow list unreadable, new clients are refused: %s", e)
        else:
            self._kinds = _kinds(self._clients)
            _log.info("allow list reloaded: list=%s allowed_clients=%d", self._path, len(self._clients))

    def _file_stamp(self) -> tuple[int, ...]:
        """Returns a value that changes with the file's content."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size


def _kinds(clients: Mapping[bytes, AllowedClient]) -> dict[str, ClientKind]:
    """Returns the clients' permissions by User-Id, which is their key.

    The name would be wrong: once a client has a new key, the holder of its lost key must not stay admitted.
    """
    return {key.decode(): client.kind for key, client in clients.items()}
