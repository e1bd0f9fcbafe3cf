"""Checkpoints: the learner's full state in safetensors files (no pickle), written atomically and verified when read.

    checkpoints/updates-0000012345.safetensors     the newest few
    checkpoints/best.safetensors                   the one with the best mean return of training episodes

Metadata: `counters` (JSON) and `digest`, blake2b over counters and tensors. If the newest file cannot be read, it is
skipped with a warning and renamed to `.damaged`, and the file before it is read; the best one is read last. If there
are files and none can be read, the learner raises an error and never starts from the beginning.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import NamedTuple

import msgspec
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from common.errors import ShoalError
from common.files import write_atomically, writing
from learner_node.persistence.state import Counters, TrainingState

_log = logging.getLogger(__name__)
_BEST = "best.safetensors"


class Checkpoints:
    """The checkpoint files of one run."""

    def __init__(self, directory: Path, keep: int) -> None:
        self._directory, self._keep = directory, keep

    def save(self, state: TrainingState, *, best: bool) -> Path:
        """Writes a state, also as the best one if `best`; removes the oldest files beyond `keep`; returns its path.

        ShoalError if the state contains non-finite numbers, because no run can resume from it, or if the disk is full:
        earlier files stay intact.
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
        """Returns the newest readable state, None if there are no files; ShoalError if no file can be read."""
        for leftover in self._directory.glob(".*.safetensors.*"):
            leftover.unlink()
        state, unreadable = read_newest(self._directory)
        if state is None and unreadable:
            raise ShoalError(
                f"none of the {len(unreadable)} checkpoints in {self._directory} can be read; "
                "move them away to start again."
            )
        # Unreadable files must not count among the newest `keep`. They keep their names if no state can be read.
        for path in unreadable:
            path.rename(f"{path}.damaged")
        return state

    def _newest_first(self) -> list[Path]:
        return _newest_first(self._directory)


class NewestCheckpoint(NamedTuple):
    """The result of a search for the newest readable checkpoint."""

    state: TrainingState | None
    """The state of the newest file that can be read; None if there is none."""
    unreadable: list[Path]
    """Files that were tried before it and cannot be read."""


def read_newest(directory: Path) -> NewestCheckpoint:
    """Returns the newest checkpoint that can be read, and the best one if no newer file can; changes no file.

    A learner may write at the same time: files that disappear or are incomplete are skipped with a warning.
    """
    unreadable: list[Path] = []
    for path in [*_newest_first(directory), *directory.glob(_BEST)]:
        try:
            return NewestCheckpoint(read(path), unreadable)
        except (SafetensorError, msgspec.MsgspecError, KeyError, ValueError, OSError) as e:
            _log.warning("%s cannot be used (%s); trying the one before it", path, e)
            unreadable.append(path)
    return NewestCheckpoint(None, unreadable)


def _newest_first(directory: Path) -> list[Path]:
    return sorted(directory.glob("updates-*.safetensors"), reverse=True)


def checkpointed_updates(directory: Path) -> set[int]:
    """Returns the number of updates of each checkpoint in a directory."""
    names = [path.stem.removeprefix("updates-") for path in directory.glob("updates-*.safetensors")]
    return {int(name) for name in names if name.isdigit()}


def read(path: Path) -> TrainingState:
    """Reads one checkpoint; ValueError if its digest does not match, else safetensors' and msgspec's errors."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is not a mapping)
    if metadata["digest"] != _digest(metadata["counters"], tensors):
        raise ValueError("the digest does not match")
    return TrainingState(tensors, msgspec.json.decode(metadata["counters"], type=Counters))


def _digest(counters: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(counters.encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
