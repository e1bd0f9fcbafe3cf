"""TD errors on their way from the device to the replay: the learner never waits for its GPU to send them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from learner_node.replay_session import SampledBatch

MOST_UNDER_WAY = 64


class _UnderWay(NamedTuple):
    records: SampledBatch
    errors: Tensor
    arrived: Callable[[], bool]


def _at_once() -> bool:
    return True


class TdErrors:
    """Absolute TD errors of batches, in order."""

    def __init__(self) -> None:
        self._under_way: deque[_UnderWay] = deque(maxlen=MOST_UNDER_WAY)

    def start(self, records: SampledBatch, errors: Tensor) -> None:
        """Begins to copy errors `[B]` from wherever they are; they may change once this returns."""
        if not errors.is_cuda:
            self._under_way.append(_UnderWay(records, errors.detach().to(torch.float32, copy=True), _at_once))
            return
        host = torch.empty(errors.shape, dtype=torch.float32, pin_memory=True)
        host.copy_(errors.detach(), non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._under_way.append(_UnderWay(records, host, event.query))

    def arrived(self) -> Iterator[tuple[SampledBatch, Tensor]]:
        """Yields batches whose errors are on the CPU now, with them."""
        while self._under_way and self._under_way[0].arrived():
            records, errors, _ = self._under_way.popleft()
            yield records, errors
