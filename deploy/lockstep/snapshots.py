"""Snapshots of a lockstep run: with the learner's checkpoints, they let an interrupted run continue.

The files are in the run's `lockstep/`:

    state-0000012345.safetensors    actors, worlds, sampler and counters after 12,345 updates: one for each checkpoint
    records-000000000000.bin        the replay's transitions (record_files.py)

The order of writing is transitions, state, checkpoint. So the newest checkpoint always has the files it needs, even
after a kill; a resumed run repeats the lost training with the same bits. No pickle; digests over all content.
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

BIT_RELEVANT_LIBRARIES = ("numpy", "torch")
"""Libraries whose results may differ from one version to the next."""


class ActorSnapshot(msgspec.Struct, frozen=True):
    """One actor, and both sides of its session with the replay."""

    incarnation: int
    seq: int
    """Chunks collected."""
    credit: int
    grant_order: int = msgspec.field(name="turn")
    """Position in the order of grants: 0 = the newest, negative = older."""
    chunk_rows: int
    measured: bool
    env_steps: int
    episodes: int
    return_sums: tuple[float, ...]


class LimiterCounters(msgspec.Struct, frozen=True):
    """The rate limiter's counters."""

    inserts: int
    samples: int
    ratio_origin: tuple[int, int] = msgspec.field(name="forgotten")
    """Inserts and samples that the ratio leaves out (`RateLimiter.ratio_origin`)."""


class ReproducibilitySettings(msgspec.Struct, frozen=True):
    """The settings and library versions that determine the bits, in addition to the state."""

    copies: int
    chunk_steps: int
    threads: int
    spec: RunSpec
    versions: dict[str, str]


class Snapshot(msgspec.Struct, frozen=True):
    """The state of a lockstep run after a number of updates, without its arrays."""

    updates: int
    limits: LimiterCounters
    capacity: int
    size: int
    """Number of transitions in the replay."""
    next_slot: int
    published: bool
    """Whether the weights for the next chunk were published."""
    sessions: tuple[ActorSnapshot, ...]
    setting: ReproducibilitySettings
    segments: tuple[RecordFile, ...] = ()

    @property
    def start(self) -> int:
        """Index of the oldest transition in the replay."""
        return self.limits.inserts - self.size


class LoadedSnapshot(msgspec.Struct, frozen=True):
    """A snapshot with its arrays and transitions."""

    snapshot: Snapshot
    arrays: State
    records: Iterable[npt.NDArray[np.uint8]]
    """Blocks of rows of bytes `[n, record bytes]`, oldest first; can be iterated once."""


class SnapshotStore:
    """Writes and reads the snapshots of one run."""

    def __init__(self, directory: Path, record_bytes: int) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)
        self._records = RecordFiles(directory, record_bytes)
        self._starts = {found.updates: found.start for path in self._states() if (found := _read_unchecked(path))}
        """Index of the oldest transition that each snapshot needs, by its updates."""

    @property
    def end(self) -> int:
        """Index after the last stored transition."""
        return self._records.end

    def save(
        self, snapshot: Snapshot, arrays: State, first: int, blocks: Iterable[RecordBlock], wanted: set[int]
    ) -> None:
        """Stores a snapshot, and the transitions `blocks` from index `first` on.

        wanted: updates of the existing checkpoints; all other snapshots are deleted.
        """
        self._delete_except(wanted)
        self._records.append(first, blocks)
        snapshot = msgspec.structs.replace(snapshot, segments=self._records.sync())
        text = msgspec.json.encode(snapshot).decode()
        content = save(arrays, {"snapshot": text, "digest": _digest(text, arrays)})
        write_atomically(self._path(snapshot.updates), content)
        self._starts[snapshot.updates] = snapshot.start

    def load(self, updates: int) -> LoadedSnapshot | None:
        """Returns the snapshot after that many updates, or None if there is none; ShoalError if it is damaged.

        If there is none, all others are deleted: they belong to a different history of the run.
        """
        path = self._path(updates)
        if not path.exists():
            self._delete_except(set())
            return None
        try:
            snapshot, arrays = _read(path)
        except (SafetensorError, msgspec.MsgspecError, KeyError, ValueError, OSError) as e:
            raise self._damaged(f"{path} cannot be read ({e})") from e
        return LoadedSnapshot(snapshot, arrays, self._load_records(snapshot))

    def close(self) -> None:
        """Closes the files."""
        self._records.close()

    def _load_records(self, snapshot: Snapshot) -> Iterator[npt.NDArray[np.uint8]]:
        try:
            yield from self._records.load(snapshot.segments, snapshot.start)
        except (ValueError, OSError) as e:
            raise self._damaged(str(e)) from e

    def _delete_except(self, wanted: set[int]) -> None:
        for path in self._states():
            if path not in {self._path(updates) for updates in wanted}:
                path.unlink()
        self._starts = {updates: start for updates, start in self._starts.items() if updates in wanted}
        self._records.delete_before(min(self._starts.values(), default=self._records.end))

    def _states(self) -> list[Path]:
        return list(self._directory.glob("state-*.safetensors"))

    def _path(self, updates: int) -> Path:
        return self._directory / f"state-{updates:010}.safetensors"

    def _damaged(self, what: str) -> ShoalError:
        return ShoalError(
            f"{what}; move {self._directory} away to continue from the checkpoint with an empty replay (the results "
            "will differ from those of the uninterrupted run)."
        )


def library_versions() -> dict[str, str]:
    """Returns the versions of the libraries that influence the bits."""
    return {name: metadata.version(name) for name in BIT_RELEVANT_LIBRARIES}


def _read_unchecked(path: Path) -> Snapshot | None:
    """Returns the snapshot in a file, without a check of its digest; None if it cannot be read."""
    try:
        with safe_open(path, "numpy") as file:
            return msgspec.json.decode((file.metadata() or {})["snapshot"], type=Snapshot)
    except (SafetensorError, msgspec.MsgspecError, KeyError, OSError):
        return None


def _read(path: Path) -> tuple[Snapshot, State]:
    with safe_open(path, "numpy") as file:
        header = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is not a mapping)
    if header["digest"] != _digest(header["snapshot"], arrays):
        raise ValueError("its digest is wrong")
    return msgspec.json.decode(header["snapshot"], type=Snapshot), arrays


def _digest(text: str, arrays: State) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
