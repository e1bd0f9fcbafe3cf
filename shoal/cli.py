"""The command `shoal`: train, evaluate, tournament, paper, render, report, export, sweep, status, scenarios, bench."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import msgspec
import zmq
from msgspec import Meta
from rich.console import Console
from rich.table import Table

from actor_node.evaluation.copy_rollouts import words_of
from common.open_run import RunOptions, open_run
from common.policy.file import load_policy
from common.process import command
from common.process.durations import clock
from common.process.exit import DONE, FAILED
from common.process.logs import start_logging
from common.process.stop import Stop
from common.run.directory import RunDirectory
from common.run.run import Run
from common.wire.client import Client
from common.wire.keys import KeysOption, load_keys
from common.wire.messages import Status, StatusRequest
from common.worlds import scenarios, world_spec
from deploy.local.config import PRESET_PROCESSES, TrainConfig
from deploy.local.launcher import LocalRun, delete_transitions, replay_url
from deploy.local.live_display import learner_doing, make_display, rows
from deploy.local.start_checks import memory_check, untrained_text
from learner_node.sizes import sizes_of
from learner_node.trackers import refuse_missing
from shoal.commands.audit.cli import audit_run
from shoal.commands.bench.cli import bench
from shoal.commands.diagnose.cli import diagnose_run
from shoal.commands.evaluate.cli import EvaluateConfig, evaluate, evaluate_run, print_evaluation
from shoal.commands.evaluate.progress import EvaluationStopped
from shoal.commands.export.cli import export
from shoal.commands.keys import keys
from shoal.commands.paper.cli import paper
from shoal.commands.report.cli import render, report
from shoal.commands.sweep.cli import sweep
from shoal.commands.tournament.cli import tournament
from shoal.commands.train.artifacts import Artifacts

if TYPE_CHECKING:
    from deploy.lockstep.run import LockstepRun

# The table goes where the log goes; stdout holds results only, so that it can be piped.
_screen = Console(markup=False, emoji=False, stderr=True)


class StatusConfig(msgspec.Struct, frozen=True):
    """Settings of `shoal status`."""

    replay: Annotated[str, Meta(description="The run's replay server.")] = "tcp://127.0.0.1:5555"
    keys: KeysOption = ""
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
    started = command.unless_given(context, PRESET_PROCESSES.get(options.preset, {}))
    config = command.build(TrainConfig, {**values, **started})
    if config.lockstep:
        config.check_lockstep()
    refuse_missing(config.track)
    sections = command.run_settings(context)
    showing = Artifacts(config, _screen)
    directory, run = open_run(
        config.run,
        scenario,
        options,
        sections,
        resume=config.resume,
        role="launcher",
        check=memory_check(config),
        say=partial(_screen.print, soft_wrap=True),
    )
    start_logging("shoal", "WARNING" if _screen.is_terminal else "INFO")
    stop = Stop()
    stop.on_signals()
    _screen.print(f"run {run.id} of {run.spec.scenario} in {directory.path}")
    for line in sizes_of(run.spec, run.joint).lines:
        _screen.print(line, markup=False, soft_wrap=True)
    local = _lockstep(directory, run, config) if config.lockstep else LocalRun(directory, config)
    if not config.lockstep:
        _screen.print(f"look at it from elsewhere: shoal status {directory.path}", soft_wrap=True)
    display = showing.begin(directory, make_display(_screen, f"{run.spec.scenario} · {run.spec.algorithm.name}"))
    if not local.train(stop, display):
        showing.conclude(film=False)
        again = config.lockstep_options if config.lockstep else f"--actors {config.actors} --copies {config.copies}"
        _screen.print(f"stopped; go on with: shoal train --resume {again} --run {directory.path}", soft_wrap=True)
        return stop.exit_code
    delete_transitions(directory)
    if untrained := untrained_text(directory):
        _screen.print(untrained, markup=False, soft_wrap=True)
    if config.lockstep:
        digest = load_policy(directory.policy_file).digest
        _screen.print(f"weights {digest}", soft_wrap=True)
        if config.json and config.episodes == 0:
            command.result(msgspec.json.encode({"weights_hash": digest}))
    code = 0 if config.episodes == 0 else _evaluate_at_end(directory, config, stop)
    if not stop.requested:
        showing.warn()
    showing.conclude(film=True)
    results = ("policy.safetensors", "evaluation.json", "checkpoints/", "metrics.jsonl", "tensorboard/", "logs/")
    kept = [name for name in results if (directory.path / name).exists()]
    _screen.print(f"results in {directory.path}: {', '.join(kept)}", soft_wrap=True)
    return stop.exit_code if stop.requested else code


def _evaluate_at_end(directory: RunDirectory, config: TrainConfig, stop: Stop) -> int:
    """Evaluates a run that has just been trained, and returns the exit code: 0, or 1 where that cannot be done.

    Whatever happens here, the team is trained: film and report are made all the same.
    """
    try:
        result = evaluate_run(directory, EvaluateConfig(episodes=config.episodes), lambda: stop.requested)
    except EvaluationStopped as e:
        _screen.print(f"evaluation {e}; play it with: shoal evaluate {directory.path}", soft_wrap=True, markup=False)
        return stop.exit_code
    except Exception as e:  # noqa: BLE001  (whatever it is, the trained team gets its report)
        again = f"try again with: shoal evaluate {directory.path}"
        _screen.print(f"not evaluated: {words_of(e)}\n{again}", soft_wrap=True, markup=False, highlight=False)
        return FAILED
    print_evaluation(result, as_json=config.json)
    return DONE


@shoal.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
@command.options(StatusConfig)
def status(run: Path | None, **values: Any) -> None:
    """Show how a run goes, as its replay server sees it: rates, ratio, lag, who waits for whom.

    Names the replay server by --replay, or by RUN, the directory of a run that `shoal train` trains on this machine or
    that a Slurm job of deploy/slurm trains.
    Exit code 3 when no replay server answers.
    """
    config = command.build(StatusConfig, values)
    context = zmq.Context()
    if run:
        url = replay_url(RunDirectory(run))
        client = Client(context, url, keys=load_keys(config.keys) if url.startswith("tcp:") else None)
    else:
        client = Client(context, config.replay, keys=load_keys(config.keys))
    try:
        answer = client.ask(StatusRequest(), Status, timeout_s=3.0)
    finally:
        client.close()
        context.term()
    if config.json:
        command.result(msgspec.json.encode(answer))
        return
    _print_status(answer)


@shoal.command("scenarios")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_scenarios(as_json: bool) -> None:
    """List every world: agents, observation and action sizes, sides, what the reward means."""
    table = scenarios()
    if as_json:
        command.result(msgspec.json.encode([_scenario_row(row.name, row) for row in table]))
        return
    for row in table:
        spec = world_spec(row.name)
        command.result(f"{row.name}: {row.doc}")
        for agent in spec.agents:
            parts = ", ".join(_part_in_words(part) for part in agent.parts)
            command.result(f"    {agent.name:<18} side {agent.team:<10} observes {agent.obs_dim:>3}, acts {parts}")
        command.result(f"    reward: {row.reward}")
        command.result(f"    options: {', '.join(f'{option.name}={option.default}' for option in row.options)}\n")
    command.result("Any PettingZoo ParallelEnv: pettingzoo:package.module, as in pettingzoo:mpe2.simple_spread_v3")


shoal.add_command(audit_run)
shoal.add_command(bench)
shoal.add_command(diagnose_run)
shoal.add_command(evaluate)
shoal.add_command(export)
shoal.add_command(keys)
shoal.add_command(paper)
shoal.add_command(render)
shoal.add_command(report)
shoal.add_command(sweep)
shoal.add_command(tournament)


def _lockstep(directory: RunDirectory, run: Run, config: TrainConfig) -> LockstepRun:
    """Returns a run in this process, which logs into the run's directory; the screen is for the display."""
    directory.logs.mkdir(exist_ok=True)
    start_logging("lockstep", "WARNING", file=directory.logs / "lockstep.log")
    # Read once, when torch is imported: only now, for it takes seconds.
    os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))
    from deploy.lockstep.run import LockstepRun  # noqa: PLC0415

    return LockstepRun(directory, run, config)


