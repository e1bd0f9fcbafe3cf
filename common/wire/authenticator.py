"""The gate of a server: asked by libzmq, at each handshake, whether the key that came may in (ZeroMQ's RFC 27, ZAP).

The list of those who may is read again when its file has changed, so clients are let in and shut out without a restart.
A server that asks `kind_of` of each message shuts out those that are connected, too; a broadcast gets no messages to
ask of, and goes on to who is connected. While the file cannot be read nobody new is let in.
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
from common.wire.keys import ALLOWED, DOMAIN, Client, ClientKind, Keys, read_allowed

LOOK_PERIOD_S = 0.25
"""Between two looks at the list's file while messages come."""
MOST_REMEMBERED = 256
"""Refused keys that are told apart in the log; who makes up more of them is told by the count alone."""

_log = logging.getLogger(__name__)


class Authenticator:
    """Guards the sockets of one context from a thread of its own: a server that is busy keeps nobody waiting."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: Keys) -> None:
        """Opens at once; ConfigError when it cannot be known whom to let in."""
        self._allowed = AllowList(keys.directory / ALLOWED)
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.configure_curve_callback(DOMAIN, self._allowed)
        self._authenticator.start()
        _log.info("encrypted, with public key %s; %d clients may in", keys.public.decode(), len(self._allowed))

    def kind_of(self, frame: zmq.Frame) -> ClientKind | None:
        """Returns what the sender of a received frame may do; None for one that has been shut out meanwhile."""
        return self._allowed.kind_of(str(frame.get("User-Id")))

    def close(self) -> None:
        """Ends the thread; before the context does, whose sockets it uses."""
        self._authenticator.stop()


class AllowList:
    """Whom a server lets in, as its file says at this moment."""

    def __init__(self, path: Path) -> None:
        """Reads the file; ConfigError when it is not one."""
        self._path, self._lock = path, threading.Lock()
        self._stamp, self._looked_at = self._look(), 0.0
        self._clients = read_allowed(path)
        self._kinds = _kinds(self._clients)
        self._refused: dict[bytes, int] = {}
        self._refused_others = 0

    def __len__(self) -> int:
        return len(self._clients)

    def find(self, key: bytes) -> Client | None:
        """Returns the client of a public key, None for one that may not in."""
        with self._lock:
            self._read_again()
            return self._clients.get(key)

    def kind_of(self, user: str) -> ClientKind | None:
        """Returns what a client may do that has been let in with this key; None when it may no longer."""
        now = time.monotonic()
        if now - self._looked_at > LOOK_PERIOD_S:
            with self._lock:
                self._looked_at = now
                self._read_again()
        return self._kinds.get(user)

    def callback(self, _domain: str, key: bytes) -> bool:
        """Answers pyzmq's authenticator; a refused key is logged whenever its count has doubled."""
        if self.find(key) is not None:
            return True
        if key in self._refused or len(self._refused) < MOST_REMEMBERED:
            count = self._refused[key] = self._refused.get(key, 0) + 1
        else:
            count = self._refused_others = self._refused_others + 1
        if count.bit_count() == 1:
            _log.warning(
                "refused a client %d times: its public key %s is not in %s; add a line `actor NAME KEY` if it is yours",
                count,
                key.decode(),
                self._path,
            )
        return False

    def _read_again(self) -> None:
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._clients = read_allowed(self._path)
        except ConfigError as e:
            self._clients = {}
            _log.error("nobody new is let in: %s", e)
        else:
            self._kinds = _kinds(self._clients)
            _log.info("read %s again: %d clients may in", self._path, len(self._clients))

    def _look(self) -> tuple[int, ...]:
        """Returns what tells one content of the file from another."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size


def _kinds(clients: Mapping[bytes, Client]) -> dict[str, ClientKind]:
    """Returns what clients may do, by User-Id: their key.

    Not their name: one that is given another key must not keep the holder of the lost one inside.
    """
    return {key.decode(): client.kind for key, client in clients.items()}
