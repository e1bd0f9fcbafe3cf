"""The command `shoal`: a group whose commands are imported when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import click

from common.process import command


class Entry(NamedTuple):
    """One command of the group."""

    module: str
    function: str
    help: str
    """What the group's help says of it: at most 64 characters, so that nothing is cut at 80 columns."""


SECTIONS: dict[str, dict[str, Entry]] = {
    "Train": {
        "train": Entry("train.cli", "train", "Train a team on this machine, then evaluate it."),
        "check": Entry("check.cli", "check", "Check an environment before training on it."),
        "sweep": Entry("sweep.cli", "sweep", "Train one run for each seed and setting, and compare them."),
        "status": Entry("status", "status", "Show how a run is doing and who waits for whom."),
    },
    "Judge": {
        "evaluate": Entry("evaluate.cli", "evaluate", "Play whole episodes with a trained team and measure it."),
        "diagnose": Entry("diagnose.cli", "diagnose_run", "Say in words what is wrong with a trained run."),
        "tournament": Entry("tournament.cli", "tournament", "Play teams against each other."),
        "paper": Entry("paper.cli", "paper", "Reproduce the comparison of the MADDPG paper."),
    },
    "Show": {
        "report": Entry("report.cli", "report", "Write runs as one HTML page."),
        "render": Entry("report.cli", "render", "Film a trained team."),
    },
    "Take away": {
        "export": Entry("export.cli", "export", "Write a team's policies as ONNX."),
    },
    "Operate": {
        "keys": Entry("keys", "keys", "Make the keys of an encrypted deployment."),
        "audit": Entry("audit.cli", "audit_run", "Prove what became of every chunk of a run."),
    },
    "About": {
        "scenarios": Entry("scenarios", "scenarios", "List the worlds, or show one."),
        "bench": Entry("bench.cli", "bench", "Measure this machine against the goals."),
    },
}
"""The commands by the heading under which `shoal --help` shows them, in order."""

_ENTRIES = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class LazyGroup(click.Group):
    """A group that imports a command when it is used, and shows the commands under headings."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of all commands, in the order of the help."""
        _ = ctx
        return list(_ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command; None if no command has this name."""
        _ = ctx
        if cmd_name not in _ENTRIES:
            return None
        if cmd_name not in self.commands:
            entry = _ENTRIES[cmd_name]
            found: click.Command = getattr(import_module(f"shoal.commands.{entry.module}"), entry.function)
            self.add_command(found, cmd_name)
        return self.commands[cmd_name]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands under their headings; imports none of them."""
        _ = ctx
        widest = max(map(len, _ENTRIES))
        for heading, entries in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(widest), entry.help) for name, entry in entries.items()])


@click.group(cls=LazyGroup)
@click.version_option(package_name="shoal")
def shoal() -> None:
    """Train teams of agents with MADDPG: many light actors, one replay server, one learner.

    `shoal train simple_spread` runs all of it on this machine. On several machines start `replay`, `learner` and
    `actor --n 32` yourself.
    """


def main() -> None:
    """Runs `shoal` and ends the process."""
    command.main(shoal, "shoal")
