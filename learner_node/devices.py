"""The devices on which updates run: how batches are copied to a device, and how an update is captured as a CUDA graph.

No other module tells CPU and GPU apart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from common.errors import ConfigError

_T = TypeVar("_T")
_WARMUP_CALLS = 3
"""Number of direct calls before the capture, in which libraries choose kernels and allocate their workspaces."""

_log = logging.getLogger(__name__)


class Device:
    """The CPU. Updates are not captured and memory is not pinned."""

    is_gpu = False

    def __init__(self, device: torch.device) -> None:
        self.torch = device

    def capture(self, work: Callable[[], _T], generator: torch.Generator) -> tuple[Callable[[], object], _T]:
        """Raises NotImplementedError: only a GPU captures work."""
        raise NotImplementedError(f"nothing is captured on {self.torch}")


class Cuda(Device):
    """A GPU. Updates are captured in CUDA graphs, because kernel launches take most of the time of a small update."""

    is_gpu = True

    def capture(self, work: Callable[[], _T], generator: torch.Generator) -> tuple[Callable[[], object], _T]:
        """Captures work in a CUDA graph without doing it; returns a function that replays it, and its results."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            results = work()
        return graph.replay, results


class GraphedUpdate(Generic[_T]):
    """Work on tensors that stay in place: called directly on the CPU, captured once and replayed on a GPU.

    If the capture fails, a warning is logged and the work is called directly from then on.
    """

    def __init__(self, device: Device, work: Callable[[], _T], generator: torch.Generator) -> None:
        self._device, self._work, self._generator = device, work, generator
        self._direct_calls: float = _WARMUP_CALLS if device.is_gpu else float("inf")
        """Direct calls left before the capture."""
        self._captured: tuple[Callable[[], object], _T] | None = None

    def run(self) -> _T:
        """Does the work once; the results are valid until the next call."""
        if self._direct_calls > 0:
            self._direct_calls -= 1
            return self._work()
        if self._captured is None:
            try:
                self._captured = self._device.capture(self._work, self._generator)
            except RuntimeError as e:
                _log.warning("the update cannot be captured in a CUDA graph and runs slower, without it: %s", e)
                self._direct_calls = float("inf")
                return self._work()
        replay, results = self._captured
        replay()
        return results


class BatchBuffer:
    """The memory of the current batch on the device. It stays in place; `load` does not wait for the copy."""

    def __init__(self, device: Device, rows: int, numbers: int) -> None:
        """rows: records in a batch. numbers: 4-byte numbers in a record."""
        self.records = torch.zeros(rows, numbers, device=device.torch)
        """Records as rows of 4-byte numbers `[B, numbers]`."""
        self.importance = torch.ones(rows, device=device.torch)
        """Importance-sampling weights `[B]`."""

    def load(self, records: Tensor, importance: Tensor | None) -> None:
        """Copies a batch to the device."""
        self.records.copy_(records, non_blocking=True)
        if importance is not None:
            self.importance.copy_(importance, non_blocking=True)


def use_threads(count: int) -> int:
    """Sets the number of CPU threads of an update; returns the previous number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    return before


def choose_device(*, gpu: bool) -> Device:
    """Returns the GPU if `gpu`, else the CPU; ConfigError with a way out if torch finds no CUDA device."""
    if not gpu:
        return Device(torch.device("cpu"))
    if torch.cuda.is_available():
        return Cuda(torch.device("cuda"))
    built = torch.version.cuda
    way_out = (
        f"It is built for CUDA {built} but finds no GPU: check nvidia-smi" if built else "Install a build with CUDA"
    )
    raise ConfigError(
        f"--gpu: torch {torch.__version__} has no CUDA device. {way_out}, or omit --gpu to train on the CPU."
    )
