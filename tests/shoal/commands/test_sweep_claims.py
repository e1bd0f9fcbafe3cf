"""Tests of claims: exactly one process executes a run, and a dead process blocks nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from shoal.commands.sweep import claims
from shoal.commands.sweep.claims import LEASE_S, SILENT_S, Availability, Claim, Claims, LatestClaim, availability
from shoal.commands.sweep.plan import part_of

STARTED, NOW = 1_000.0, 5_000.0
FREE, TAKEN, RUNNING, SILENT, EXECUTED = Availability


def claimed(state: str, age_s: float) -> LatestClaim:
    return LatestClaim(1, Claim("other", 1, "", state), NOW - age_s)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("latest", "dead", "expected"),
    [
        (None, False, FREE),
        (claimed("running", 0.0), False, RUNNING),
        (claimed("running", SILENT_S + 1), False, SILENT),
        (claimed("running", LEASE_S + 1), False, FREE),
        (claimed("running", 0.0), True, FREE),
        (claimed("stopped", 0.0), False, FREE),
        (claimed("executed", NOW - STARTED - 1), False, EXECUTED),
        (claimed("executed", NOW - STARTED + 1), False, FREE),
        (LatestClaim(1, None, NOW), False, RUNNING),
        (LatestClaim(1, None, NOW - LEASE_S - 1), False, FREE),
    ],
)
def test_who_may_take_a_run(latest: LatestClaim | None, dead: bool, expected: Availability) -> None:
    assert availability(latest, NOW, STARTED, owner_is_dead=dead) is expected


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `Claims` is as on a separate machine, which cannot look at the others' processes."""
    monkeypatch.setattr(claims, "_machine", lambda: "")


@pytest.mark.usefixtures("elsewhere")
def test_of_many_at_the_same_time_exactly_one_takes_each_run(tmp_path: Path) -> None:
    runs = [tmp_path / "variant" / f"seed-{seed}" for seed in range(20)]
    processes = [Claims(tmp_path) for _ in range(8)]

    def take_all(process: Claims) -> list[Path]:
        return [run for run in runs if process.take(run) is TAKEN]

    with ThreadPoolExecutor(len(processes)) as pool:
        taken = list(pool.map(take_all, processes))
    assert Counter(run for each in taken for run in each) == Counter(runs)


@pytest.mark.usefixtures("elsewhere")
def test_a_stopped_run_is_free_and_an_executed_one_is_not_repeated(tmp_path: Path) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    run = tmp_path / "seed-1"
    assert first.take(run) is TAKEN
    assert second.take(run) is RUNNING
    first.end(run, stopped=True)
    assert second.take(run) is TAKEN
    second.end(run)
    later = claims._path(run, 2).stat().st_mtime + 10
    os.utime(claims._path(run, 2), (later, later))
    assert first.take(run) is EXECUTED
    os.utime(claims._path(run, 2), (1.0, 1.0))
    assert Claims(tmp_path).take(run) is TAKEN, "the same command, started later, repeats what failed"


@pytest.mark.usefixtures("elsewhere")
def test_a_silent_owner_loses_its_run_and_finds_out(tmp_path: Path) -> None:
    suspended, other = Claims(tmp_path), Claims(tmp_path)
    lost, own = tmp_path / "seed-1", tmp_path / "seed-2"
    assert suspended.take(lost) is suspended.take(own) is TAKEN
    assert suspended.renew() == []
    assert other.take(lost) is RUNNING
    silent_since = claims._path(lost, 1).stat().st_mtime - LEASE_S - 1
    os.utime(claims._path(lost, 1), (silent_since, silent_since))
    assert other.take(lost) is TAKEN
    assert suspended.renew() == [lost]
    suspended.end(lost)
    assert other.renew() == [], "the former owner's end does not touch the new claim"
    found = claims.latest_claim(lost)
    assert found is not None
    assert found.claim is not None
    assert (found.number, found.claim.state) == (2, "running")


def test_a_dead_process_of_this_machine_blocks_nobody(tmp_path: Path) -> None:
    if not claims._machine():
        pytest.skip("this system has no /proc")
    run, me = tmp_path / "seed-1", Claims(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid, expected in ((os.getppid(), RUNNING), (ended.pid, TAKEN)):
        claims._path(run, 1).write_bytes(msgspec.json.encode(Claim("here", pid, claims._machine())))
        assert me.take(run) is expected
    assert me.owner_of(run).startswith(f"process {os.getpid()} on ")


@pytest.mark.usefixtures("elsewhere")
def test_a_directory_of_many_runs_is_listed_once_a_renewal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [tmp_path / f"seed-{seed}" for seed in range(30)]
    other, me = Claims(tmp_path), Claims(tmp_path)
    for run in runs[:20]:
        assert other.take(run) is TAKEN
    listed: list[Path] = []
    list_once = claims._listed_numbers
    monkeypatch.setattr(claims, "_listed_numbers", lambda path: listed.append(path) or list_once(path))
    assert [me.take(run) for run in runs] == [RUNNING] * 20 + [TAKEN] * 10
    assert listed == [tmp_path]
    other.end(runs[0], stopped=True)
    assert me.take(runs[0]) is TAKEN, "a listing is no reason to miss what happened since"
    assert listed == [tmp_path]
    assert me.renew() == []
    assert listed == [tmp_path] * 2


@pytest.mark.usefixtures("elsewhere")
def test_what_only_one_may_do_is_refused_with_its_owner(tmp_path: Path) -> None:
    Claims(tmp_path).take_or_refuse(tmp_path / "search", "The search")
    with pytest.raises(ConfigError, match=rf"The search is in progress: process {os.getpid()} on .*Wait until it ends"):
        Claims(tmp_path).take_or_refuse(tmp_path / "search", "The search")


@given(st.integers(0, 200), st.integers(1, 50))
def test_parts_are_the_whole_in_order_and_of_equal_size(runs: int, parts: int) -> None:
    found = [part_of(range(runs), f"{i}/{parts}") for i in range(1, parts + 1)]
    assert [run for part in found for run in part] == list(range(runs))
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "1/", "/2", "a/2", "1/2/3", "-1/2"])
def test_an_invalid_part_is_refused(part: str) -> None:
    with pytest.raises(ConfigError, match=r"Write I/N with I from 1 to N"):
        part_of([1, 2], part)
