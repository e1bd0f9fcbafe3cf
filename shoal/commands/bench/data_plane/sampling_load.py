"""Batches of 1,024 transitions: sampled from a replay server as a learner does, and by np.take alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import zmq

from common.errors import PeerError
from common.run.run import Run
from common.transitions import transition_dtype
from common.wire.client import Client
from common.wire.messages import Batch, Held, Open, Opened, SampleRequest
from shoal.commands.bench.data_plane.load_generator import RecordedChunk

BATCH = 1024
PREFETCH = 4
"""Requested batches in flight: a learner's default `--prefetch`."""
ANSWER_TIMEOUT_S = 30.0


class SamplingClient:
    """Samples batches from a replay server, with several requests in flight."""

    def __init__(self, endpoint: str, run: Run) -> None:
        """Opens the run; raises PeerError if the server does not answer."""
        self._context = zmq.Context()
        self._client = Client(self._context, endpoint)
        self._client.ask(Open("bench", run), Opened, ANSWER_TIMEOUT_S)
        self._requested = self._received = 0

    def draw(self) -> int:
        """Receives one batch, keeps PREFETCH requests in flight, and returns 1."""
        while self._requested - self._received < PREFETCH:
            self._request()
        self._receive()
        return 1

    def round_trips(self, batches: int) -> list[float]:
        """Returns the seconds from each request to its batch, with one request in flight at a time."""
        while self._received < self._requested:
            self._receive()
        return [seconds_of(self._request_and_receive) for _ in range(batches)]

    def close(self) -> None:
        """Closes the socket."""
        self._context.destroy(linger=0)

    def _request_and_receive(self) -> None:
        self._request()
        self._receive()

    def _request(self) -> None:
        self._requested += 1
        self._client.send(SampleRequest(self._requested, BATCH))

    def _receive(self) -> None:
        while received := self._client.receive(ANSWER_TIMEOUT_S):
            if isinstance(received[0], Batch):
                self._received += 1
                return
            if not isinstance(received[0], Held):
                raise PeerError(f"the replay server answered {received[0]}")
        raise PeerError(f"received no batch within {ANSWER_TIMEOUT_S:g} s")


class TakeBaseline:
    """Samples batches with np.take alone, from the same number of records."""

    def __init__(self, run: Run, recorded: Sequence[RecordedChunk], size: int) -> None:
        record_bytes = transition_dtype(run.joint).itemsize
        block = np.frombuffer(b"".join(one.payload for one in recorded), np.uint8).reshape(-1, record_bytes)
        self._records = np.resize(block, (size, record_bytes))
        self._out = np.empty((BATCH, record_bytes), np.uint8)
        self._rng = np.random.default_rng(0)

    def draw(self) -> int:
        """Samples one batch and returns 1."""
        slots = self._rng.integers(0, len(self._records), BATCH)
        np.take(self._records, slots, axis=0, out=self._out, mode="clip")
        return 1

    def timed(self, batches: int) -> list[float]:
        """Returns the seconds that each of the given number of batches takes."""
        return [seconds_of(self.draw) for _ in range(batches)]


def seconds_of(call: Callable[[], object]) -> float:
    """Returns the seconds that one call takes."""
    started_at = time.perf_counter()
    call()
    return time.perf_counter() - started_at
