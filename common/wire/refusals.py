"""How a client answers the refusals of its replay server."""

from __future__ import annotations

import logging

from common.errors import PeerError

MAX_REFUSALS = 3

_log = logging.getLogger(__name__)


class Refusals:
    """Counts the refusals in succession of one replay server.

    A network can damage a message, and the server then refuses what it received: opening the session again mends that.
    A refusal that repeats has another cause, such as another version of Shoal, and must end the process.
    """

    def __init__(self, endpoint: str, role: str) -> None:
        """endpoint: the server's address. role: the kind of client, for the error's text."""
        self._endpoint, self._role = endpoint, role
        self._count = 0

    def add(self, reason: str) -> None:
        """Counts a refusal; the caller must open the session again. PeerError at the third in succession."""
        self._count += 1
        if self._count >= MAX_REFUSALS:
            raise PeerError(f"{self._endpoint} refuses this {self._role}: {reason}")
        _log.warning("refused; opening the session again: replay=%s reason=%s", self._endpoint, reason)

    def reset(self) -> None:
        """Starts the count again: the server has accepted a message that carries data."""
        self._count = 0
