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
from common.process.stop import Stop
from shoal.commands.sweep import table
from shoal.commands.sweep.plan import PlannedRun, plan
from shoal.commands.sweep.runner import Job, run_all
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
            ge=1,
            le=1024,
            description="Number of runs at the same time. A lockstep run uses one core, any other two or more.",
        ),
    ] = 1
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


@click.command()
@click.argument("scenario")
@click.argument("train_options", nargs=-1, type=click.UNPROCESSED)
@command.options(SweepConfig)
@click.pass_context
def sweep(context: click.Context, /, scenario: str, train_options: tuple[str, ...], **values: Any) -> int:
    """Train SCENARIO with several seeds and settings.

    Every run is a `shoal train` with the options after `--`. Prints one table of all results. After a stop, the same
    command continues the sweep; it does not repeat finished runs.

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
    directory = Path(config.run)
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    stop = Stop()
    stop.on_signals()

    def run_missing(left: Sequence[PlannedRun], done: int = 0) -> list[Path]:
        return run_all([_job(one, scenario, train_options) for one in left], config.jobs, stop, _screen, done=done)

    if config.search:
        search = Search(directory, config.vary, seeds, config.search, config.jobs)
        runs, failed = search.run(run_missing, lambda: stop.requested)
    else:
        runs = plan(directory, config.vary, seeds)
        directory.mkdir(parents=True, exist_ok=True)
        left = [run for run in runs if table.outcome_of(run) is None]
        failed = run_missing(left, len(runs) - len(left))
    done = table.gather(runs)
    table.save(done, directory)
    if config.json:
        command.result(msgspec.json.encode({"rows": done.rows, "runs": done.outcomes}))
    else:
        print_tables(table.text_table(done))
    if stop.requested:
        _screen.print("Stopped. Run the same command to continue.", soft_wrap=True)
        return stop.exit_code
    if failed:
        raise ShoalError(f"{len(failed)} of {len(runs)} runs failed. Logs: {', '.join(map(str, failed))}.")
    return 0


def _job(run: PlannedRun, scenario: str, options: tuple[str, ...]) -> Job:
    settings = (argument for setting in run.variant.settings for argument in ("--set", setting))
    return Job(scenario, run.directory, run.seed, (*options, *settings))