def _print_status(answer: Status) -> None:
    table = Table.grid(padding=(0, 2))
    run = answer.run
    table.add_row("run", f"{run.id} of {run.spec.scenario}" if run else "none yet")
    for name, value in rows(answer):
        table.add_row(name, value)
    learner = answer.learner
    if learner is not None:
        heard = f"heard {answer.learner_seconds_since_seen:.0f} s ago"
        doing = learner_doing(learner, answer.learner_seconds_since_seen)
        table.add_row("learner", f"Shoal {learner.software}, {heard}, {doing}")
    table.add_row("replay server", f"Shoal {answer.software}, up for {clock(answer.uptime_s)}")
    for actor in answer.actors:
        state = actor.doing or (f"waiting for {actor.waiting_for}" if actor.waiting_for else "collecting")
        table.add_row(
            f"actor {actor.actor}",
            f"Shoal {actor.software}, {actor.env_steps:,} env steps, weights {actor.weights_version}, {state}",
        )
    Console(file=command.results(), markup=False, emoji=False).print(table)


def _part_in_words(part: Any) -> str:
    return f"Box({part.size})" if hasattr(part, "low") else f"Categorical({part.n})"


def _scenario_row(name: str, row: Any) -> dict[str, Any]:
    return {**msgspec.to_builtins(row), "agents": msgspec.to_builtins(world_spec(name).agents)}


def main() -> None:
    """Runs `shoal` and ends the process."""
    command.main(shoal, "shoal")
