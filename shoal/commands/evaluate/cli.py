"""The command `shoal evaluate`, and what `shoal train` ends with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import click
import msgspec
from msgspec import Meta
from rich.console import Console

from actor_node.evaluation import evaluate as evaluation
from actor_node.evaluation.episode_schedule import MAX_EPISODES
from actor_node.evaluation.evaluate import FIRST_SEED, Comparison, Evaluation
from actor_node.evaluation.task import Dynamics, EvalGame, EvalTask
from actor_node.evaluation.teams import BASELINES, RANDOM, Team, load_run_team, load_teams, random_team, run_name
from common.errors import ConfigError
from common.process import command
from common.process.durations import Seconds
from common.run.directory import RunDirectory
from common.run.run import RunSpec
from common.worlds import FOREIGN, REAL_MPE2
from shoal.commands.evaluate import csv_latex
from shoal.commands.evaluate import text as words
from shoal.commands.evaluate.progress import (
    CopiesOption,
    MaxEpisodeStepsOption,
    ProcessesOption,
    ProgressWatcher,
    play_options,
)
from shoal.commands.evaluate.summary import EvaluatedRun, Evaluations, run_directories, summarise
from shoal.commands.report.machine_info import read_machine
from shoal.tables import print_tables

CHECKED = 20
"""Episodes of a batched world that are also played in mpe2."""


class EvalTaskOptions(Protocol):
    """Settings that say where episodes are played."""

    @property
    def dynamics(self) -> Dynamics:
        """Whose physics."""
        ...

    @property
    def fast(self) -> bool:
        """Batched, and not checked."""
        ...

    @property
    def real(self) -> bool:
        """In mpe2 itself."""
        ...


_screen = Console(markup=False, emoji=False, stderr=True)


class EvaluateConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of `shoal evaluate`."""

    episodes: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="Episodes to play.  [default: 1000 in a batched world; elsewhere as many as fit into --within, "
            "at least 20, at most 1000]"
        ),
    ] = None
    within: Annotated[
        Seconds,
        Meta(description="Where the time decides: begin episodes for this long, as in 60s or 5m."),
    ] = 60.0
    processes: ProcessesOption = 0
    copies: CopiesOption = 0
    max_episode_steps: MaxEpisodeStepsOption = 0
    seed: Annotated[int, Meta(ge=0, lt=2**31, description="Seed of the first episode; episode e has SEED + e.")] = (
        FIRST_SEED
    )
    dynamics: Annotated[
        Dynamics,
        Meta(description="legacy: the original environment's physics and rewards, those of the published tables."),
    ] = "mpe2"
    fast: Annotated[bool, Meta(description="Do not check the batched world's first episodes in mpe2.")] = False
    real: Annotated[bool, Meta(description="Play all episodes in mpe2 itself instead of the batched world.")] = False
    sample: Annotated[
        bool,
        Meta(description="Draw choices (Discrete actions) from the policy's softmax, as in training."),
    ] = False
    format: Annotated[Literal["table", "csv", "latex"], Meta(description="How to print the figures.")] = "table"
    json: Annotated[bool, Meta(description="Print JSON.")] = False


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@command.options(EvaluateConfig)
def evaluate(runs: tuple[str, ...], **values: Any) -> None:
    """Play whole episodes with the policies of RUN, without exploration.

    Shoal's own scenarios are played in the batched world, the first 20 episodes also in mpe2 itself, which must give
    the same; other environments are played in processes of their own. Prints the mean return (summed over agents) with
    its 95 % interval, the return per agent, and what the papers measure: distances, collisions, touches, successes.
    Several runs, or a sweep's directory, become one table with mean, interquartile mean and interval over runs that
    differ in their seed only. Beside runs of one world, RUN may be `untrained`, `random` or `frozen` (the team shipped
    with Shoal for the scenario): what the others must beat.

    \b
    Examples:
      shoal evaluate runs/spread
      shoal evaluate sweeps/spread untrained random
      shoal evaluate sweeps/spread --fast --format latex
      shoal evaluate runs/mine --within 5m --processes 4
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(EvaluateConfig, values)
    if config.json and config.format != "table":
        raise ConfigError(f"--json with --format {config.format}: ask for one of them")
    refuse_contradictions(config)
    named = [Path(run) for run in runs if run not in BASELINES]
    baselines = [run for run in runs if run in BASELINES]
    directories = run_directories(named)
    # A sweep of one run is a table all the same: what is printed depends on what was asked, not on what was found.
    is_one_run = not baselines and len(runs) == 1 and directories[0].path == named[0]
    if is_one_run and config.format == "table":
        print_evaluation(evaluate_run(directories[0], config), as_json=config.json)
        return
    references = _references(directories, baselines, config)
    evaluated = [_evaluated_run(each, config) for each in directories]
    _print_all(summarise(evaluated, [each.run.spec for each in directories], references), config)


def refuse_contradictions(config: EvaluateConfig) -> None:
    """Raises ConfigError for settings that ask for the batched world and for mpe2 itself."""
    if config.real and (config.fast or config.dynamics == "legacy"):
        raise ConfigError("--real with --fast or --dynamics legacy: those are batched; ask for one of them")


def evaluate_run(
    directory: RunDirectory,
    config: EvaluateConfig,
    stopped: Callable[[], bool] = lambda: False,
    screen: Console = _screen,
) -> Evaluation:
    """Evaluates one run, shows how it goes, and leaves the result in the run's directory.

    screen: where progress is shown.
    stopped: asked all the time; once it is true the evaluation ends with Stopped. Returns on the original dynamics are
    of another scale, and drawn choices are not the team's best, so neither is left where reports and sweeps look.
    """
    game, team = load_run_team(directory)
    result = _with_comparison(
        game, team, config, read_machine(directory).get("launch", {}), stopped=stopped, screen=screen
    )
    if config.dynamics == "mpe2" and result.choices == "greedy":
        evaluation.save(result, directory.evaluation_file)
    return result


def eval_task(spec: RunSpec, config: EvalTaskOptions) -> EvalTask:
    """Returns where a scenario is played: batched and checked unless asked otherwise, or where it is named."""
    if config.dynamics == "legacy" or config.fast:
        return EvalTask(config.dynamics, config.fast)
    is_batched = not config.real and not spec.scenario.startswith((FOREIGN, REAL_MPE2))
    return EvalTask(fast=is_batched, check=CHECKED if is_batched else 0)


def _with_comparison(
    game: EvalGame,
    team: Team,
    config: EvaluateConfig,
    launch: Mapping[str, Any],
    *,
    stopped: Callable[[], bool] = lambda: False,
    screen: Console = _screen,
) -> Evaluation:
    """Evaluates a team; where it learnt to draw its choices, a share of the episodes also otherwise, and at random."""
    choices: evaluation.Choices = "drawn" if config.sample else "greedy"
    compares = team.make_sampled_actor is not None and game.spec.exploration.choices == "gumbel"
    # What is compared with has a third of the time that is left for the team itself, twice.
    within = config.within * (0.6 if compares else 1.0)
    other: evaluation.Choices = "greedy" if config.sample else "drawn"
    result = _evaluate_with_progress(
        game,
        team,
        config,
        launch,
        stopped=stopped,
        screen=screen,
        within=within,
        choices=choices,
        then=f"a fifth as many with {other} choices, and at random" if compares else "",
    )
    if not compares:
        return result
    share = max(20, result.episodes // 5) if config.episodes is None else max(1, config.episodes // 5)
    fewer = config if config.episodes is None else msgspec.structs.replace(config, episodes=share)
    chance = random_team(game, config.seed)
    watched = partial(
        _evaluate_with_progress,
        game,
        config=fewer,
        launch=launch,
        stopped=stopped,
        screen=screen,
        within=within / 3,
        at_most=share,
    )
    beside = [(other, watched(team, choices=other)), (RANDOM, watched(chance))]
    compared = [Comparison(name, one.episodes, one.return_mean, one.return_ci95) for name, one in beside]
    return msgspec.structs.replace(result, compared=compared)


def print_evaluation(result: Evaluation, *, as_json: bool) -> None:
    """Prints one run's evaluation on stdout."""
    if as_json:
        command.result(msgspec.json.encode(result))
        return
    for line in words.lines(result):
        command.result(line)


