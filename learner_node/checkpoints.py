"""Checkpoints: the learner's full state in safetensors files (no pickle), written atomically, checked when read.

    checkpoints/updates-0000012345.safetensors     the newest few
    checkpoints/best.safetensors                   the one with the best mean return of training episodes

Metadata: `counters` (JSON) and `digest`, blake2b over counters and tensors. A damaged newest file is passed over, with
a warning and the name `.damaged`, for the one before it, at last for the best one; when files are there and none can be
read, that is an error, never a fresh start.
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
from common.files import write_atomically, writing
from learner_node.state import Counters, TrainingState

_log = logging.getLogger(__name__)
_BEST = "best.safetensors"


class Checkpoints:
    """The files of one run."""

    def __init__(self, directory: Path, keep: int) -> None:
        self._directory, self._keep = directory, keep

    def save(self, state: TrainingState, *, best: bool) -> Path:
        """Writes a state, as the best one too if it is, and removes the oldest beyond those kept.

        ShoalError when the state holds non-finite numbers: it would displace one that can be gone on from; and when
        there is no room for it, which leaves those before it.
        """
        state.check()
        counters = msgspec.json.encode(state.counters).decode()
        content = save(state.tensors, {"counters": counters, "digest": _digest(counters, state.tensors)})
        path = self._directory / f"updates-{state.counters.updates:010}.safetensors"
        with writing(path):
            self._directory.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
            if best:
                write_atomically(self._directory / _BEST, content)
            for old in self._newest_first()[self._keep :]:
                old.unlink()
        return path

    def load(self) -> TrainingState | None:
        """Returns the newest state that is whole, None when there are no files; ShoalError when none is whole."""
        for leftover in self._directory.glob(".*.safetensors.*"):
            leftover.unlink()
        files, damaged = [*self._newest_first(), *self._directory.glob(_BEST)], []
        for path in files:
            try:
                state = read(path)
            except (SafetensorError, msgspec.MsgspecError, KeyError, ValueError, OSError) as e:
                _log.warning("%s cannot be used (%s); trying the one before it", path, e)
                damaged.append(path)
                continue
            # Out of the way, or they would count among the newest; but only now that there is something to go on from.
            for file in damaged:
                file.rename(f"{file}.damaged")
            return state
        if files:
            raise ShoalError(
                f"none of the {len(files)} checkpoints in {self._directory} can be read; move them away to begin anew"
            )
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self._directory.glob("updates-*.safetensors"), reverse=True)


def kept_updates(directory: Path) -> set[int]:
    """Returns at how many updates each of a run's checkpoints was written."""
    names = [path.stem.removeprefix("updates-") for path in directory.glob("updates-*.safetensors")]
    return {int(name) for name in names if name.isdigit()}


def read(path: Path) -> TrainingState:
    """Reads one checkpoint; ValueError when its digest does not fit, safetensors' and msgspec's errors otherwise."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
    if metadata["digest"] != _digest(metadata["counters"], tensors):
        raise ValueError("its digest does not fit")
    return TrainingState(tensors, msgspec.json.decode(metadata["counters"], type=Counters))


def _digest(counters: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(counters.encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
