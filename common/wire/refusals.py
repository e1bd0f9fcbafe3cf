"""Counts refusals of a replay server: the first ones are retried, a repeated one ends the client."""

from __future__ import annotations

import logging

from common.errors import PeerError

MAX_REFUSALS = 3
"""Refusals in succession that end the client."""

_log = logging.getLogger(__name__)


class Refusals:
    """The refusals in succession of one replay server.

    A server refuses a message that the network damaged; a new session then succeeds. A refusal that repeats has another
    cause, such as another version of Shoal, so it must end the process.
    """

    def __init__(self, endpoint: str, role: str) -> None:
        """Takes the server's address, and the role of the client for error messages."""
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
