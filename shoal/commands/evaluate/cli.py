"""The command `shoal evaluate`, and the evaluation at the end of `shoal train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import msgspec
from msgspec import Meta
from rich.console import Console

from actor_node.evaluation import evaluate as evaluation
from actor_node.evaluation.evaluate import Comparison, Evaluation, Reference
from actor_node.evaluation.rollouts.schedule import MAX_EPISODES
from actor_node.evaluation.scale import measure_scale
from actor_node.evaluation.task import Dynamics, EvalTask
from actor_node.evaluation.teams import BASELINES, RANDOM, Team, load_run_team, load_teams, random_team, run_name
from common.errors import ConfigError
from common.process import command
from common.process.durations import Seconds
from common.run.directory import RunDirectory
from common.run.evaluations import read_evaluations
from common.run.run import Run, RunSpec
from common.worlds import REAL_MPE2, is_foreign
from shoal.commands.evaluate import csv_latex
from shoal.commands.evaluate import text as evaluation_text
from shoal.commands.evaluate.episode_options import EpisodeOptions, play_options
from shoal.commands.evaluate.progress import ProgressWatcher
from shoal.commands.evaluate.summary import EvaluatedRun, Evaluations, summarise
from shoal.commands.report.reading import next_steps
from shoal.commands.report.run_record import read_record
from shoal.machine_info import read_machine
from shoal.run_paths import find_runs
from shoal.tables import print_tables

MIN_REFERENCE_EPISODES = 5
"""Smallest number of episodes of a reference team whose number the time limits."""
CHECKED = 20
"""Episodes of a batched world to repeat in mpe2 as a check."""


_screen = Console(markup=False, emoji=False, stderr=True)


class EvaluateConfig(EpisodeOptions, frozen=True, forbid_unknown_fields=True):
    """Settings of `shoal evaluate`."""

    episodes: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="Number of episodes.  [default: 1000 in a batched world; elsewhere as many as "
            "fit into --within, from 20 to 1000]"
        ),
    ] = None
    within: Annotated[
        Seconds,
        Meta(description="Without --episodes: time during which episodes start in a world that is not batched [s]."),
    ] = 60.0
    dynamics: Annotated[
        Dynamics,
        Meta(description="Physics and rewards; `legacy` is the original environment of the published tables."),
    ] = "mpe2"
    fast: Annotated[bool, Meta(description="Skip the check of the first 20 episodes in mpe2.")] = False
    real: Annotated[bool, Meta(description="Play all episodes in mpe2 instead of the batched world.")] = False
    sample: Annotated[
        bool,
        Meta(
            description="Sample Discrete actions from the policy's softmax, soft actions (network.head=soft) with"
            " Gumbel noise, and Box actions of masac, isac and hasac from the policy's Gaussian, as in training."
        ),
    ] = False
    format: Annotated[Literal["table", "csv", "latex"], Meta(description="Output format of the figures.")] = "table"
    json: Annotated[bool, Meta(description="Print the figures as JSON.")] = False


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@command.options(EvaluateConfig)
def evaluate(runs: tuple[str, ...], **values: Any) -> None:
    """Measure the return of RUN's team without exploration.

    Shoal's own scenarios run in the batched world; the first 20 episodes are repeated in mpe2 and must be equal. Other
    environments run in separate processes. Prints the mean return (summed over agents) with its 95 % interval, the
    return of each agent, and the metrics of the papers: distances, collisions, touches, successes.

    RUN is a run's directory or a directory of runs, such as a sweep. Several runs are printed as one table, with mean,
    interquartile mean and interval over runs that differ only by their seed. With runs of one world, RUN can also be
    `untrained`, `random`, `frozen` (the team shipped with Shoal) or `scripted`, as a baseline.

    \b
    Examples:
      shoal evaluate runs/spread
      shoal evaluate sweeps/spread untrained random
      shoal evaluate sweeps/spread --fast --format latex
      shoal evaluate runs/mine --within 5m --processes 4
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(EvaluateConfig, values)
    if config.json and config.format != "table":
        raise ConfigError(f"--json and --format {config.format} exclude each other. Pass one of them.")
    refuse_contradictions(config)
    named = [Path(run) for run in runs if run not in BASELINES]
    baselines = [run for run in runs if run in BASELINES]
    directories = _runs_with_policies(named)
    # A directory of one run is printed as a table: the output format depends on the request, not on the runs found.
    is_one_run = not baselines and len(runs) == 1 and directories[0].path == named[0]
    if is_one_run and config.format == "table":
        print_evaluation(evaluate_run(directories[0], config), directories[0], as_json=config.json)
        return
    references = _evaluate_baselines(directories, baselines, config)
    evaluated = [_evaluate_listed_run(each, config) for each in directories]
    _print_all(summarise(evaluated, [each.run.spec for each in directories], references), config)


