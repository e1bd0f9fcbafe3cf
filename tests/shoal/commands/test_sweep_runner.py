"""Tests of the loop that executes a sweep's runs, with short shell commands in place of `shoal train`."""

from __future__ import annotations

import io
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from common.process.stop import Stop
from shoal.commands.sweep import claims, runner
from shoal.commands.sweep.claims import Availability, Claims
from shoal.commands.sweep.runner import Executed, Job, parallel_runs, run_all

Train = Callable[[str], None]


@pytest.fixture
def trains(monkeypatch: pytest.MonkeyPatch) -> Train:
    """Sets the command that a run is; it runs in the run's directory."""
    monkeypatch.setattr(claims, "_machine", lambda: "")
    monkeypatch.setattr(runner, "_POLL_S", 0.01)

    def command(text: str) -> None:
        def start(job: Job) -> subprocess.Popen[bytes]:
            job.directory.mkdir(parents=True, exist_ok=True)
            return subprocess.Popen(["sh", "-c", text], cwd=job.directory)

        monkeypatch.setattr(runner, "_start", start)

    return command


def jobs(directory: Path, count: int) -> list[Job]:
    return [Job("s", directory / f"seed-{seed}", seed, ()) for seed in range(count)]


def execute(work: list[Job], directory: Path, stop: Stop | None = None, parallel: int = 3) -> tuple[Executed, str]:
    screen = Console(file=io.StringIO(), width=1_000)
    is_done = lambda job: job.finished  # noqa: E731
    found = run_all(work, parallel, stop or Stop(), screen, claims=Claims(directory), is_done=is_done)
    return found, screen.file.getvalue()  # type: ignore[attr-defined]


def test_every_missing_run_is_executed_and_failures_are_returned(tmp_path: Path, trains: Train) -> None:
    work = jobs(tmp_path, 5)
    trains("echo >> log; case $PWD in *-3) exit 1;; esac; touch finished")
    work[1].directory.mkdir()
    (work[1].directory / "finished").touch()
    found, _ = execute(work, tmp_path)
    assert found == Executed([tmp_path / "seed-3.log"], [])
    assert sorted(path.parent.name for path in tmp_path.glob("*/log")) == ["seed-0", "seed-2", "seed-3", "seed-4"]
    assert all(path.read_text() == "\n" for path in tmp_path.glob("*/log")), "each once"


def test_a_run_of_another_process_is_left_to_it(tmp_path: Path, trains: Train) -> None:
    work, other = jobs(tmp_path, 2), Claims(tmp_path)
    other.take(work[0].directory)
    trains("touch finished")
    found, _ = execute(work, tmp_path)
    assert found == Executed([], [work[0].directory])
    assert work[1].finished
    assert not work[0].finished


def test_a_run_whose_owner_stays_silent_is_taken_over(
    tmp_path: Path, trains: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = jobs(tmp_path, 1)
    Claims(tmp_path).take(job.directory)
    trains("touch finished")
    monkeypatch.setattr(claims, "SILENT_S", -1.0)
    monkeypatch.setattr(claims, "LEASE_S", 0.1)
    monkeypatch.setattr(runner, "RENEWAL_S", 0.02)
    found, output = execute([job], tmp_path)
    assert found == Executed([], [])
    assert job.finished
    assert f"process {os.getpid()} on" in output, "the wait is not silent"


def test_a_run_that_another_process_took_over_is_ended(
    tmp_path: Path, trains: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = jobs(tmp_path, 1)
    monkeypatch.setattr(runner, "RENEWAL_S", 0.02)
    trains("touch started; exec sleep 60")

    def take_over() -> None:
        while not (job.directory / "started").exists():
            pass
        path = claims._path(job.directory, 1)
        path.with_name(path.name[:-1] + "2").write_bytes(path.read_bytes())

    thread = threading.Thread(target=take_over)
    thread.start()
    found, output = execute([job], tmp_path)
    thread.join()
    assert found == Executed([], [job.directory])
    assert "was taken over" in output


def test_a_stop_ends_the_runs_and_frees_them_for_others(tmp_path: Path, trains: Train) -> None:
    work, stop = jobs(tmp_path, 3), Stop()
    trains("touch started; exec sleep 60")

    def request() -> None:
        while len(list(tmp_path.glob("*/started"))) < 2:
            pass
        stop.request()

    thread = threading.Thread(target=request)
    thread.start()
    found, _ = execute(work, tmp_path, stop, parallel=2)
    thread.join()
    assert found == Executed([], [])
    assert not (work[2].directory / "started").exists(), "nothing starts after the stop"
    other = Claims(tmp_path)
    assert [other.take(job.directory) for job in work] == [Availability.TAKEN] * 3


def test_zero_jobs_are_as_many_as_the_cores_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "usable_cores", lambda: 5)
    assert parallel_runs(0, ["--lockstep", "--steps", "10"]) == 5
    assert parallel_runs(0, ["--time", "5m"]) == 2, "learner and actor"
    assert parallel_runs(3, []) == 3
    monkeypatch.setattr(runner, "usable_cores", lambda: 1)
    assert parallel_runs(0, []) == 1
