"""Checkpoints: the learner's full state in safetensors files (no pickle), written atomically, checked when read.

    checkpoints/updates-0000012345.safetensors     the newest few
    checkpoints/best.safetensors                   the one with the best mean return of training episodes

Metadata: `counters` (JSON) and `digest`, blake2b over counters and tensors. A damaged newest file is passed over, with
a warning, for the one before it; when files are there and none can be read, that is an error, never a fresh start.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from common.errors import ShoalError
from common.run_directory import write_atomically

_log = logging.getLogger(__name__)
_BEST = "best.safetensors"


class Counters(msgspec.Struct, forbid_unknown_fields=True):
    """What a learner has done, beside its tensors."""

    updates: int = 0
    env_steps: int = 0
    samples: int = 0
    trained_s: float = 0.0
    weights_version: int = 0
    best_return: float | None = None


class State(msgspec.Struct, frozen=True):
    """All of a learner's state: tensors by name, and counters."""

    tensors: dict[str, Tensor]
    counters: Counters


class Checkpoints:
    """The files of one run."""

    def __init__(self, directory: Path, keep: int) -> None:
        self._directory, self._keep = directory, keep

    def save(self, state: State, *, best: bool) -> Path:
        """Writes a state, as the best one too if it is, and removes the oldest beyond those kept."""
        self._directory.mkdir(parents=True, exist_ok=True)
        counters = msgspec.json.encode(state.counters).decode()
        content = save(state.tensors, {"counters": counters, "digest": _digest(counters, state.tensors)})
        path = self._directory / f"updates-{state.counters.updates:010}.safetensors"
        write_atomically(path, content)
        if best:
            write_atomically(self._directory / _BEST, content)
        for old in self._newest_first()[self._keep :]:
            old.unlink()
        return path

    def load(self) -> State | None:
        """Returns the newest state that is whole, None when there are no files; ShoalError when none of them is whole."""
        files = self._newest_first()
        for path in files:
            try:
                return read(path)
            except (SafetensorError, msgspec.MsgspecError, KeyError, ValueError, OSError) as e:
                _log.warning("%s cannot be used (%s); trying the one before it", path, e)
        if files:
            raise ShoalError(
                f"none of the {len(files)} checkpoints in {self._directory} can be read; move them away to begin anew"
            )
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self._directory.glob("updates-*.safetensors"), reverse=True)


def read(path: Path) -> State:
    """Reads one checkpoint; ValueError when its digest does not fit, safetensors' and msgspec's errors otherwise."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
    if metadata["digest"] != _digest(metadata["counters"], tensors):
        raise ValueError("its digest does not fit")
    return State(tensors, msgspec.json.decode(metadata["counters"], type=Counters))


def _digest(counters: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(counters.encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
