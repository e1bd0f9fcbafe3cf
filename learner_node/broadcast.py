"""The broadcast of weights: one frame each time, newest wins."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt
import zmq

from common.wire.authenticator import Authenticator
from common.wire.keys import Keys
from common.wire.messages import PutWeights
from common.wire.sockets import bind, make_socket, send
from common.wire.weights import WeightsHeader, pack_weights
from learner_node.batches import Batches

SHORTEST_PERIOD_S = 0.2
LONGEST_PERIOD_S = 5.0
"""Also without news: it heals what was missed, and shows that the learner lives."""
LEAVE_PERIOD_S = 1.0
"""Between copies left with the replay servers for actors that come later."""
SEND_QUEUE = 2
MAX_SUBSCRIPTION_BYTES = 4_096
"""Largest frame taken from an actor: libzmq keeps a node for each byte of a subscription. Handshakes fit in, too."""


def first_version(checkpoint: int, remembered: int, checkpoint_period_s: float) -> int:
    """Returns a version that no weights had, after a restart: beyond any that may have been published and forgotten.

    checkpoint: the version in the checkpoint, as old as a period; remembered: the newest a replay server holds, which
    is a second old.
    """
    if remembered:
        unseen_s, known = LEAVE_PERIOD_S, max(remembered, checkpoint)
    else:
        unseen_s, known = checkpoint_period_s, checkpoint
    return known + 1 + (math.ceil(2 * unseen_s / SHORTEST_PERIOD_S) if known else 0)


class Publisher(Protocol):
    """What the learner needs of whatever takes its weights to the actors. All times are monotonic seconds."""

    def first_version(self, checkpoint: int, remembered: int, checkpoint_period_s: float) -> int:
        """Returns the version of the first weights; see `first_version`."""

    def is_due(self, updates: int, now: float) -> bool:
        """Whether weights are to be sent."""

    def send(self, header: WeightsHeader, flat: npt.NDArray[np.float32], stream: Batches, now: float) -> None:
        """Sends weights; ValueError for non-finite ones."""


class Broadcast:
    """The PUB socket, and when to use it. All times are monotonic seconds."""

    def __init__(self, endpoint: str, keys: Keys | None = None) -> None:
        """Binds; ConfigError when the address cannot be had, or it cannot be known whom to let in."""
        self._context = zmq.Context()
        self._gate = Authenticator(self._context, keys) if keys else None
        self._socket = make_socket(self._context, zmq.PUB, max_frame_bytes=MAX_SUBSCRIPTION_BYTES)
        self._socket.setsockopt(zmq.SNDHWM, SEND_QUEUE)
        if keys:
            keys.secure_server(self._socket)
        try:
            self.endpoint = bind(self._socket, endpoint, "--bind")
        except BaseException:
            self.close()
            raise
        self._sent_at = self._left_at = -LONGEST_PERIOD_S
        self._updates = -1

    def first_version(self, checkpoint: int, remembered: int, checkpoint_period_s: float) -> int:
        """Returns a version that no weights had."""
        return first_version(checkpoint, remembered, checkpoint_period_s)

    def is_due(self, updates: int, now: float) -> bool:
        """Whether weights are to be sent: new ones a while after the last, old ones much later."""
        waited_s = now - self._sent_at
        return waited_s >= (SHORTEST_PERIOD_S if updates > self._updates else LONGEST_PERIOD_S)

    def send(self, header: WeightsHeader, flat: npt.NDArray[np.float32], stream: Batches, now: float) -> None:
        """Broadcasts weights and now and then leaves a copy with the replay servers of `stream`.

        ValueError for non-finite weights, which are not sent.
        """
        frame = pack_weights(header, flat)
        send(self._socket, [frame])
        self._sent_at, self._updates = now, header.updates
        if now - self._left_at >= LEAVE_PERIOD_S:
            self._left_at = now
            stream.send(PutWeights(header.version), frame)

    def close(self) -> None:
        """Closes the socket; what was sent last still goes out."""
        if self._gate:
            self._gate.close()
        self._context.destroy(linger=200)
