"""The command `shoal`: train, evaluate, render, report, sweep, status, scenarios, bench."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import msgspec
import zmq
from msgspec import Meta
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from actor_node import evaluation
from common import command
from common.messages import Status, StatusRequest
from common.policy_file import load_policy
from common.process import Stop, start_logging
from common.run import Run
from common.run_directory import RunDirectory
from common.run_options import RunOptions, open_run
from common.wire import Client
from common.worlds import scenarios, world_spec
from deploy.bench import BENCHMARKS
from deploy.config import STARTED_BY_PRESET, TrainConfig
from deploy.diagnose.cli import diagnose_run
from deploy.live import clock, make_display, rows
from deploy.local import LocalRun, forget_transitions, replay_url
from deploy.report.cli import render, report
from deploy.showing import Showing
from deploy.sweep.cli import sweep

if TYPE_CHECKING:
    from deploy.lockstep.run import LockstepRun

# The table goes where the log goes; stdout holds results only, so that it can be piped.
_screen = Console(stderr=True)


class EvaluateConfig(msgspec.Struct, frozen=True):
    """Settings of `shoal evaluate`."""

    episodes: Annotated[int, Meta(ge=1, description="Episodes to play.")] = 1_000
    seed: Annotated[int, Meta(ge=0, lt=2**31, description="Seed of the first episode; episode e has SEED + e.")] = (
        1_000_000
    )
    json: Annotated[bool, Meta(description="Print JSON.")] = False


class StatusConfig(msgspec.Struct, frozen=True):
    """Settings of `shoal status`."""

    replay: Annotated[str, Meta(description="The run's replay server.")] = "tcp://127.0.0.1:5555"
    json: Annotated[bool, Meta(description="Print JSON.")] = False


@click.group()
@click.version_option(package_name="shoal")
def shoal() -> None:
    """Train teams of agents with MADDPG: many light actors, one replay, one learner.

    `shoal train simple_spread` runs all of it on this machine. On several machines start `replay`, `learner` and
    `actor --n 32` yourself.
    """


@shoal.command()
@click.argument("scenario", default="")
@command.options(TrainConfig, RunOptions)
@click.pass_context
def train(context: click.Context, /, scenario: str, **values: Any) -> int:
    """Train a team on SCENARIO with everything on this machine, then evaluate it.

    Starts an embedded Redis, the replay server, the learner and the actors, starts again what dies, and shows how it
    goes. Ctrl-C ends it cleanly; `--resume --run DIR` goes on.

    \b
    Examples:
      shoal train simple_spread
      shoal train simple_spread --time 20m --actors 2 --run runs/spread
      shoal train simple_spread --set world.N=5 --set replay.batch=512
      shoal train --resume --run runs/spread --time 40m
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    options = command.build(RunOptions, values)
    started = command.unless_given(context, STARTED_BY_PRESET.get(options.preset, {}))
    config = command.build(TrainConfig, {**values, **started})
    if config.lockstep:
        config.refuse_what_lockstep_is_not()
    sections = command.run_settings(context)
    showing = Showing(config, _screen)
    directory, run = open_run(config.run, scenario, options, sections, resume=config.resume, role="launcher")
    start_logging("shoal", "WARNING" if _screen.is_terminal else "INFO")
    stop = Stop()
    stop.on_signals()
    _screen.print(f"run {run.id} of {run.spec.scenario} in {directory.path}")
    local = _lockstep(directory, run, config) if config.lockstep else LocalRun(directory, config)
    if not config.lockstep:
        _screen.print(f"look at it from elsewhere: shoal status {directory.path}", soft_wrap=True)
    display = showing.begin(directory, make_display(_screen, f"{run.spec.scenario} · {run.spec.algorithm.name}"))
    if not local.train(stop, display):
        showing.conclude(film=False)
        again = config.lockstep_options if config.lockstep else f"--actors {config.actors} --copies {config.copies}"
        _screen.print(f"stopped; go on with: shoal train --resume {again} --run {directory.path}", soft_wrap=True)
        return stop.exit_code
    forget_transitions(directory)
    if config.lockstep:
        digest = load_policy(directory.policy_file).digest
        _screen.print(f"weights {digest}", soft_wrap=True)
        if config.json and not config.episodes:
            click.echo(msgspec.json.encode({"weights_hash": digest}))
    if config.episodes:
        stop.release_signals()
        result = _evaluate(directory, config.episodes, EvaluateConfig().seed)
        _print_evaluation(result, as_json=config.json)
    showing.warn()
    showing.conclude(film=True)
    kept = "policy.safetensors, evaluation.json, checkpoints/, metrics.jsonl, tensorboard/, logs/"
    _screen.print(f"results in {directory.path}: {kept}", soft_wrap=True)
    return 0


@shoal.command()
@click.argument("run", type=click.Path(path_type=Path))
@command.options(EvaluateConfig)
def evaluate(run: Path, **values: Any) -> None:
    """Play whole episodes of the real mpe2 with the policies of RUN, without exploration.

    Prints the mean return (summed over agents) with its 95 % interval, and per agent.
    """
    config = command.build(EvaluateConfig, values)
    result = _evaluate(RunDirectory(run), config.episodes, config.seed)
    _print_evaluation(result, as_json=config.json)


