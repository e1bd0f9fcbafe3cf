"""Does runs side by side, each a `shoal train` of its own; what is begun goes on where it was stopped."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from common.process.own_python import module_command
from common.process.stop import Stop


class Job(NamedTuple):
    """One run to be done."""

    scenario: str
    directory: Path
    seed: int
    options: tuple[str, ...]
    """Of `shoal train`."""

    @property
    def finished(self) -> bool:
        """Whether its budget is used."""
        return (self.directory / "finished").exists()

    @property
    def log(self) -> Path:
        """What it said."""
        return self.directory.with_suffix(".log")


def run_all(left: Sequence[Job], side_by_side: int, stop: Stop, screen: Console, *, done: int = 0) -> list[Path]:
    """Does the runs that are left, showing how many there are with those done before; returns the logs that failed."""
    failed: list[Path] = []
    with ThreadPoolExecutor(side_by_side) as pool, Progress(console=screen) as progress:
        task = progress.add_task("runs", total=len(left) + done, completed=done)
        waiting: set[Future[Path | None]] = {pool.submit(_do, job, stop) for job in left}
        while waiting:
            ended, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            failed += [log for future in ended if (log := future.result()) is not None]
            progress.advance(task, len(ended))
    return failed


def _do(job: Job, stop: Stop) -> Path | None:
    """Does one run, or goes on with it; returns its log if it failed."""
    if stop.requested:
        return None
    job.directory.parent.mkdir(parents=True, exist_ok=True)
    begun = (job.directory / "run.toml").exists()
    line = module_command("shoal", "train", job.scenario, "--run", str(job.directory))
    line += [*(["--resume"] if begun else ["--seed", str(job.seed)]), *job.options]
    if begun and job.finished:
        line = module_command("shoal", "evaluate", str(job.directory))
    with job.log.open("ab") as words, subprocess.Popen(line, stdout=words, stderr=words) as process:  # noqa: S603
        _wait_for(process, stop)
    return job.log if process.returncode and not stop.requested else None


def _wait_for(process: subprocess.Popen[bytes], stop: Stop) -> None:
    """Waits for a run's end; passes a stop on to it."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
            return
        if stop.requested:
            process.terminate()
            process.wait()
            return
