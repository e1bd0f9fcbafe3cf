"""What an interrupted lockstep run goes on from, beside the learner's checkpoint: files in the run's `lockstep/`.

    state-0000012345.safetensors    actors, worlds, sampler and counters at that many updates: one a kept checkpoint
    records-000000000000.bin        the replay's transitions (record_files.py)

Written in this order: transitions, state, checkpoint. So whenever the process is killed, the newest checkpoint has
all it needs; the training since then is lost, and done again to the same bits. No pickle; digests over everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from common.errors import ShoalError
from common.files import write_atomically
from common.run.run import RunSpec
from common.state import State
from deploy.lockstep.record_files import RecordBlock, RecordFile, RecordFiles

VERSIONED = ("numpy", "torch")
"""Libraries that promise no bits from one version to the next."""


class ActorSnapshot(msgspec.Struct, frozen=True):
    """One actor, and how it stands with the replay."""

    incarnation: int
    seq: int
    """Chunks collected."""
    credit: int
    turn: int
    chunk_rows: int
    measured: bool
    env_steps: int
    episodes: int
    return_sums: tuple[float, ...]


class Limits(msgspec.Struct, frozen=True):
    """The rate limiter's counters."""

    inserts: int
    samples: int
    forgotten: tuple[int, int]


class Setting(msgspec.Struct, frozen=True):
    """What the bits depend on beside the state: when it differs, they do."""

    copies: int
    chunk_steps: int
    threads: int
    spec: RunSpec
    versions: dict[str, str]


class Snapshot(msgspec.Struct, frozen=True):
    """A moment of a lockstep run, without its arrays."""

    updates: int
    limits: Limits
    capacity: int
    size: int
    """Transitions the replay holds."""
    next_slot: int
    published: bool
    """Whether the next chunk's weights have been handed over."""
    sessions: tuple[ActorSnapshot, ...]
    setting: Setting
    segments: tuple[RecordFile, ...] = ()

    @property
    def start(self) -> int:
        """The place of the oldest transition it needs."""
        return self.limits.inserts - self.size


class LoadedSnapshot(msgspec.Struct, frozen=True):
    """A moment of a lockstep run, as it is put back."""

    snapshot: Snapshot
    arrays: State
    records: Iterable[npt.NDArray[np.uint8]]
    """Blocks of rows of bytes `[n, record bytes]`, oldest first; to be gone through once."""


class SnapshotStore:
    """Writes and reads the moments of one run."""

    def __init__(self, directory: Path, record_bytes: int) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)
        self._records = RecordFiles(directory, record_bytes)
        self._starts = {kept.updates: kept.start for path in self._states() if (kept := _peek(path))}
        """Where the transitions begin that each state needs, by its updates."""

    @property
    def end(self) -> int:
        """The place after the last transition that is kept."""
        return self._records.end

    def save(
        self, snapshot: Snapshot, arrays: State, first: int, blocks: Iterable[RecordBlock], wanted: set[int]
    ) -> None:
        """Keeps a moment with the transitions `blocks` from place `first` on.

        wanted: updates of the checkpoints there are; the states of all others are deleted.
        """
        self._forget(wanted)
        self._records.append(first, blocks)
        snapshot = msgspec.structs.replace(snapshot, segments=self._records.sync())
        text = msgspec.json.encode(snapshot).decode()
        content = save(arrays, {"snapshot": text, "digest": _digest(text, arrays)})
        write_atomically(self._path(snapshot.updates), content)
        self._starts[snapshot.updates] = snapshot.start

    def load(self, updates: int) -> LoadedSnapshot | None:
        """Returns the moment at that many updates, None when none was kept; ShoalError when it is damaged.

        With None all is deleted: it belongs to another course of the run.
        """
        path = self._path(updates)
        if not path.exists():
            self._forget(set())
            return None
        try:
            snapshot, arrays = _read(path)
        except (SafetensorError, msgspec.MsgspecError, KeyError, ValueError, OSError) as e:
            raise self._damaged(f"{path} cannot be used ({e})") from e
        return LoadedSnapshot(snapshot, arrays, self._load_records(snapshot))

    def close(self) -> None:
        """Closes the files."""
        self._records.close()

    def _load_records(self, snapshot: Snapshot) -> Iterator[npt.NDArray[np.uint8]]:
        try:
            yield from self._records.load(snapshot.segments, snapshot.start)
        except (ValueError, OSError) as e:
            raise self._damaged(str(e)) from e

    def _forget(self, wanted: set[int]) -> None:
        for path in self._states():
            if path not in {self._path(updates) for updates in wanted}:
                path.unlink()
        self._starts = {updates: start for updates, start in self._starts.items() if updates in wanted}
        self._records.forget_before(min(self._starts.values(), default=self._records.end))

    def _states(self) -> list[Path]:
        return list(self._directory.glob("state-*.safetensors"))

    def _path(self, updates: int) -> Path:
        return self._directory / f"state-{updates:010}.safetensors"

    def _damaged(self, what: str) -> ShoalError:
        return ShoalError(
            f"{what}; move {self._directory} away to go on from the checkpoint with a replay that is filled anew, "
            "which is not bit for bit the run it was"
        )


def versions() -> dict[str, str]:
    """Returns the versions that the bits depend on."""
    return {name: metadata.version(name) for name in VERSIONED}


def _peek(path: Path) -> Snapshot | None:
    """Returns a state's snapshot unchecked, None when it cannot be read."""
    try:
        with safe_open(path, "numpy") as file:
            return msgspec.json.decode((file.metadata() or {})["snapshot"], type=Snapshot)
    except (SafetensorError, msgspec.MsgspecError, KeyError, OSError):
        return None


def _read(path: Path) -> tuple[Snapshot, State]:
    with safe_open(path, "numpy") as file:
        kept = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
    if kept["digest"] != _digest(kept["snapshot"], arrays):
        raise ValueError("its digest does not fit")
    return msgspec.json.decode(kept["snapshot"], type=Snapshot), arrays


def _digest(text: str, arrays: State) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
