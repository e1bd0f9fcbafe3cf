"""The one place that names a device: which it is, how batches get there, and how an update is captured on it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from common.errors import ConfigError

_T = TypeVar("_T")
_EAGER_TURNS = 3
"""Turns before capture: libraries choose their kernels and take their workspace in the first ones."""

_log = logging.getLogger(__name__)


class Device:
    """The CPU, where nothing is captured and memory need not be pinned."""

    is_gpu = False

    def __init__(self, device: torch.device) -> None:
        self.torch = device

    def record(self, work: Callable[[], _T], generator: torch.Generator) -> tuple[Callable[[], object], _T]:
        """Records work without doing it; returns what does it again, and where its results will then be."""
        raise NotImplementedError(f"nothing is recorded on {self.torch}")


class Cuda(Device):
    """A GPU: work is captured in CUDA graphs, for a small network's update is mostly launches."""

    is_gpu = True

    def record(self, work: Callable[[], _T], generator: torch.Generator) -> tuple[Callable[[], object], _T]:
        """See Device."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            results = work()
        return graph.replay, results


class GraphedUpdate(Generic[_T]):
    """Work on tensors that stay where they are: done as written, or captured once and replayed where that pays.

    When capture fails it goes on as written, with a warning.
    """

    def __init__(self, device: Device, work: Callable[[], _T], generator: torch.Generator) -> None:
        self._device, self._work, self._generator = device, work, generator
        self._eager_turns: float = _EAGER_TURNS if device.is_gpu else float("inf")
        self._recorded: tuple[Callable[[], object], _T] | None = None

    def __call__(self) -> _T:
        """Does the work once; results hold until the next time."""
        if self._eager_turns > 0:
            self._eager_turns -= 1
            return self._work()
        if self._recorded is None:
            try:
                self._recorded = self._device.record(self._work, self._generator)
            except RuntimeError as e:
                _log.warning("the update cannot be captured and runs launch by launch: %s", e)
                self._eager_turns = float("inf")
                return self._work()
        replay, results = self._recorded
        replay()
        return results


class BatchBuffer:
    """Where batches land: one place on the device, written anew for each, without waiting for the copy."""

    def __init__(self, device: Device, rows: int, words: int) -> None:
        self.words = torch.zeros(rows, words, device=device.torch)
        """`[B, words of a record]`."""
        self.importance = torch.ones(rows, device=device.torch)
        """`[B]`."""

    def take(self, words: Tensor, importance: Tensor | None) -> None:
        """Copies a batch in."""
        self.words.copy_(words, non_blocking=True)
        if importance is not None:
            self.importance.copy_(importance, non_blocking=True)


def use_threads(count: int) -> int:
    """Sets the number of threads of updates on the CPU; returns how many they used before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    return before


def choose_device(*, gpu: bool) -> Device:
    """Returns the GPU if asked for, else the CPU; ConfigError when there is no CUDA, with what to do."""
    if not gpu:
        return Device(torch.device("cpu"))
    if torch.cuda.is_available():
        return Cuda(torch.device("cuda"))
    built = torch.version.cuda
    why = f"it is built for CUDA {built} but finds no GPU: see nvidia-smi" if built else "install a build with CUDA"
    raise ConfigError(
        f"--gpu: torch {torch.__version__} has no CUDA device; {why}, or leave --gpu out to train on the CPU"
    )