@shoal.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
@command.options(StatusConfig)
def status(run: Path | None, **values: Any) -> None:
    """Show how a run goes, as its replay server sees it: rates, ratio, lag, who waits for whom.

    Names the replay server by --replay, or by RUN, the directory of a run that `shoal train` trains on this machine.
    Exit code 3 when no replay server answers.
    """
    config = command.build(StatusConfig, values)
    context = zmq.Context()
    client = Client(context, replay_url(RunDirectory(run)) if run else config.replay)
    try:
        answer = client.ask(StatusRequest(), Status, timeout_s=3.0)
    finally:
        client.close()
        context.term()
    if config.json:
        click.echo(msgspec.json.encode(answer))
        return
    _print_status(answer)


@shoal.command("scenarios")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_scenarios(as_json: bool) -> None:
    """List every world: agents, observation and action sizes, sides, what the reward means."""
    table = scenarios()
    if as_json:
        click.echo(msgspec.json.encode([_scenario_row(row.name, row) for row in table]))
        return
    for row in table:
        spec = world_spec(row.name)
        click.echo(f"{row.name}: {row.doc}")
        for agent in spec.agents:
            parts = ", ".join(_part_in_words(part) for part in agent.parts)
            click.echo(f"    {agent.name:<18} side {agent.team:<10} observes {agent.obs_dim:>3}, acts {parts}")
        click.echo(f"    reward: {row.reward}")
        click.echo(f"    options: {', '.join(f'{option.name}={option.default}' for option in row.options)}\n")
    click.echo("Any PettingZoo ParallelEnv: pettingzoo:package.module, as in pettingzoo:mpe2.simple_spread_v3")


@shoal.command("bench")
@click.argument("what", nargs=-1, type=click.Choice(sorted(BENCHMARKS)))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def run_bench(what: tuple[str, ...], as_json: bool) -> None:
    """Measure Shoal's speed on this machine, each figure with its baseline from the same run.

    Without an argument everything is measured, one after the other; use an otherwise idle machine.
    """
    found = []
    for name in what or BENCHMARKS:
        for figure in BENCHMARKS[name]():
            found.append(figure)
            if not as_json:
                goal = f"  (goal {figure.goal:g}x)" if figure.goal else ""
                baseline = f"{figure.ratio:.2f}x {figure.baseline_name} ({figure.baseline:,.4g}){goal}"
                click.echo(f"{figure.name:<34} {figure.value:>12,.4g} {figure.unit:<14} {baseline}")
    if as_json:
        click.echo(msgspec.json.encode(found))


shoal.add_command(diagnose_run)
shoal.add_command(render)
shoal.add_command(report)
shoal.add_command(sweep)


def _lockstep(directory: RunDirectory, run: Run, config: TrainConfig) -> LockstepRun:
    """Returns a run in this process, which logs into the run's directory; the screen is for the display."""
    directory.logs.mkdir(exist_ok=True)
    start_logging("lockstep", "WARNING", file=directory.logs / "lockstep.log")
    # Read once, when torch is imported: only now, for it takes seconds.
    os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))
    from deploy.lockstep.run import LockstepRun  # noqa: PLC0415

    return LockstepRun(directory, run, config)


def _evaluate(directory: RunDirectory, episodes: int, seed: int) -> evaluation.Evaluation:
    doing = f"evaluating {episodes} episodes in the real world of the run, without exploration"
    if not _screen.is_terminal:
        _screen.print(doing, soft_wrap=True)
    with Progress(console=_screen, transient=True, disable=not _screen.is_terminal) as progress:
        task = progress.add_task(doing, total=episodes)
        result = evaluation.evaluate(directory, episodes, seed, lambda done: progress.update(task, completed=done))
    evaluation.save(result, directory.evaluation_file)
    return result


def _print_evaluation(result: evaluation.Evaluation, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(result))
        return
    if not result.updates:
        click.echo("these policies have had 0 updates: what follows is how an untrained team plays")
    low, high = result.return_ci95
    click.echo(f"return S = {result.return_mean:.2f}  (95 % interval {low:.2f} .. {high:.2f}), summed over agents,")
    click.echo(f"mean of {result.episodes} episodes in {result.world} without exploration, {result.updates:,} updates")
    for agent, value in result.return_per_agent.items():
        click.echo(f"    {agent:<18} {value:9.2f}")
    if result.published_scales:
        scales = ", ".join(f"{name} = {value:.1f}" for name, value in result.published_scales.items() if name != "S")
        click.echo(f"on the scales of published tables: {scales}")


def _print_status(answer: Status) -> None:
    table = Table.grid(padding=(0, 2))
    run = answer.run
    table.add_row("run", f"{run.id} of {run.spec.scenario}" if run else "none yet: waiting for a learner")
    for name, value in rows(answer):
        table.add_row(name, value)
    learner = answer.learner
    if learner is not None:
        seen, state = answer.learner_seconds_since_seen, learner.waiting_for
        doing = f"waiting for {state}" if state else "training"
        table.add_row("learner", f"Shoal {learner.software}, heard {seen:.0f} s ago, {doing}")
    table.add_row("replay server", f"Shoal {answer.software}, up for {clock(answer.uptime_s)}")
    for actor in answer.actors:
        state = f"waiting for {actor.waiting_for}" if actor.waiting_for else "collecting"
        table.add_row(
            f"actor {actor.actor}",
            f"Shoal {actor.software}, {actor.env_steps:,} env steps, weights {actor.weights_version}, {state}",
        )
    Console(file=sys.stdout).print(table)


def _part_in_words(part: Any) -> str:
    return f"Box({part.size})" if hasattr(part, "low") else f"Categorical({part.n})"


def _scenario_row(name: str, row: Any) -> dict[str, Any]:
    return {**msgspec.to_builtins(row), "agents": msgspec.to_builtins(world_spec(name).agents)}


def main() -> None:
    """Runs `shoal` and ends the process."""
    command.main(shoal, "shoal")
