"""The command `actor`: runs one node of rollout workers."""

from __future__ import annotations

import os

import click

from actor_node.config import ActorConfig
from common.process import command
from common.process.children.failure_note import FailureNote
from common.process.children.parent import die_with_parent
from common.process.monitoring.logs import start_logging
from common.process.posix import require_posix
from common.process.stop import Stop
from common.wire.keys import load_keys


@click.command()
@command.options(ActorConfig)
def actor(**values: object) -> int:
    """Play the decentralised policies and send transitions to the replay server.

    Starts N workers that step copies of the run's world with the newest weights. The workers receive the run from the
    replay server, so they may start before it: they wait, and log what they wait for. The node ends on Ctrl-C or
    SIGTERM, once all sent transitions are acknowledged (after --drain at the latest).

    \b
    Example:  actor --n 32 --replay tcp://replay-host:5555 --weights tcp://learner-host:5556
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    # Set before the workers import numpy: one thread per worker, because the workers are the parallelism.
    for library in ("OPENBLAS", "OMP", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    from actor_node.supervisor import run_node  # noqa: PLC0415  (after the environment is set)

    config = command.build(ActorConfig, values)
    require_posix("The command `actor`")
    load_keys(config.keys)  # so that an invalid key is reported once, and not by every worker
    start_logging("actor")
    if config.parent:
        die_with_parent(config.parent)
    stop = Stop()
    stop.on_signals()
    run_node(config, stop, FailureNote.from_environment())
    return stop.exit_code


def main() -> None:
    """Runs `actor` and ends the process."""
    command.main(actor, "actor")
