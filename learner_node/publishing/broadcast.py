"""The broadcast of weights to actors over a PUB socket: one frame for each version. Actors use the newest."""

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
from learner_node.replay.replay_client import ReplayClient

MIN_PERIOD_S = 0.2
MAX_PERIOD_S = 5.0
"""Shortest and longest time between broadcasts [s]. The same weights are sent again after the longest: subscribers that
missed a frame receive it, and all see that the learner is alive."""
STORE_PERIOD_S = 1.0
"""Time between the copies that are stored at the replay servers, for actors that connect later [s]."""
MAX_QUEUED_FRAMES = 2
MAX_SUBSCRIPTION_BYTES = 4_096
"""Largest frame accepted from an actor [bytes]: libzmq allocates a node for each byte of a subscription. A handshake is
smaller."""


def first_version(checkpoint: int, newest_stored: int, checkpoint_period_s: float) -> int:
    """Returns a version that no weights had, beyond any that may have been published before a restart and lost.

    checkpoint: the version in the checkpoint, up to a checkpoint period old. newest_stored: the newest version stored
    at a replay server, up to a second old; 0 = none.
    """
    if newest_stored:
        unseen_s, newest_known = STORE_PERIOD_S, max(newest_stored, checkpoint)
    else:
        unseen_s, newest_known = checkpoint_period_s, checkpoint
    return newest_known + 1 + (math.ceil(2 * unseen_s / MIN_PERIOD_S) if newest_known else 0)


class WeightsSender(Protocol):
    """What sends a learner's weights to actors. All times are monotonic seconds."""

    def first_version(self, checkpoint: int, newest_stored: int, checkpoint_period_s: float) -> int:
        """Returns the version of the first weights, which no weights had before."""

    def is_due(self, updates: int, now: float) -> bool:
        """Returns whether it is time to send weights, after `updates` updates."""

    def send(self, header: WeightsHeader, flat: npt.NDArray[np.float32], replay: ReplayClient, now: float) -> None:
        """Sends weights; ValueError if they are not finite."""


class Broadcast:
    """A learner's PUB socket, which decides when to send weights. All times are monotonic seconds."""

    def __init__(self, endpoint: str, keys: Keys | None = None) -> None:
        """Binds; ConfigError if the address cannot be bound, or the keys of allowed peers cannot be read."""
        self._context = zmq.Context()
        self._authenticator = Authenticator(self._context, keys) if keys else None
        self._socket = make_socket(self._context, zmq.PUB, max_frame_bytes=MAX_SUBSCRIPTION_BYTES)
        self._socket.setsockopt(zmq.SNDHWM, MAX_QUEUED_FRAMES)
        if keys:
            keys.secure_server(self._socket)
        try:
            self.endpoint = bind(self._socket, endpoint, "--bind")
        except BaseException:
            self.close()
            raise
        self._sent_at = self._stored_at = -MAX_PERIOD_S
        self._updates = -1

    def first_version(self, checkpoint: int, newest_stored: int, checkpoint_period_s: float) -> int:
        """Returns a version that no weights had."""
        return first_version(checkpoint, newest_stored, checkpoint_period_s)

    def is_due(self, updates: int, now: float) -> bool:
        """Returns whether to send: new weights after MIN_PERIOD_S, the same weights again after MAX_PERIOD_S."""
        waited_s = now - self._sent_at
        return waited_s >= (MIN_PERIOD_S if updates > self._updates else MAX_PERIOD_S)

    def send(self, header: WeightsHeader, flat: npt.NDArray[np.float32], replay: ReplayClient, now: float) -> None:
        """Broadcasts weights; every STORE_PERIOD_S also stores a copy at the replay servers of `replay`.

        ValueError if the weights are not finite; they are not sent.
        """
        frame = pack_weights(header, flat)
        send(self._socket, [frame])
        self._sent_at, self._updates = now, header.updates
        if now - self._stored_at >= STORE_PERIOD_S:
            self._stored_at = now
            replay.send(PutWeights(header.version), frame)

    def close(self) -> None:
        """Closes the socket, after at most 200 ms for frames that are not sent yet."""
        if self._authenticator:
            self._authenticator.close()
        self._context.destroy(linger=200)
