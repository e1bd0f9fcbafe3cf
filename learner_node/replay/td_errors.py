"""Copies of TD errors from the device to the CPU, so that the learner never waits for its GPU to send priorities."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from learner_node.devices import HostCopy
from learner_node.replay.replay_session import SampledBatch

MAX_IN_FLIGHT = 64
"""Largest number of unfinished copies; beyond it the oldest is dropped."""


class _Copy(NamedTuple):
    batch: SampledBatch
    td_errors: HostCopy


class TdErrors:
    """A queue of absolute TD errors that are copied to the CPU, in the order of their batches."""

    def __init__(self) -> None:
        self._in_flight: deque[_Copy] = deque(maxlen=MAX_IN_FLIGHT)

    def start(self, batch: SampledBatch, td_errors: Tensor) -> None:
        """Starts to copy the errors `[B]` from their device. The caller may overwrite them once this returns."""
        self._in_flight.append(_Copy(batch, HostCopy(td_errors)))

    def arrived(self) -> Iterator[tuple[SampledBatch, Tensor]]:
        """Yields the batches whose errors are on the CPU, with their errors."""
        while self._in_flight and self._in_flight[0].td_errors.has_arrived():
            batch, td_errors = self._in_flight.popleft()
            yield batch, td_errors.tensor
