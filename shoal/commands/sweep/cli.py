"""The command `shoal sweep`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec
from msgspec import Meta
from rich.console import Console

from common.errors import ConfigError, ShoalError
from common.process import command
from common.process.shell_command import shell_command
from common.process.stop import Stop
from common.run.directory import RunDirectory
from shoal.commands.sweep import table
from shoal.commands.sweep.claims import Claims
from shoal.commands.sweep.plan import PlannedRun, part_of, plan
from shoal.commands.sweep.runner import Job, make_directory, parallel_runs, run_all
from shoal.commands.sweep.search import Search
from shoal.tables import print_tables

_screen = Console(markup=False, emoji=False, stderr=True)
_SWEEP_OPTIONS = ("--run", "--seed", "--resume", "--json")


class SweepConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of `shoal sweep`."""

    run: Annotated[str, Meta(min_length=1, description="Directory of the sweep; each run gets a subdirectory.")]
    seeds: Annotated[int, Meta(ge=1, le=10_000, description="Number of seeds; each variant has one run for each.")] = 5
    first_seed: Annotated[int, Meta(ge=0, lt=2**31, description="First seed; the others follow it.")] = 1
    jobs: Annotated[
        int,
        Meta(
            ge=0,
            le=1024,
            description="Number of runs at the same time; 0 is as many as the cores allow. A lockstep run uses one"
            " core, any other two or more.",
        ),
    ] = 1
    part: Annotated[
        str,
        Meta(
            description="Execute only the I-th of N parts of the runs, for machines without a shared directory."
            " Machines that share the directory divide the runs among themselves.",
            extra={"metavar": "I/N"},
        ),
    ] = ""
    table: Annotated[bool, Meta(description="Print the table of the results so far, and execute no run.")] = False
    vary: Annotated[
        tuple[str, ...],
        Meta(
            description="Setting and values to vary, as in 'replay.batch=128|256'; can be repeated, which makes every"
            " combination. With --search, a range is possible: 'algorithm.critic_learning_rate=1e-4..1e-2 log'.",
            extra={"metavar": "KEY=V1|V2"},
        ),
    ] = ()
    search: Annotated[
        int,
        Meta(
            ge=0,
            description="Number of combinations that Optuna chooses by the results of earlier ones; 0 runs all.",
        ),
    ] = 0
    json: Annotated[bool, Meta(description="Print the table and the runs as JSON.")] = False

    @property
    def seed_numbers(self) -> range:
        """The seeds of the runs of each variant."""
        return range(self.first_seed, self.first_seed + self.seeds)


