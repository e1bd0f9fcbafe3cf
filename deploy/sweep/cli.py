"""The command `shoal sweep`."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec
from msgspec import Meta
from rich.console import Console
from rich.progress import Progress

from common import command
from common.errors import ConfigError, ShoalError
from common.process import Stop
from deploy.sweep import table
from deploy.sweep.plan import Planned, plan

_screen = Console(stderr=True)
_OWN_OPTIONS = ("--run", "--seed", "--resume", "--json")


class SweepConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of `shoal sweep`."""

    run: Annotated[str, Meta(min_length=1, description="Directory of the sweep: a directory a run in it.")]
    seeds: Annotated[int, Meta(ge=1, le=10_000, description="Seeds of each variant.")] = 5
    first_seed: Annotated[int, Meta(ge=0, lt=2**31, description="The first of them.")] = 1
    jobs: Annotated[
        int, Meta(ge=1, le=1024, description="Runs side by side: a lockstep run takes a core, another two or more.")
    ] = 1
    vary: Annotated[
        tuple[str, ...],
        Meta(
            description="A setting and its values, as in 'replay.batch=128|256'; several make every combination.",
            extra={"metavar": "KEY=V1|V2"},
        ),
    ] = ()
    json: Annotated[bool, Meta(description="Print the table as JSON on stdout.")] = False


@click.command()
@click.argument("scenario")
@click.argument("train_options", nargs=-1, type=click.UNPROCESSED)
@command.options(SweepConfig)
@click.pass_context
def sweep(context: click.Context, /, scenario: str, train_options: tuple[str, ...], **values: Any) -> int:
    """Train SCENARIO with several seeds and settings, and put the results into one table.

    Every run is a plain `shoal train` with what stands after `--`. Started again with the same options a sweep goes on
    where it was stopped: runs that are done are not done again.

    \b
    Examples:
      shoal sweep simple_spread --run sweeps/spread -- --time 5m
      shoal sweep simple_spread --run sweeps/batch --jobs 2 --vary 'replay.batch=128|256' -- --lockstep --steps 400000
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(SweepConfig, values)
    if clash := [option for option in _OWN_OPTIONS if any(own.split("=")[0] == option for own in train_options)]:
        raise ConfigError(f"{clash[0]} after --: a sweep gives each of its runs its own")
    if sections := command.run_settings(context):
        raise ConfigError(f"[{next(iter(sections))}] is a setting of the runs: give its file to them, -- --config FILE")
    directory = Path(config.run)
    runs = plan(directory, config.vary, range(config.first_seed, config.first_seed + config.seeds))
    directory.mkdir(parents=True, exist_ok=True)
    stop = Stop()
    stop.on_signals()
    failed = _do_all(runs, scenario, train_options, config.jobs, stop)
    done = table.gather(runs)
    table.save(done, directory)
    if config.json:
        click.echo(msgspec.json.encode({"rows": done.rows, "runs": done.outcomes}))
    else:
        Console(file=sys.stdout).print(table.in_words(done))
    if stop.requested:
        _screen.print("stopped; the same command goes on", soft_wrap=True)
        return stop.exit_code
    if failed:
        raise ShoalError(f"{len(failed)} of {len(runs)} runs failed; their words are in {', '.join(map(str, failed))}")
    return 0


def _do_all(runs: list[Planned], scenario: str, options: tuple[str, ...], jobs: int, stop: Stop) -> list[Path]:
    """Does the runs that are not done yet; returns the logs of those that failed."""
    left = [planned for planned in runs if table.outcome_of(planned) is None]
    failed: list[Path] = []
    with ThreadPoolExecutor(jobs) as pool, Progress(console=_screen) as progress:
        task = progress.add_task("runs", total=len(runs), completed=len(runs) - len(left))
        waiting: set[Future[Path | None]] = {pool.submit(_do, one, scenario, options, stop) for one in left}
        while waiting:
            done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            failed += [log for future in done if (log := future.result()) is not None]
            progress.advance(task, len(done))
    return failed


def _do(planned: Planned, scenario: str, options: tuple[str, ...], stop: Stop) -> Path | None:
    """Does one run, or goes on with it; returns its log if it failed."""
    if stop.requested:
        return None
    planned.directory.parent.mkdir(parents=True, exist_ok=True)
    log = planned.directory.with_suffix(".log")
    begun = (planned.directory / "run.toml").exists()
    line = [sys.executable, "-m", "deploy", "train", scenario, "--run", str(planned.directory)]
    line += ["--resume"] if begun else ["--seed", str(planned.seed)]
    line += [*options, *(word for setting in planned.variant.settings for word in ("--set", setting))]
    if begun and (planned.directory / "finished").exists():
        line = [sys.executable, "-m", "deploy", "evaluate", str(planned.directory)]
    with log.open("ab") as words, subprocess.Popen(line, stdout=words, stderr=words) as process:  # noqa: S603
        _wait_for(process, stop)
    return log if process.returncode and not stop.requested else None


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
