"""A fake learner in a separate process: it opens its run and publishes weights, and does nothing else."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, cast

import numpy as np
import zmq

from common.errors import ShoalError
from common.policy.network import weight_count
from common.process.children.parent import die_with_parent
from common.run.run import Run
from common.wire.client import Client
from common.wire.messages import Open, Opened, PutWeights
from common.wire.weights import WeightsHeader

if TYPE_CHECKING:
    from learner_node.replay.replay_client import ReplayClient

ANSWER_TIMEOUT_S = 30.0
BIND = "tcp://127.0.0.1:0"


@contextmanager
def publish_weights(run: Run, replay: str) -> Iterator[str]:
    """Publishes new weights as often as a learner does until the context ends; yields the address of the publisher."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=publish, args=(run, replay, sender, os.getpid()), daemon=True)
    process.start()
    try:
        if not receiver.poll(ANSWER_TIMEOUT_S):
            raise ShoalError(f"The process that publishes weights did not start within {ANSWER_TIMEOUT_S:g} s.")
        yield receiver.recv()
    finally:
        process.terminate()
        process.join()


def publish(run: Run, replay: str, ready: Connection, parent: int) -> None:
    """Opens the run, sends its address to `ready`, then publishes forever; `updates` is the monotonic time in ns."""
    from learner_node.publishing.broadcast import MIN_PERIOD_S, Broadcast  # noqa: PLC0415  (imports torch; only here)

    die_with_parent(parent)
    client = Client(zmq.Context(), replay)
    client.ask(Open("bench", run), Opened, ANSWER_TIMEOUT_S)
    broadcast = Broadcast(BIND)
    ready.send(broadcast.endpoint)
    flat = np.zeros(weight_count(run.players, run.spec.network), np.float32)
    # A broadcast only calls `send` of a learner's batch stream.
    stream, version = cast("ReplayClient", _Stream(client)), 0
    while True:
        version += 1
        header = WeightsHeader(run.id, run.data_hash, version, time.monotonic_ns(), 0.3, 0.0)
        broadcast.send(header, flat, stream, time.monotonic())
        time.sleep(max(0.0, MIN_PERIOD_S - (time.monotonic_ns() - header.updates) / 1e9))


class _Stream:
    """The part of a batch stream that a broadcast uses: storing weights on the replay server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def send(self, message: PutWeights, payload: bytes | None = None) -> None:
        """Sends weights to the replay server."""
        self._client.send(message, payload)
