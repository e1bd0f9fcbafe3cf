"""The command `shoal train`."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import click
import msgspec
from rich.console import Console

from common.process import command
from common.process.exit import DONE
from common.process.monitoring.logs import start_logging
from common.run.directory import RunDirectory
from common.run.open_run import RunOptions
from deploy.local.config import PRESET_PROCESSES, TrainConfig
from shoal.commands.evaluate.cli import print_evaluation
from shoal.commands.train.session import TrainingSession

# stdout is for results only, so that it can be piped.
_screen = Console(markup=False, emoji=False, stderr=True)

OPTION_GROUPS = {
    "Usual options": ("time", "run", "resume", "actors", "seed", "algorithm", "set", "config", "gpu"),
    "Budget and episodes": ("steps", "max_episode_steps", "episodes"),
    "Display and results": ("json", "dashboard", "dashboard_port", "no_film", "track", "audit"),
    "This machine": ("copies", "threads", "redis", "redis_password_file", "redis_ca_file", "metrics_port"),
    "Advanced": ("preset", "start_from", "lockstep", "chunk_rows"),
}
"""Names of the options by heading, in the order of `--help`."""


class TrainCommand(click.Command):
    """A command whose help shows its options in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes each group of options under its heading."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        records = {option.name: option.get_help_record(ctx) for option in options}
        named = [name for names in OPTION_GROUPS.values() for name in names]
        others = tuple(name for name in records if name and name not in named)
        for heading, names in (*OPTION_GROUPS.items(), ("Other", others)):
            if rows := [record for name in names if (record := records.get(name))]:
                with formatter.section(heading):
                    formatter.write_dl(rows)


@click.command(cls=TrainCommand)
@click.argument("scenario", default="")
@command.options(TrainConfig, RunOptions)
@click.pass_context
def train(context: click.Context, /, scenario: str, **values: Any) -> int:
    """Train a team on SCENARIO with everything on this machine, then evaluate it.

    Starts an embedded Redis, the replay server, the learner and the actors, restarts any process that dies, and shows
    progress. Ctrl-C ends the run cleanly; `--resume --run DIR` continues it.

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
    session = TrainingSession(config, _screen)
    directory = session.open(scenario, options, command.run_settings(context))
    start_logging("shoal", "WARNING" if _screen.is_terminal else "INFO")
    stop = session.stop
    stop.on_signals()
    stop.on_hangup()
    if config.lockstep:
        _prepare_lockstep(directory, config)
    if not session.train():
        return stop.exit_code
    if config.lockstep and config.json and config.episodes == 0:
        command.result(msgspec.json.encode({"weights_hash": session.weights_hash}))
    show = partial(print_evaluation, directory=directory, as_json=config.json, with_steps=False)
    code = DONE if config.episodes == 0 else session.evaluate(show)
    session.conclude()
    return stop.exit_code if stop.requested else code


def _prepare_lockstep(directory: RunDirectory, config: TrainConfig) -> None:
    """Logs to a file, because the screen shows the display, and sets the variable that torch reads on import."""
    directory.logs.mkdir(exist_ok=True)
    start_logging("lockstep", "WARNING", file=directory.logs / "lockstep.log")
    os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))