def _runs_with_policies(paths: list[Path]) -> list[RunDirectory]:
    """Returns the runs at the given paths; skips runs without policies that were found in a directory of runs."""
    found = find_runs(paths)
    ready = [each for each in found if each.policy_file.exists() or each.path in paths]
    for each in found:
        if each not in ready:
            _screen.print(f"skipped {each.path}: no policies yet", soft_wrap=True, markup=False, highlight=False)
    if found and not ready:
        raise ConfigError(f"None of the {len(found)} runs has policies yet. Wait until one has trained.")
    return ready


def refuse_contradictions(config: EvaluateConfig) -> None:
    """Raises ConfigError for settings that request both the batched world and mpe2 itself."""
    if config.real and (config.fast or config.dynamics == "legacy"):
        raise ConfigError(
            "--real excludes --fast and --dynamics legacy, which use the batched world. Pass one of them."
        )


def evaluate_run(
    directory: RunDirectory,
    config: EvaluateConfig,
    stopped: Callable[[], bool] = lambda: False,
    screen: Console = _screen,
    *,
    with_scale: bool = True,
) -> Evaluation:
    """Evaluates one run, shows its progress, and stores the result in the run's directory.

    stopped: polled during the evaluation; raises EvaluationStopped once it returns true. screen: shows the progress.
    with_scale: whether reference teams play too. Results with legacy dynamics or sampled choices are not stored,
    because reports and sweeps expect the usual scale and greedy choices.
    """
    run, team = load_run_team(directory)
    launch = read_machine(directory).get("launch", {})
    result = _with_comparison(run, team, config, launch, stopped=stopped, screen=screen)
    if with_scale:
        result = _with_scale(run, team, result, config, launch, stopped=stopped, screen=screen)
    if config.dynamics == "mpe2" and result.choices == "greedy":
        _note_replaced(directory, result, screen)
        evaluation.save(result, directory.evaluation_file)
    return result


def _note_replaced(directory: RunDirectory, result: Evaluation, screen: Console) -> None:
    """Says that a result over more episodes of the same policies is lost to reports and sweeps."""
    try:
        earlier = msgspec.json.decode(directory.evaluation_file.read_bytes(), type=Evaluation)
    except (OSError, msgspec.MsgspecError):
        return
    if earlier.weights_hash == result.weights_hash and earlier.episodes > result.episodes:
        screen.print(
            f"{directory.evaluation_file} has these {result.episodes} episodes now, in place of {earlier.episodes:,}",
            soft_wrap=True,
        )


def eval_task(spec: RunSpec, config: EvaluateConfig) -> EvalTask:
    """Returns the world to play in: batched and checked for Shoal's scenarios by default, else the named world."""
    if config.dynamics == "legacy" or config.fast:
        return EvalTask(config.dynamics, config.fast)
    is_batched = not config.real and not (is_foreign(spec.scenario) or spec.scenario.startswith(REAL_MPE2))
    return EvalTask(fast=is_batched, check=CHECKED if is_batched else 0)


