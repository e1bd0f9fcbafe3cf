"""Batches of 1,024: drawn from a replay server as a learner draws them, and by np.take alone."""

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
from shoal.commands.bench.load_generator import RecordedChunk

BATCH = 1024
ASKED_AHEAD = 4
"""A learner's default `--prefetch`."""
ANSWER_S = 30.0


class SamplingClient:
    """Draws batches over the wire, some asked for ahead."""

    def __init__(self, endpoint: str, run: Run) -> None:
        """Opens the run; PeerError when the server does not answer."""
        self._context = zmq.Context()
        self._client = Client(self._context, endpoint)
        self._client.ask(Open("drawer", run), Opened, ANSWER_S)
        self._asked = self._come = 0

    def draw(self) -> int:
        """Takes one batch and asks for others ahead; returns 1."""
        while self._asked - self._come < ASKED_AHEAD:
            self._ask()
        self._await()
        return 1

    def round_trips(self, batches: int) -> list[float]:
        """Returns the seconds from a request to its batch, one asked for at a time."""
        while self._come < self._asked:
            self._await()
        return [seconds_of(self._ask_and_await) for _ in range(batches)]

    def close(self) -> None:
        """Closes the socket."""
        self._context.destroy(linger=0)

    def _ask_and_await(self) -> None:
        self._ask()
        self._await()

    def _ask(self) -> None:
        self._asked += 1
        self._client.send(SampleRequest(self._asked, BATCH))

    def _await(self) -> None:
        while received := self._client.receive(ANSWER_S):
            if isinstance(received[0], Batch):
                self._come += 1
                return
            if not isinstance(received[0], Held):
                raise PeerError(f"the replay server answered {received[0]}")
        raise PeerError(f"no batch came within {ANSWER_S:g} s")


class TakeBaseline:
    """Batches by np.take alone, over as many records."""

    def __init__(self, run: Run, recorded: Sequence[RecordedChunk], size: int) -> None:
        record_bytes = transition_dtype(run.joint).itemsize
        block = np.frombuffer(b"".join(one.payload for one in recorded), np.uint8).reshape(-1, record_bytes)
        self._records = np.resize(block, (size, record_bytes))
        self._out = np.empty((BATCH, record_bytes), np.uint8)
        self._rng = np.random.default_rng(0)

    def draw(self) -> int:
        """Draws one batch; returns 1."""
        slots = self._rng.integers(0, len(self._records), BATCH)
        np.take(self._records, slots, axis=0, out=self._out, mode="clip")
        return 1

    def timed(self, batches: int) -> list[float]:
        """Returns the seconds of each of so many batches."""
        return [seconds_of(self.draw) for _ in range(batches)]


def seconds_of(turn: Callable[[], object]) -> float:
    """Returns how long one call takes."""
    started_at = time.perf_counter()
    turn()
    return time.perf_counter() - started_at
