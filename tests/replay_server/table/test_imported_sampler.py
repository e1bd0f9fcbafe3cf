"""A user's own sampler: the ages that it returns become records, and each of its faults is named."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError, LastingError
from common.wire.messages import Open, Refused
from replay_server.config import ReplayConfig
from replay_server.replay import Replay
from replay_server.table.imported_sampler import check_sampler
from replay_server.table.samplers import ImportedSampler
from replay_server.table.table import Table
from tests.replay_server.runs import make_run, numbers, records

HERE = "tests.replay_server.table.test_imported_sampler"


class Newest:
    """Returns the ages 0, 1, 2, ... and again from 0 where the ring is smaller."""

    def sample(self, rng: np.random.Generator, size: int, count: int) -> np.ndarray:
        return np.arange(count) % size


class Random:
    def sample(self, rng: np.random.Generator, size: int, count: int) -> np.ndarray:
        return rng.integers(0, size, count)


class Listed:
    def sample(self, rng: np.random.Generator, size: int, count: int) -> list[int]:
        return [0] * count


class TooOld:
    def sample(self, rng: np.random.Generator, size: int, count: int) -> np.ndarray:
        return np.full(count, size)


class Negative:
    def sample(self, rng: np.random.Generator, size: int, count: int) -> np.ndarray:
        return np.full(count, -1)


class Fractions:
    def sample(self, rng: np.random.Generator, size: int, count: int) -> np.ndarray:
        return rng.random(count)


class OneOnly:
    def sample(self, rng: np.random.Generator, size: int, count: int) -> np.ndarray:
        return np.zeros(1, np.int64)


class Fails:
    def sample(self, rng: np.random.Generator, size: int, count: int) -> np.ndarray:
        raise RuntimeError("no luck today")


class FailsWhenMade:
    def __init__(self) -> None:
        raise RuntimeError("no licence")

    def sample(self, rng: np.random.Generator, size: int, count: int) -> np.ndarray: ...


class FailsLater:
    """Passes the trial, which asks for at most one record and for a full ring of 1,000."""

    def sample(self, rng: np.random.Generator, size: int, count: int) -> np.ndarray:
        return np.full(count, 0 if size in (1, 1_000) else size)


class WithoutMethod: ...


def recent() -> None: ...


@given(chunks=st.lists(st.integers(1, 9), min_size=1, max_size=12), count=st.integers(1, 12))
def test_ages_count_from_the_newest_record_back(chunks: list[int], count: int) -> None:
    run = make_run(capacity=7, min_size=1, sampler=f"{HERE}:Newest")
    table = Table(run, run.spec.replay, seed=1)
    inserted = 0
    for rows in chunks:
        table.insert(records(rows, inserted))
        inserted += rows
    stored = min(inserted, 7)
    drawn = numbers(table.records(table.sample(count)))
    assert drawn == [inserted - 1 - i % stored for i in range(count)]


def test_ages_are_right_after_the_settings_change_under_a_full_ring() -> None:
    run = make_run(capacity=7, min_size=1)
    table = Table(run, run.spec.replay, seed=1)
    table.insert(records(10))
    newest = make_run(capacity=7, min_size=1, sampler=f"{HERE}:Newest")
    changed = table.with_settings(newest, newest.spec.replay)
    assert numbers(changed.records(changed.sample(4))) == [9, 8, 7, 6]
    smaller = make_run(capacity=3, min_size=1, sampler=f"{HERE}:Newest")
    changed = changed.with_settings(smaller, smaller.spec.replay)
    assert numbers(changed.records(changed.sample(4))) == [9, 8, 7, 9]


def test_the_same_seed_or_a_restored_state_gives_the_same_draws() -> None:
    first, second, third = (ImportedSampler(f"{HERE}:Random", 100, seed) for seed in (5, 5, 6))
    for sampler in (first, second, third):
        sampler.insert(0, 60)
    assert (first.draw(50) == second.draw(50)).all()
    third.restore(first.state())
    assert (first.draw(50) == third.draw(50)).all()


def test_a_list_of_ages_will_do() -> None:
    sampler = ImportedSampler(f"{HERE}:Listed", 10, 0)
    sampler.insert(0, 4)
    assert sampler.draw(3).tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("TooOld", "returned the age 1. An age is 0 for the newest record and size - 1 for the oldest one."),
        ("Negative", "returned the age -1."),
        ("Fractions", r"returned an array of shape \[256\] and type float64. Return 256 whole numbers."),
        ("OneOnly", r"returned an array of shape \[1\] and type int64. Return 256 whole numbers."),
        ("Fails", r"sample\(rng, size=1, count=256\): RuntimeError: no luck today\n  .*test_imported_sampler.py:\d+"),
        ("FailsWhenMade", "making the sampler: RuntimeError: no licence"),
        ("WithoutMethod", r"is not a class with a method sample\(self, rng, size, count\)"),
        ("recent", "recent is not a class with a method sample"),
        ("Newst", "has no Newst; did you mean Newest?"),
    ],
)
def test_a_class_that_cannot_be_used_is_named_with_the_way_out(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        check_sampler(f"{HERE}:{name}", 1_000)
    assert str(error.value).startswith(f"replay.sampler = '{HERE}:{name}': ")


def test_a_module_that_is_missing_or_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_samplerz.py").write_text("raise OSError('no disk')\n")
    with pytest.raises(ConfigError, match=r"\./my_samplerz.py is here: export PYTHONPATH=.*Every replay server"):
        check_sampler("my_samplerz:Recent", 10)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ConfigError, match=r"importing my_samplerz: OSError: no disk\n  .*my_samplerz.py:1 in <mod"):
        check_sampler("my_samplerz:Recent", 10)


def test_a_fault_during_the_run_is_final() -> None:
    run = make_run(sampler=f"{HERE}:FailsLater")
    table = Table(run, run.spec.replay, seed=1)
    table.insert(records(30))
    with pytest.raises(LastingError, match=r"sample\(rng, size=30, count=8\) returned the age 30\."):
        table.sample(8)


def test_a_server_refuses_a_run_whose_sampler_it_cannot_import() -> None:
    replay = Replay(ReplayConfig(redis="none"), 0.0)
    opened = Open("learner", make_run(sampler="no_such_module:Recent"), 0, 0)
    (reply,) = replay.handle(b"learner", opened, None, 0.0)
    assert isinstance(reply.message, Refused)
    assert "cannot import no_such_module" in reply.message.reason
    assert replay.table is None
