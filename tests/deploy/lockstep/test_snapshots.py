"""What a lockstep run keeps on disk: whole, digest-checked, bounded, and safe from a crash at any point."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from common.errors import ShoalError
from common.run.run import RunSpec
from deploy.lockstep import record_files as records
from deploy.lockstep.snapshots import LimiterCounters, ReproducibilitySettings, Snapshot, SnapshotStore

BYTES = 12
ALL = np.random.default_rng(0).integers(0, 256, (1_000, BYTES), np.uint8)


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "FILE_BYTES", 100 * BYTES)


def snapshot(updates: int, inserts: int, size: int) -> Snapshot:
    return Snapshot(
        updates=updates,
        limits=LimiterCounters(inserts, 5, (0, 0)),
        capacity=400,
        size=size,
        next_slot=7,
        published=True,
        sessions=(),
        setting=ReproducibilitySettings(4, 8, 1, RunSpec("simple"), {}),
    )


def save(keeper: SnapshotStore, updates: int, inserts: int, size: int, checkpoints: Sequence[int] = ()) -> None:
    first = max(keeper.end, inserts - size)
    blocks = [ALL[start : min(start + 30, inserts)] for start in range(first, inserts, 30)]
    arrays = {"noise": np.arange(updates, dtype=np.float32), "flags": np.zeros((2, 0), bool)}
    keeper.save(snapshot(updates, inserts, size), arrays, first, blocks, set(checkpoints))


def loaded(keeper: SnapshotStore, updates: int) -> np.ndarray:
    kept = keeper.load(updates)
    assert kept is not None
    np.testing.assert_array_equal(kept.arrays["noise"], np.arange(updates, dtype=np.float32))
    return np.concatenate([np.zeros((0, BYTES), np.uint8), *kept.records])


def files(directory: Path, pattern: str = "*") -> list[str]:
    return sorted(path.name for path in directory.glob(pattern))


def test_what_was_saved_is_read_again(tmp_path: Path) -> None:
    save(SnapshotStore(tmp_path, BYTES), 1, 250, 250)
    np.testing.assert_array_equal(loaded(SnapshotStore(tmp_path, BYTES), 1), ALL[:250])


def test_saving_writes_only_what_is_new_and_deletes_what_no_checkpoint_needs(tmp_path: Path) -> None:
    keeper = SnapshotStore(tmp_path, BYTES)
    save(keeper, 1, 250, 250)
    first = tmp_path / files(tmp_path, "records-*")[0]
    written_at = first.stat().st_mtime_ns
    save(keeper, 2, 350, 350, [1])
    assert first.stat().st_mtime_ns == written_at
    save(keeper, 3, 800, 400, [1, 2])
    older = shutil.copytree(tmp_path, tmp_path / "copy")
    np.testing.assert_array_equal(loaded(SnapshotStore(older, BYTES), 1), ALL[:250])

    keeper = SnapshotStore(tmp_path, BYTES)
    np.testing.assert_array_equal(loaded(keeper, 3), ALL[400:800])
    save(keeper, 4, 900, 400, [3])
    assert not first.exists()
    assert files(tmp_path, "state-*") == ["state-0000000003.safetensors", "state-0000000004.safetensors"]
    np.testing.assert_array_equal(loaded(SnapshotStore(tmp_path, BYTES), 4), ALL[500:900])


def test_more_than_the_ring_holds_may_come_between_two_saves(tmp_path: Path) -> None:
    keeper = SnapshotStore(tmp_path, BYTES)
    save(keeper, 1, 100, 100)
    save(keeper, 2, 900, 400, [1])
    np.testing.assert_array_equal(loaded(SnapshotStore(tmp_path, BYTES), 2), ALL[500:900])


def test_what_came_after_the_state_is_cut_off_and_written_again(tmp_path: Path) -> None:
    keeper = SnapshotStore(tmp_path, BYTES)
    save(keeper, 1, 130, 130)
    save(keeper, 2, 320, 320, [1])
    # Killed before the checkpoint of 2 was written: the newest is that of 1.
    again = SnapshotStore(tmp_path, BYTES)
    np.testing.assert_array_equal(loaded(again, 1), ALL[:130])
    save(again, 3, 290, 290, [1])
    np.testing.assert_array_equal(loaded(SnapshotStore(tmp_path, BYTES), 3), ALL[:290])
    assert files(tmp_path, "state-*") == ["state-0000000001.safetensors", "state-0000000003.safetensors"]


def test_without_a_state_for_the_checkpoint_all_is_begun_anew(tmp_path: Path) -> None:
    save(SnapshotStore(tmp_path, BYTES), 1, 130, 130)
    keeper = SnapshotStore(tmp_path, BYTES)
    assert keeper.load(2) is None
    assert files(tmp_path) == []
    save(keeper, 3, 700, 20)
    np.testing.assert_array_equal(loaded(SnapshotStore(tmp_path, BYTES), 3), ALL[680:700])


@pytest.mark.parametrize("name", ["state-0000000002.safetensors", "records-000000000000.bin"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_damage_is_named_with_the_way_out(tmp_path: Path, name: str, harm: str) -> None:
    save(SnapshotStore(tmp_path, BYTES), 2, 250, 250)
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[-1] ^= 1
        path.write_bytes(content)
    elif harm == "cut":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
    keeper = SnapshotStore(tmp_path, BYTES)
    if harm == "remove" and name.startswith("state"):
        assert keeper.load(2) is None
        return
    with pytest.raises(ShoalError, match=f"{name}.*move .* away"):
        loaded(keeper, 2)