def _references(directories: list[RunDirectory], names: list[str], config: EvaluateConfig) -> list[EvaluatedRun]:
    """Evaluates the teams that are named in place of runs, in the runs' game; ConfigError for runs of several games."""
    if not names:
        return []
    game, teams = load_teams([*map(run_name, directories), *names], config.seed)
    launch = read_machine(directories[0]).get("launch", {})
    return [
        EvaluatedRun(
            one.name, one.algorithm, None, _evaluate_with_progress(game, one, config, launch, within=config.within)
        )
        for one in teams[len(directories) :]
    ]


def _evaluate_with_progress(
    game: EvalGame,
    team: Team,
    config: EvaluateConfig,
    launch: Mapping[str, Any],
    *,
    within: float,
    stopped: Callable[[], bool] = lambda: False,
    screen: Console = _screen,
    choices: evaluation.Choices = "greedy",
    at_most: int = 0,
    then: str = "",
) -> Evaluation:
    """Evaluates a team and shows how it goes; at_most: episodes of one that is compared with, of which less is said.

    then: what is played afterwards, in words.
    """
    ground, spec = eval_task(game.spec, config), game.spec
    options = play_options(spec, config, launch)._replace(within_s=within, max_episodes=at_most or MAX_EPISODES)
    count = "as many episodes as fit into" if not config.episodes else f"{config.episodes:,} episodes"
    if not config.episodes:
        count = "1,000 episodes" if ground.batched else f"{count} {within:.0f} s (20 to 1,000)"
    where = "the batched world" if ground.batched else "the real world of the run"
    how = "choices drawn" if choices == "drawn" else "without exploration"
    doing = f"evaluating {team.name}: {count} in {where}, {how}{f'; then {then}' if then else ''}"
    with ProgressWatcher(screen, doing, stopped, quiet=at_most > 0) as watcher:
        return evaluation.evaluate_team(
            game,
            team,
            config.episodes or (at_most or evaluation.BATCHED_EPISODES if ground.batched else 0),
            config.seed,
            ground,
            options=options,
            choices=choices,
            watcher=watcher,
        )


def _evaluated_run(directory: RunDirectory, config: EvaluateConfig) -> EvaluatedRun:
    result = evaluate_run(directory, config)
    spec = directory.run.spec
    return EvaluatedRun(run_name(directory), spec.algorithm.name, spec.seed, result)


def _print_all(found: Evaluations, config: EvaluateConfig) -> None:
    if config.json:
        command.result(msgspec.json.encode(found))
    elif config.format == "csv":
        command.result(csv_latex.to_csv(found), nl=False)
    elif config.format == "latex":
        command.result(csv_latex.to_latex(found), nl=False)
    else:
        print_tables(words.table(found))
