"""The command `shoal evaluate`, and what `shoal train` ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import click
import msgspec
from msgspec import Meta
from rich.console import Console
from rich.progress import Progress

from actor_node import evaluation
from actor_node.entrants import STAND_INS, Entrant, enter, enter_run, run_name
from actor_node.evaluation import FIRST_SEED, Evaluation
from actor_node.games import Dynamics, Game, Ground
from common import command
from common.errors import ConfigError
from common.run_directory import RunDirectory
from deploy.evaluate import exports, words
from deploy.evaluate.summary import Evaluated, Evaluations, run_directories, summarise
from deploy.printing import print_tables

_screen = Console(emoji=False, stderr=True)


class EvaluateConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of `shoal evaluate`."""

    episodes: Annotated[int, Meta(ge=1, description="Episodes to play.")] = 1_000
    seed: Annotated[int, Meta(ge=0, lt=2**31, description="Seed of the first episode; episode e has SEED + e.")] = (
        FIRST_SEED
    )
    dynamics: Annotated[
        Dynamics,
        Meta(description="legacy: the original environment's physics and rewards, those of the published tables."),
    ] = "mpe2"
    fast: Annotated[bool, Meta(description="Play in the batched world, which is equal to mpe2.")] = False
    format: Annotated[Literal["table", "csv", "latex"], Meta(description="How to print the figures.")] = "table"
    json: Annotated[bool, Meta(description="Print JSON.")] = False


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@command.options(EvaluateConfig)
def evaluate(runs: tuple[str, ...], **values: Any) -> None:
    """Play whole episodes of the real mpe2 with the policies of RUN, without exploration.

    Prints the mean return (summed over agents) with its 95 % interval, the return per agent, and what the papers
    measure: distances, collisions, touches, successes. Several runs, or a sweep's directory, become one table with
    mean, interquartile mean and interval over runs that differ in their seed only. Beside runs of one world, RUN may
    be `untrained`, `random` or `frozen` (the team shipped with Shoal for the scenario): what the others must beat.

    \b
    Examples:
      shoal evaluate runs/spread
      shoal evaluate sweeps/spread untrained random
      shoal evaluate sweeps/spread --fast --format latex
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(EvaluateConfig, values)
    if config.json and config.format != "table":
        raise ConfigError(f"--json with --format {config.format}: ask for one of them")
    named = [Path(run) for run in runs if run not in STAND_INS]
    stand_ins = [run for run in runs if run in STAND_INS]
    directories = run_directories(named)
    ground = Ground(config.dynamics, config.fast)
    # A sweep of one run is a table all the same: what is printed depends on what was asked, not on what was found.
    is_one_run = not stand_ins and len(runs) == 1 and directories[0].path == named[0]
    if is_one_run and config.format == "table":
        print_evaluation(evaluate_run(directories[0], config.episodes, config.seed, ground), as_json=config.json)
        return
    references = _references(directories, stand_ins, config, ground)
    evaluated = [_evaluated(each, config, ground) for each in directories]
    _print_all(summarise(evaluated, [each.run.spec for each in directories], references), config)


def evaluate_run(directory: RunDirectory, episodes: int, seed: int, ground: Ground = Ground()) -> Evaluation:  # noqa: B008
    """Evaluates one run, shows how it goes, and leaves the result in the run's directory.

    Returns on the original dynamics are of another scale, so they are not left where reports and sweeps look.
    """
    result = _watched(*enter_run(directory), episodes, seed, ground)
    if ground.dynamics == "mpe2":
        evaluation.save(result, directory.evaluation_file)
    return result


def print_evaluation(result: Evaluation, *, as_json: bool) -> None:
    """Prints one run's evaluation on stdout."""
    if as_json:
        command.result(msgspec.json.encode(result))
        return
    for line in words.lines(result):
        command.result(line)


def _references(
    directories: list[RunDirectory], names: list[str], config: EvaluateConfig, ground: Ground
) -> list[Evaluated]:
    """Evaluates the teams that are named in place of runs, in the runs' game; ConfigError for runs of several games."""
    if not names:
        return []
    game, entrants = enter([*map(run_name, directories), *names], config.seed)
    return [
        Evaluated(one.name, one.algorithm, None, _watched(game, one, config.episodes, config.seed, ground))
        for one in entrants[len(directories) :]
    ]


def _watched(game: Game, entrant: Entrant, episodes: int, seed: int, ground: Ground) -> Evaluation:
    where = "the batched world" if ground.batched else "the real world of the run"
    doing = f"evaluating {entrant.name}: {episodes} episodes in {where}, without exploration"
    if not _screen.is_terminal:
        _screen.print(doing, soft_wrap=True)
    with Progress(console=_screen, transient=True, disable=not _screen.is_terminal) as progress:
        task = progress.add_task(doing, total=episodes)
        advance = lambda done: progress.update(task, completed=done)  # noqa: E731
        return evaluation.evaluate_entrant(game, entrant, episodes, seed, ground, progress=advance)


def _evaluated(directory: RunDirectory, config: EvaluateConfig, ground: Ground) -> Evaluated:
    result = evaluate_run(directory, config.episodes, config.seed, ground)
    spec = directory.run.spec
    return Evaluated(run_name(directory), spec.algorithm.name, spec.seed, result)


def _print_all(found: Evaluations, config: EvaluateConfig) -> None:
    if config.json:
        command.result(msgspec.json.encode(found))
    elif config.format == "csv":
        command.result(exports.to_csv(found), nl=False)
    elif config.format == "latex":
        command.result(exports.to_latex(found), nl=False)
    else:
        print_tables(words.table(found))
