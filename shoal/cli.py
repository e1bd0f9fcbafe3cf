"""The command `shoal`: the group of all commands, which are imported when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import click

from common.process import command


class CommandEntry(NamedTuple):
    """One command of the group."""

    module: str
    function: str
    help: str
    """Line of `shoal --help`: at most 64 characters, so that click does not cut it at 80 columns."""


SECTIONS: dict[str, dict[str, CommandEntry]] = {
    "Train": {
        "train": CommandEntry("train.cli", "train", "Train a team on this machine, then evaluate it."),
        "check": CommandEntry("check.cli", "check", "Check an environment before training on it."),
        "sweep": CommandEntry("sweep.cli", "sweep", "Train one run for each seed and setting, and compare them."),
        "status": CommandEntry("status", "status", "Show the rates and waits of a run in training."),
    },
    "Evaluate": {
        "evaluate": CommandEntry("evaluate.cli", "evaluate", "Play whole episodes with a trained team and measure it."),
        "diagnose": CommandEntry("diagnose.cli", "diagnose_run", "Find problems of a run and suggest settings."),
        "tournament": CommandEntry("tournament.cli", "tournament", "Play teams against each other."),
        "paper": CommandEntry("paper.cli", "paper", "Reproduce the comparison of the MADDPG paper."),
    },
    "Show": {
        "report": CommandEntry("report.cli", "report", "Write runs as one HTML page."),
        "render": CommandEntry("render", "render", "Film a trained team."),
    },
    "Export": {
        "export": CommandEntry("export.cli", "export", "Write a team's policies as ONNX."),
        "export-results": CommandEntry(
            "export_results.cli", "export_results", "Write evaluations as JSON for marl-eval, or as CSV."
        ),
    },
    "Operate": {
        "keys": CommandEntry("keys", "keys", "Create the keys of an encrypted deployment."),
        "audit": CommandEntry("audit.cli", "audit_run", "Check that no acknowledged chunk of a run was lost."),
    },
    "About": {
        "scenarios": CommandEntry("scenarios", "scenarios", "List the worlds, or show one."),
        "bench": CommandEntry("bench.cli", "bench", "Measure Shoal's speed on this machine."),
    },
}
"""The commands by the heading under which `shoal --help` shows them, in order."""

_COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class LazyGroup(click.Group):
    """A click group that imports a command when it is used, and shows the commands under headings."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of all commands, in the order of the help."""
        _ = ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command; None if no command has this name."""
        _ = ctx
        if cmd_name not in _COMMANDS:
            return None
        if cmd_name not in self.commands:
            entry = _COMMANDS[cmd_name]
            found: click.Command = getattr(import_module(f"shoal.commands.{entry.module}"), entry.function)
            self.add_command(found, cmd_name)
        return self.commands[cmd_name]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands under their headings; imports none of them."""
        _ = ctx
        widest = max(map(len, _COMMANDS))
        for heading, entries in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(widest), entry.help) for name, entry in entries.items()])


@click.group(cls=LazyGroup)
@click.version_option(package_name="shoal")
def shoal() -> None:
    """Train teams of agents with MADDPG: many light actors, one replay server, one learner.

    `shoal train simple_spread` runs everything on this machine. On several machines, start `replay`, `learner` and
    `actor --n 32` yourself.
    """


def main() -> None:
    """Runs `shoal` and ends the process."""
    command.main(shoal, "shoal")
