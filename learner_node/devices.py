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
        self.capture_failed = False
        """Whether a capture failed. Nothing is captured or replayed from then on."""

    def capture(self, work: Callable[[], _T], generator: torch.Generator) -> tuple[Callable[[], object], _T]:
        """Raises NotImplementedError: only a GPU captures work."""
        raise NotImplementedError(f"nothing is captured on {self.torch}")

    def pinned(self, host: Tensor) -> Tensor:
        """Returns a tensor of the CPU in memory from which a copy to the device needs no wait."""
        return host

    def mark(self) -> Callable[[], object]:
        """Returns a function that waits until the device has done all work started so far."""
        return _no_wait


class Cuda(Device):
    """A GPU. Updates are captured in CUDA graphs, because kernel launches take most of the time of a small update."""

    is_gpu = True

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        # All graphs compute in one memory. None runs while another does, and results are valid until the next one only.
        self._pool = torch.cuda.graph_pool_handle()
        self._first: torch.cuda.CUDAGraph | None = None
        """The first graph. It stays, because torch captures into no memory that all graphs have left."""
        self._failed: torch.cuda.CUDAGraph | None = None
        """The graph of a capture that failed. It stays, because torch's allocator still refers to it."""

    def capture(self, work: Callable[[], _T], generator: torch.Generator) -> tuple[Callable[[], object], _T]:
        """Captures work in a CUDA graph without doing it; returns a function that replays it, and its results.

        RuntimeError if the work cannot be captured. The generator and the current stream are then as before, but graphs
        that draw from the generator can no longer be replayed.
        """
        graph, state = torch.cuda.CUDAGraph(), generator.get_state()
        graph.register_generator_state(generator)
        try:
            # The outer context restores the current stream: a capture that fails leaves its own stream in place.
            with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, pool=self._pool):
                results = work()
        except RuntimeError:
            # After a capture that fails, the generator may refuse to draw outside graphs; a new state replaces its own.
            fresh = torch.Generator(generator.device)
            fresh.set_state(state)
            generator.graphsafe_set_state(fresh.graphsafe_get_state())
            self._failed = graph
            raise
        self._first = self._first or graph
        return graph.replay, results

    def pinned(self, host: Tensor) -> Tensor:
        """Returns a copy of a CPU tensor in page-locked memory."""
        return host.pin_memory()

    def mark(self) -> Callable[[], object]:
        """Returns a function that waits until the GPU has done all work started so far."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        wait: Callable[[], object] = event.synchronize
        return wait


class GraphedUpdate(Generic[_T]):
    """Work on tensors that stay in place: called directly on the CPU, captured once and replayed on a GPU.

    If a capture fails, a warning is logged and all work of the device is called directly from then on.
    """

    def __init__(self, device: Device, work: Callable[[], _T], generator: torch.Generator) -> None:
        self._device, self._work, self._generator = device, work, generator
        self._direct_calls: float = _WARMUP_CALLS if device.is_gpu else float("inf")
        """Direct calls left before the capture."""
        self._captured: tuple[Callable[[], object], _T] | None = None

    def run(self) -> _T:
        """Does the work once; the results are valid until the next call."""
        if self._direct_calls > 0 or self._device.capture_failed:
            self._direct_calls -= 1
            return self._work()
        if self._captured is None:
            try:
                self._captured = self._device.capture(self._work, self._generator)
            except RuntimeError as e:
                _log.warning("the update cannot be captured in a CUDA graph and runs slower, without it: %s", e)
                self._device.capture_failed = True
                return self._work()
        replay, results = self._captured
        replay()
        return results


def _no_wait() -> None:
    """Waits for nothing: the CPU does work when it is called."""


class BatchBuffer:
    """The memory of the current batch on the device, which stays in place.

    `load` waits until the previous batch is copied, which a GPU does after the update before it. So at most two updates
    are queued, however fast batches arrive, and the CPU prepares one while the GPU does the other.
    """

    def __init__(self, device: Device, rows: int, numbers: int) -> None:
        """rows: records in a batch. numbers: 4-byte numbers in a record."""
        self.records = torch.zeros(rows, numbers, device=device.torch)
        """Records as rows of 4-byte numbers `[B, numbers]`."""
        self.importance = torch.ones(rows, device=device.torch)
        """Importance-sampling weights `[B]`."""
        self._device = device
        self._wait_for_copy: Callable[[], object] = _no_wait

    def load(self, records: Tensor, importance: Tensor | None) -> None:
        """Copies a batch to the device."""
        self._wait_for_copy()
        self.records.copy_(records, non_blocking=True)
        if importance is not None:
            self.importance.copy_(self._device.pinned(importance), non_blocking=True)
        self._wait_for_copy = self._device.mark()


class HostCopy:
    """A float32 copy of a tensor in the memory of the CPU, to which a GPU copies it in the background."""

    def __init__(self, tensor: Tensor) -> None:
        """Starts to copy. The caller may overwrite the tensor once this returns."""
        tensor = tensor.detach()
        self._event: torch.cuda.Event | None = None
        """The end of a GPU's copy; None on the CPU, whose copy is done."""
        if not tensor.is_cuda:
            self.tensor = tensor.to(torch.float32, copy=True)
            return
        self.tensor = torch.empty(tensor.shape, dtype=torch.float32, pin_memory=True)
        """The copy, which is valid once it has arrived."""
        self.tensor.copy_(tensor, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record()

    def has_arrived(self) -> bool:
        """Returns whether the copy is done."""
        done: bool = self._event is None or self._event.query()  # type: ignore[no-untyped-call]
        return done


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