def _with_comparison(
    run: Run,
    team: Team,
    config: EvaluateConfig,
    launch: Mapping[str, Any],
    *,
    stopped: Callable[[], bool] = lambda: False,
    screen: Console = _screen,
) -> Evaluation:
    """Evaluates a team; if it was trained to sample its choices, also with other choices and with random actions."""
    choices: evaluation.Choices = "drawn" if config.sample else "greedy"
    compares = team.make_sampled_actor is not None and run.spec.exploration.choices == "gumbel"
    # The evaluation takes 0.6 of the time, each of the two comparisons 0.2.
    within = config.within * (0.6 if compares else 1.0)
    other: evaluation.Choices = "greedy" if config.sample else "drawn"
    result = _evaluate_with_progress(
        run,
        team,
        config,
        launch,
        stopped=stopped,
        screen=screen,
        within=within,
        choices=choices,
        next_text=f"a fifth as many with {'sampled' if other == 'drawn' else other} choices, and with random actions"
        if compares
        else "",
    )
    if not compares:
        return result
    count = max(20, result.episodes // 5) if config.episodes is None else max(1, config.episodes // 5)
    fewer = config if config.episodes is None else msgspec.structs.replace(config, episodes=count)
    compare = partial(
        _evaluate_with_progress,
        run,
        config=fewer,
        launch=launch,
        stopped=stopped,
        screen=screen,
        within=within / 3,
        at_most=count,
    )
    others = [(other, compare(team, choices=other)), (RANDOM, compare(random_team(run, config.seed)))]
    compared = [Comparison(name, one.episodes, one.return_mean, one.return_ci95) for name, one in others]
    return msgspec.structs.replace(result, compared=compared)


def _with_scale(
    run: Run,
    team: Team,
    result: Evaluation,
    config: EvaluateConfig,
    launch: Mapping[str, Any],
    *,
    stopped: Callable[[], bool],
    screen: Console,
) -> Evaluation:
    """Adds the scale of reference teams, each over a fifth of the episodes or of the time."""
    task = eval_task(run.spec, config)._replace(check=0)
    given = config.episodes or 0
    count = max(1, given // 5) if given else max(MIN_REFERENCE_EPISODES, result.episodes // 5)
    options = play_options(run.spec, config, launch)._replace(
        episodes=count if given or task.batched else 0,
        within_s=config.within / 10,
        min_episodes=MIN_REFERENCE_EPISODES,
        max_episodes=count,
    )
    known = {
        one.name: Reference(one.name, one.episodes, one.return_mean, one.return_ci95)
        for one in result.compared
        if one.name == RANDOM
    }
    with ProgressWatcher(screen, "evaluating reference teams", stopped, quiet=True) as watcher:
        scale = measure_scale(run, team, result, task, options, watcher=watcher, known=known)
    return msgspec.structs.replace(result, scale=scale)


def print_evaluation(result: Evaluation, directory: RunDirectory, *, as_json: bool, with_steps: bool = True) -> None:
    """Prints one run's evaluation on stdout, and what to do next with the run.

    with_steps: whether the text says what to do next; the JSON always does.
    """
    steps = next_steps(read_record(directory.path))
    if as_json:
        more = {
            "evaluations": read_evaluations(directory.evaluations_file),
            "next_steps": [step.as_line for step in steps],
        }
        command.result(msgspec.json.encode({**msgspec.to_builtins(result), **msgspec.to_builtins(more)}))
        return
    for line in evaluation_text.lines(result):
        command.result(line)
    for step in steps[: 1 if with_steps else 0]:
        command.result(f"next: {step.as_line}")


def _evaluate_baselines(
    directories: list[RunDirectory], names: list[str], config: EvaluateConfig
) -> list[EvaluatedRun]:
    """Evaluates the named baselines in the world of the runs; raises ConfigError for runs of different worlds."""
    if not names:
        return []
    run, teams = load_teams([*map(run_name, directories), *names], config.seed)
    launch = read_machine(directories[0]).get("launch", {})
    return [
        EvaluatedRun(
            baseline.name,
            baseline.algorithm,
            None,
            _evaluate_with_progress(run, baseline, config, launch, within=config.within),
        )
        for baseline in teams[len(directories) :]
    ]


def _evaluate_with_progress(
    run: Run,
    team: Team,
    config: EvaluateConfig,
    launch: Mapping[str, Any],
    *,
    within: float,
    stopped: Callable[[], bool] = lambda: False,
    screen: Console = _screen,
    choices: evaluation.Choices = "greedy",
    at_most: int = 0,
    next_text: str = "",
) -> Evaluation:
    """Evaluates a team and shows the progress.

    at_most: number of episodes of a comparison, which prints less; 0: not a comparison. next_text: describes the
    evaluations that follow.
    """
    task, spec = eval_task(run.spec, config), run.spec
    options = play_options(spec, config, launch)._replace(within_s=within, max_episodes=at_most or MAX_EPISODES)
    count = "as many episodes as fit into" if not config.episodes else f"{config.episodes:,} episodes"
    if not config.episodes:
        count = "1,000 episodes" if task.batched else f"{count} {within:.0f} s (20 to 1,000)"
    where = "the batched world" if task.batched else "the original environment"
    how = "sampled choices" if choices == "drawn" else "without exploration"
    text = f"evaluating {team.name}: {count} in {where}, {how}{f'; then {next_text}' if next_text else ''}"
    with ProgressWatcher(screen, text, stopped, quiet=at_most > 0) as watcher:
        return evaluation.evaluate_team(
            run,
            team,
            config.episodes or (at_most or evaluation.BATCHED_EPISODES if task.batched else 0),
            config.seed,
            task,
            options=options,
            choices=choices,
            watcher=watcher,
        )


def _evaluate_listed_run(directory: RunDirectory, config: EvaluateConfig) -> EvaluatedRun:
    result = evaluate_run(directory, config, with_scale=False)
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
        print_tables(evaluation_text.table(found))
