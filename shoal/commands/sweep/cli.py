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
            description="A setting and its values, as in 'replay.batch=128|256'; several make every combination. With"
            " --search also a range, as in 'algorithm.critic_learning_rate=1e-4..1e-2 log'.",
            extra={"metavar": "KEY=V1|V2"},
        ),
    ] = ()
    search: Annotated[
        int,
        Meta(ge=0, description="Try so many combinations, chosen by how those before did (Optuna); 0 = all there are."),
    ] = 0
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
      shoal sweep simple_spread --run sweeps/rate --search 20 --seeds 2 \\
          --vary 'algorithm.critic_learning_rate=1e-4..1e-2 log' -- --time 2m
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(SweepConfig, values)
    if clash := [option for option in _OWN_OPTIONS if any(own.split("=")[0] == option for own in train_options)]:
        raise ConfigError(f"{clash[0]} after --: a sweep gives each of its runs its own")
    if sections := command.run_settings(context):
        raise ConfigError(f"[{next(iter(sections))}] is a setting of the runs: give its file to them, -- --config FILE")
    directory = Path(config.run)
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    stop = Stop()
    stop.on_signals()

    def do(left: Sequence[PlannedRun], done: int = 0) -> list[Path]:
        return run_all([_job(one, scenario, train_options) for one in left], config.jobs, stop, _screen, done=done)

    if config.search:
        search = Search(directory, config.vary, seeds, config.search, config.jobs)
        runs, failed = search.run(do, lambda: stop.requested)
    else:
        runs = plan(directory, config.vary, seeds)
        directory.mkdir(parents=True, exist_ok=True)
        left = [run for run in runs if table.outcome_of(run) is None]
        failed = do(left, len(runs) - len(left))
    done = table.gather(runs)
    table.save(done, directory)
    if config.json:
        command.result(msgspec.json.encode({"rows": done.rows, "runs": done.outcomes}))
    else:
        print_tables(table.text_table(done))
    if stop.requested:
        _screen.print("stopped; the same command goes on", soft_wrap=True)
        return stop.exit_code
    if failed:
        raise ShoalError(f"{len(failed)} of {len(runs)} runs failed; their words are in {', '.join(map(str, failed))}")
    return 0


def _job(run: PlannedRun, scenario: str, options: tuple[str, ...]) -> Job:
    settings = (word for setting in run.variant.settings for word in ("--set", setting))
    return Job(scenario, run.directory, run.seed, (*options, *settings))
