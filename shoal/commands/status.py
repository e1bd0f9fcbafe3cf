"""The command `shoal status`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import click
import msgspec
import zmq
from msgspec import Meta
from rich.console import Console
from rich.table import Table

from common.process import command
from common.process.durations import format_duration
from common.run.directory import RunDirectory
from common.wire.client import Client
from common.wire.keys import KeysOption, load_keys
from common.wire.messages import Status, StatusRequest
from deploy.local.launcher import replay_url
from deploy.local.live_display import learner_activity, status_rows


class StatusConfig(msgspec.Struct, frozen=True):
    """Settings of `shoal status`."""

    replay: Annotated[str, Meta(description="Address of the run's replay server.")] = "tcp://127.0.0.1:5555"
    keys: KeysOption = ""
    json: Annotated[bool, Meta(description="Print JSON.")] = False


@click.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
@command.options(StatusConfig)
def status(run: Path | None, **values: Any) -> None:
    """Show the rates, replay ratio, policy lag and waits of a training run.

    The figures come from the run's replay server: the server at --replay, or that of the directory RUN, which
    `shoal train` on this machine or a Slurm job of deploy/slurm is training. Exits with code 3 if the server does not
    answer.
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


def _print_status(answer: Status) -> None:
    table = Table.grid(padding=(0, 2))
    run = answer.run
    table.add_row("run", f"{run.id} of {run.spec.scenario}" if run else "none yet")
    for name, value in status_rows(answer):
        table.add_row(name, value)
    learner = answer.learner
    if learner is not None:
        seconds = answer.learner_seconds_since_seen
        # A restarted server knows the last report of a finished run, but not its age.
        last_seen = f"seen {seconds:.0f} s ago" if seconds >= 0 else "not seen since the server's start"
        activity = learner_activity(learner, answer.learner_seconds_since_seen)
        table.add_row("learner", f"Shoal {learner.software}, {last_seen}, {activity}")
    table.add_row("replay server", f"Shoal {answer.software}, up for {format_duration(answer.uptime_s)}")
    for actor in answer.actors:
        state = actor.doing or (f"waiting for {actor.waiting_for}" if actor.waiting_for else "collecting")
        table.add_row(
            f"actor {actor.actor}",
            f"Shoal {actor.software}, {actor.env_steps:,} env steps, weights {actor.weights_version}, {state}",
        )
    Console(file=command.results(), markup=False, emoji=False).print(table)
