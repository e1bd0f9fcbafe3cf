"""Runs `shoal train` processes in parallel; resumes runs that were started before."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from common.process.python_command import module_command
from common.process.stop import Stop


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


def run_all(jobs: Sequence[Job], parallel: int, stop: Stop, screen: Console, *, done: int = 0) -> list[Path]:
    """Executes jobs and returns the logs of failed ones; the progress display counts `done` earlier runs."""
    failed: list[Path] = []
    with ThreadPoolExecutor(parallel) as pool, Progress(console=screen) as progress:
        task = progress.add_task("runs", total=len(jobs) + done, completed=done)
        waiting: set[Future[Path | None]] = {pool.submit(_run_job, job, stop) for job in jobs}
        while waiting:
            ended, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            failed += [log for future in ended if (log := future.result()) is not None]
            progress.advance(task, len(ended))
    return failed


def _run_job(job: Job, stop: Stop) -> Path | None:
    """Starts or resumes a run, or only evaluates it if finished; returns its log if it failed."""
    if stop.requested:
        return None
    job.directory.parent.mkdir(parents=True, exist_ok=True)
    started = (job.directory / "run.toml").exists()
    line = module_command("shoal", "train", job.scenario, "--run", str(job.directory))
    line += [*(["--resume"] if started else ["--seed", str(job.seed)]), *job.options]
    if started and job.finished:
        line = module_command("shoal", "evaluate", str(job.directory))
    with job.log.open("ab") as output, subprocess.Popen(line, stdout=output, stderr=output) as process:  # noqa: S603
        _wait_for(process, stop)
    return job.log if process.returncode and not stop.requested else None


def _wait_for(process: subprocess.Popen[bytes], stop: Stop) -> None:
    """Waits for the process to end, and terminates it on a stop request."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
            return
        if stop.requested:
            process.terminate()
            process.wait()
            return