@click.command()
@click.argument("scenario")
@click.argument("train_options", nargs=-1, type=click.UNPROCESSED)
@command.options(SweepConfig)
@click.pass_context
def sweep(context: click.Context, /, scenario: str, train_options: tuple[str, ...], **values: Any) -> int:
    """Train SCENARIO with several seeds and settings.

    Every run is a `shoal train` with the options after `--`. Prints one table of all results. After a stop, the same
    command continues the sweep; it does not repeat finished runs. Started several times, also on machines that share
    the directory, the same command executes each run once.

    \b
    Examples:
      shoal sweep simple_spread --run sweeps/spread -- --time 5m
      shoal sweep simple_spread --run sweeps/batch --jobs 2 --vary 'replay.batch=128|256' -- --lockstep --steps 400000
      shoal sweep simple_spread --run sweeps/rate --search 20 --seeds 2 \\
          --vary 'algorithm.critic_learning_rate=1e-4..1e-2 log' -- --time 2m
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(SweepConfig, values)
    if clash := [option for option in _SWEEP_OPTIONS if any(given.split("=")[0] == option for given in train_options)]:
        raise ConfigError(f"{clash[0]} is not allowed after --, because the sweep sets it for each run.")
    if sections := command.run_settings(context):
        raise ConfigError(
            f"[{next(iter(sections))}] contains settings of the runs. Pass the file to the runs: -- --config FILE"
        )
    if config.search and config.part:
        raise ConfigError(
            "--part cannot be combined with --search, whose trials depend on earlier results. Omit --part, and let one"
            " machine run the search."
        )
    if config.table and not Path(config.run).is_dir():
        raise ConfigError(f"--table: there is no sweep in {config.run}.")
    directory = make_directory(config.run)
    stop = Stop()
    stop.on_signals()
    work = _Work(directory, scenario, train_options, config.jobs, stop)
    runs = _search(config, work) if config.search else plan(directory, config.vary, config.seed_numbers)
    if not (config.search or config.table):
        work.execute(part_of(runs, config.part))
    done = table.gather(runs)
    table.save(done, directory)
    if config.json:
        command.result(msgspec.json.encode({"rows": done.rows, "runs": done.outcomes}))
    else:
        print_tables(table.text_table(done))
    if stop.requested:
        _screen.print("Stopped. Run the same command to continue.", soft_wrap=True)
        return stop.exit_code
    if work.failed:
        logs = ", ".join(map(str, work.failed))
        raise ShoalError(f"{len(work.failed)} of {work.planned} runs failed. Logs: {logs}.")
    if len(done.outcomes) < len(runs):
        _screen.print(_missing(len(done.outcomes), runs, work, directory), soft_wrap=True)
    return 0


class _Work:
    """Executes runs and records what became of them."""

    def __init__(self, directory: Path, scenario: str, options: tuple[str, ...], jobs: int, stop: Stop) -> None:
        self.claims, self.stop = Claims(directory), stop
        self.parallel = parallel_runs(jobs, options)
        self.planned = 0
        self.failed: list[Path] = []
        self.elsewhere: list[Path] = []
        self._scenario, self._options = scenario, options

    def execute(self, runs: Sequence[PlannedRun]) -> None:
        """Executes those runs that have no outcome."""
        jobs = {run.directory: run for run in runs}

        def is_done(job: Job) -> bool:
            return table.outcome_of(jobs[job.directory]) is not None

        executed = run_all(map(self._job, runs), self.parallel, self.stop, _screen, claims=self.claims, is_done=is_done)
        self.planned += len(runs)
        self.failed += executed.failed
        self.elsewhere += executed.elsewhere

    def _job(self, run: PlannedRun) -> Job:
        settings = (argument for setting in run.variant.settings for argument in ("--set", setting))
        return Job(self._scenario, run.directory, run.seed, (*self._options, *settings))


def _search(config: SweepConfig, work: _Work) -> list[PlannedRun]:
    """Executes the search, unless only its table is wanted, and returns the runs of all its trials."""
    directory = Path(config.run)
    if not config.table:
        work.claims.take_or_refuse(directory / "search", f"The search in {directory}")
    try:
        search = Search(directory, config.vary, config.seed_numbers, config.search, work.parallel)
        return search.run(work.execute, lambda: work.stop.requested or config.table)
    finally:
        work.claims.end(directory / "search", stopped=True)


def _missing(done: int, runs: Sequence[PlannedRun], work: _Work, directory: Path) -> str:
    """Returns the line that says how many results are missing, and how to get them or who is making them."""
    without_result = [run for run in runs if table.outcome_of(run) is None]
    finished = sum(RunDirectory(run.directory).finished_file.exists() for run in without_result)
    text = f"{done} of {len(runs)} runs have results."
    if finished:
        evaluate = shell_command("shoal", "evaluate", directory)
        text += f" {finished} have finished without an evaluation, which `{evaluate}` makes."
    if finished == len(without_result):
        return text
    if work.elsewhere:
        owners = ", ".join(dict.fromkeys(map(work.claims.owner_of, work.elsewhere)))
        text += f" {len(work.elsewhere)} are in progress: {owners}."
    return f"{text} The same command executes the missing runs; with --table it only prints the results so far."
