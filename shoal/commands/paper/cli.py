"""The command `shoal paper`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec
from msgspec import Meta
from rich.console import Console
from rich.progress import Progress

from actor_node.evaluation import evaluate as evaluation
from actor_node.evaluation.evaluate import Evaluation
from actor_node.evaluation.task import EvalTask
from actor_node.evaluation.teams import load_run_team
from common.errors import ShoalError
from common.files import write_atomically
from common.process import command
from common.process.stop import Stop
from common.run.directory import RunDirectory
from shoal.commands.paper.plan import ExperimentSize, TableRun, chosen_tasks, plan, refuse_other_runs
from shoal.commands.paper.scores import OUTCOMES, ResultTable, tables
from shoal.commands.sweep.claims import Claims
from shoal.commands.sweep.plan import part_of
from shoal.commands.sweep.runner import Executed, make_directory, parallel_runs, run_all

_screen = Console(markup=False, emoji=False, stderr=True)
PAGE_FILE, RESULTS_FILE = "paper.md", "paper.json"


class PaperConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of `shoal paper`."""

    quick: Annotated[bool, Meta(description="Make small runs with few seeds, which take minutes instead of hours.")] = (
        False
    )
    run: Annotated[
        str, Meta(description="Directory for runs and results.  [default: runs/paper, with --quick runs/paper-quick]")
    ] = ""
    task: Annotated[
        tuple[str, ...],
        Meta(description="Make only this table; can be repeated.", extra={"metavar": "NAME"}),
    ] = ()
    jobs: Annotated[
        int,
        Meta(
            ge=0,
            le=1024,
            description="Number of parallel processes, each on one core [runs]; 0 is one for each core.",
        ),
    ] = 2
    part: Annotated[
        str,
        Meta(
            description="Train only the I-th of N parts of the runs, for machines without a shared directory. Machines"
            " that share the directory divide the runs among themselves.",
            extra={"metavar": "I/N"},
        ),
    ] = ""
    seeds: Annotated[
        int,
        Meta(ge=0, le=10_000, description="Size of the sample of each table line [seeds]; 0 is 10, with --quick 3."),
    ] = 0
    steps: Annotated[
        int,
        Meta(
            ge=0, description="Length of each run [environment steps]; 0 is 1,500,000, with --quick 250,000 to 800,000."
        ),
    ] = 0
    episodes: Annotated[int, Meta(ge=1, description="Length of the evaluation of each run [episodes].")] = 1_000
    json: Annotated[bool, Meta(description="Print the tables as JSON.")] = False


@click.command()
@command.options(PaperConfig)
def paper(**values: Any) -> int:
    """Train, evaluate and write the MADDPG paper's tables.

    Compares MADDPG with independent DDPG. Every run is a lockstep `shoal train` in a separate directory, so the same
    command always makes the same tables, and after a stop it continues with the missing runs. Started several times,
    also on machines that share the directory, it trains each run once. The process that ends last writes the tables,
    plots and all commands into DIR/paper.md.

    \b
    Examples:
      shoal paper --quick
      shoal paper --quick --task communication --seeds 5
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(PaperConfig, values)
    tasks, size = chosen_tasks(config.task), ExperimentSize(config.quick, config.seeds, config.steps)
    directory = Path(config.run or ("runs/paper-quick" if config.quick else "runs/paper"))
    runs = plan(directory, tasks, size)
    mine = part_of(runs, config.part)
    refuse_other_runs(runs, size)
    make_directory(directory)
    stop = Stop()
    stop.on_signals()
    claims = Claims(directory)
    trained = _train(mine, config.jobs, stop, claims)
    if stop.requested:
        _screen.print("Stopped. Run the same command to continue.", soft_wrap=True)
        return stop.exit_code
    if trained.failed:
        logs = ", ".join(map(str, trained.failed))
        raise ShoalError(f"{len(trained.failed)} of {len(mine)} runs failed. Logs: {logs}.")
    if missing := sum(not run.job.finished for run in runs):
        owners = "".join(f" {owner}." for owner in dict.fromkeys(map(claims.owner_of, trained.elsewhere)))
        _screen.print(
            f"{missing} of {len(runs)} runs are not trained yet, {len(trained.elsewhere)} in progress.{owners} The same"
            " command writes the tables when every run is trained.",
            soft_wrap=True,
        )
        return 0
    stop.release_signals()
    found = _score(runs, config.episodes, quick=config.quick)
    _write(found, directory, config, size)
    if config.json:
        command.result(msgspec.json.encode(found))
    else:
        for table in found:
            command.result(f"{table.title}: {table.claim} Here: {OUTCOMES[table.verdict]}")
    _screen.print(f"wrote tables and plots to {directory / PAGE_FILE}", soft_wrap=True)
    return 0


def _train(runs: Sequence[TableRun], jobs: int, stop: Stop, claims: Claims) -> Executed:
    """Trains the missing runs."""
    missing = sum(not run.job.finished for run in runs)
    parallel = parallel_runs(jobs, runs[0].job.options if runs else ())
    _screen.print(f"{missing} of {len(runs)} runs to train, {parallel} in parallel", soft_wrap=True)
    return run_all((run.job for run in runs), parallel, stop, _screen, claims=claims, is_done=lambda job: job.finished)


def _score(runs: Sequence[TableRun], episodes: int, *, quick: bool) -> list[ResultTable]:
    """Evaluates every run in the batched world.

    Quick runs act without exploration in a world that equals mpe2. The others act as openai/maddpg's benchmark does:
    actions are sampled, in the original environment.
    """
    seed = evaluation.FIRST_SEED
    with Progress(console=_screen, transient=True, disable=not _screen.is_terminal) as progress:
        task = progress.add_task(f"evaluating each run on {episodes} episodes", total=len(runs))

        def evaluated(run: TableRun) -> Evaluation:
            directory = RunDirectory(run.job.directory)
            if quick:
                result = evaluation.evaluate(directory, episodes, seed, task=EvalTask(fast=True))
                evaluation.save(result, directory.evaluation_file)
            else:
                world = EvalTask("legacy" if run.task.has_physics else "mpe2", fast=True)
                result = evaluation.evaluate_team(*load_run_team(directory), episodes, seed, world, choices="drawn")
            progress.advance(task)
            return result

        return tables(runs, evaluated)


def _write(found: Sequence[ResultTable], directory: Path, config: PaperConfig, size: ExperimentSize) -> None:
    from shoal.commands.paper.page import Provenance, make_page, plot_name  # noqa: PLC0415  (slow to import: Jinja)
    from shoal.commands.paper.plot import draw_plot  # noqa: PLC0415

    made = Provenance(_command_line(config), size, config.episodes, evaluation.FIRST_SEED)
    write_atomically(directory / PAGE_FILE, make_page(found, made).encode())
    write_atomically(directory / RESULTS_FILE, msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    for table in found:
        write_atomically(directory / plot_name(table), draw_plot(table).encode())


def _command_line(config: PaperConfig) -> str:
    """Returns the command with all options that change figures, so without --run, --jobs, --part and --json."""
    command_line = ["shoal paper", *(["--quick"] if config.quick else [])]
    command_line += [f"--task {key}" for key in config.task]
    defaults = PaperConfig()
    for name in ("seeds", "steps", "episodes"):
        if getattr(config, name) != getattr(defaults, name):
            command_line.append(f"--{name} {getattr(config, name)}")
    return " ".join(command_line)
