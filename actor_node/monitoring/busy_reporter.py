"""Reports of the supervisor to replay servers, for workers that cannot report themselves."""

from __future__ import annotations

import zmq

from common.wire.client import Client
from common.wire.keys import Keys
from common.wire.messages import Busy


class BusyReporter:
    """Reports to replay servers that a worker is alive while a call of the user's code keeps it from reporting.

    The connection to a server is made with the first report to that server.
    """

    def __init__(self, keys: Keys | None = None) -> None:
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._clients: dict[str, Client] = {}

    def send(self, replay_url: str, busy: Busy) -> None:
        """Sends a message; drops it if there is no connection yet, because the next one follows within seconds."""
        if self._context is None:
            self._context = zmq.Context()
        if replay_url not in self._clients:
            self._clients[replay_url] = Client(self._context, replay_url, keys=self._keys)
        self._clients[replay_url].send(busy)

    def close(self) -> None:
        """Closes the connections."""
        if self._context is not None:
            self._context.destroy(linger=0)
