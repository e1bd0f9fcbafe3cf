"""Runs `shoal train` processes in parallel; resumes runs that were started before.

Other processes may execute runs of the same list at the same time, on this machine or on others that share the
directory: claims.py decides who executes which.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from common.errors import ConfigError
from common.process.children.parent import end_with_parent
from common.process.children.python_command import module_command
from common.process.exit import FAILED
from common.process.monitoring.resources import usable_cores
from common.process.stop import Stop
from shoal.commands.sweep.claims import LEASE_S, RENEWAL_S, Availability, Claims

_POLL_S = 0.2
_IN_LOCKSTEP = "--lockstep"


class Job(NamedTuple):
    """One run to execute."""

    scenario: str
    directory: Path
    seed: int
    options: tuple[str, ...]
    """Options of `shoal train`."""

    @property
    def finished(self) -> bool:
        """Whether the run has used its budget."""
        return (self.directory / "finished").exists()

    @property
    def log(self) -> Path:
        """Log file of the run's process."""
        return self.directory.with_suffix(".log")


class Executed(NamedTuple):
    """What became of a list of runs."""

    failed: list[Path]
    """Logs of the runs that failed in this process."""
    elsewhere: list[Path]
    """Directories of runs that other processes execute."""


def make_directory(path: str | Path) -> Path:
    """Creates the directory of the runs, if it does not exist, and returns its path; ConfigError if that fails."""
    directory = Path(path)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"--run {directory} cannot be created: {e.strerror}. Pass another directory.") from e
    return directory


def parallel_runs(jobs: int, train_options: Sequence[str]) -> int:
    """Returns the number of runs at the same time: `jobs`, or for 0 as many as the cores of this process allow."""
    cores_a_run = 1 if _IN_LOCKSTEP in train_options else 2
    return jobs or max(1, usable_cores() // cores_a_run)


def run_all(
    jobs: Iterable[Job],
    parallel: int,
    stop: Stop,
    screen: Console,
    *,
    claims: Claims,
    is_done: Callable[[Job], bool],
) -> Executed:
    """Executes those jobs that are not done and that no other process executes."""
    with Progress(console=screen) as progress:
        runner = _Runner(jobs, parallel, stop, progress, claims)
        return runner.run(is_done)


class _Running(NamedTuple):
    job: Job
    process: subprocess.Popen[bytes]


class _Runner:
    """Executes jobs, at most `parallel` at the same time, in one loop.

    The loop waits for the processes of its runs to end; a stop request sends them SIGTERM. It also waits for a run
    whose owner is silent: for the owner's next sign of life, or until the run may be taken over (claims.LEASE_S).
    """

    def __init__(self, jobs: Iterable[Job], parallel: int, stop: Stop, progress: Progress, claims: Claims) -> None:
        self._left, self._parallel, self._stop, self._claims = list(jobs), parallel, stop, claims
        self._progress, self._task = progress, progress.add_task("runs", total=len(self._left))
        self._running: dict[Path, _Running] = {}
        self._others: dict[Path, Availability] = {}
        """Runs that other processes execute, as they were found last."""
        self._lost: set[Path] = set()
        """Runs of this process that another one has taken over."""
        self._terminated: set[int] = set()
        """Process numbers of runs that were asked to end."""
        self._failed: list[Path] = []
        self._reported_wait = False

    def run(self, is_done: Callable[[Job], bool]) -> Executed:
        """Returns when every run is done or executed elsewhere, or when a stop request has ended the runs."""
        self._drop([job for job in self._left if is_done(job)])
        scan, renewal_at = True, time.monotonic() + RENEWAL_S
        try:
            while scan or self._running or self._waits_for_silent_owner():
                if self._stop.requested:
                    self._terminate(self._running.values())
                elif scan:
                    self._start_free(is_done)
                scan = self._reap(is_done) and not self._stop.requested
                if time.monotonic() >= renewal_at:
                    self._lose(self._claims.renew())
                    scan, renewal_at = not self._stop.requested, time.monotonic() + RENEWAL_S
                time.sleep(_POLL_S)
        finally:
            self._terminate(self._running.values())
        return Executed(self._failed, list(self._others))

    def _drop(self, jobs: Iterable[Job]) -> None:
        """Counts jobs that are done and forgets them."""
        for job in jobs:
            self._left.remove(job)
            self._others.pop(job.directory, None)
            self._progress.advance(self._task)

    def _start_free(self, is_done: Callable[[Job], bool]) -> None:
        """Starts runs that this process can take, until `parallel` runs are running."""
        for job in list(self._left):
            if len(self._running) >= self._parallel:
                return
            found = Availability.EXECUTED if is_done(job) else self._claims.take(job.directory)
            if found is Availability.EXECUTED:
                self._drop([job])
            elif found is Availability.TAKEN:
                self._left.remove(job)
                self._others.pop(job.directory, None)
                self._running[job.directory] = _Running(job, _start(job))
            else:
                self._others[job.directory] = found

    def _reap(self, is_done: Callable[[Job], bool]) -> bool:
        """Handles the runs whose processes have ended and returns whether there were any."""
        ended = [each for each in self._running.values() if each.process.poll() is not None]
        for job, process in ended:
            del self._running[job.directory]
            if job.directory in self._lost:
                continue
            stopped = self._stop.requested and not is_done(job)
            self._claims.end(job.directory, stopped=stopped)
            self._progress.advance(self._task, not stopped)
            if process.returncode and not self._stop.requested:
                self._failed.append(job.log)
        return bool(ended)

    def _lose(self, runs: Iterable[Path]) -> None:
        """Ends runs that other processes have taken over while this process gave no sign of life."""
        for run in runs:
            if run not in self._running:  # a search, which others now execute
                self._stop.request(FAILED)
                continue
            self._lost.add(run)
            self._others[run] = Availability.RUNNING
            self._progress.console.print(
                f"{run} was taken over by {self._claims.owner_of(run)}, because this process was silent.",
                soft_wrap=True,
            )
            self._terminate([self._running[run]])

    def _waits_for_silent_owner(self) -> bool:
        silent = [run for run, found in self._others.items() if found is Availability.SILENT]
        if self._stop.requested or not silent:
            return False
        if not self._reported_wait:
            self._reported_wait = True
            owner = self._claims.owner_of(silent[0])
            text = f"{owner} is silent; takes over {silent[0]} if it stays so for {LEASE_S:.0f} s."
            self._progress.console.print(text, soft_wrap=True)
        return True

    def _terminate(self, running: Iterable[_Running]) -> None:
        """Sends each process one SIGTERM: a second one could meet a process that has released its handler."""
        for each in running:
            if each.process.pid not in self._terminated and each.process.poll() is None:
                each.process.terminate()
                self._terminated.add(each.process.pid)


def _start(job: Job) -> subprocess.Popen[bytes]:
    """Starts or resumes a run, or only evaluates it if it is finished."""
    started = (job.directory / "run.toml").exists()
    line = module_command("shoal", "train", job.scenario, "--run", str(job.directory))
    line += [*(["--resume"] if started else ["--seed", str(job.seed)]), *job.options]
    if started and job.finished:
        line = module_command("shoal", "evaluate", str(job.directory))
    # A run must not outlive its owner: others may take it over, and would find its directory locked.
    with job.log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603  (our own argument list)
            line,
            stdout=output,
            stderr=output,
            preexec_fn=partial(end_with_parent, os.getpid()) if sys.platform == "linux" else None,  # noqa: PLW1509  (it acquires no lock)
        )
