"""The page of commands: usage, help text and options of each command, read from click."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from actor_node.cli import actor
from learner_node.cli import learner
from replay_server.cli import replay
from shoal.cli import shoal
from shoal.commands.reference import markdown as md

ROOTS: dict[str, click.Command] = {"shoal": shoal, "replay": replay, "learner": learner, "actor": actor}
"""The commands that Shoal installs."""

_INTRODUCTION = """
Each option can also be set by an environment variable or by a key of the TOML file given with `--config`:
`--some-name`, `SHOAL_SOME_NAME`, `some_name`. The command line has priority over the environment, the environment over
the file, and the file over the default. Durations are written `300`, `90s`, `5m` or `1h30m`. An invalid value ends the
command with a one-line message and exit code 2.

Exit codes: 0 success, 1 failure, 2 invalid usage or configuration, 3 a peer could not be reached, 130 interrupted.
"""


class Command(NamedTuple):
    """One command and its full name."""

    name: str
    command: click.Command

    @property
    def context(self) -> click.Context:
        """The click context that determines the usage line."""
        return click.Context(self.command, info_name=self.name)

    @property
    def options(self) -> list[click.Option]:
        """The options of the command, without hidden ones."""
        return [param for param in self.command.params if isinstance(param, click.Option) and not param.hidden]


def commands() -> Iterator[Command]:
    """Yields every command, a group before its commands."""
    for name, command in ROOTS.items():
        yield from _walk(name, command)


def commands_page() -> str:
    """Returns the page as Markdown."""
    return md.page("Commands", _INTRODUCTION, *map(_section, commands()))


def _walk(name: str, command: click.Command) -> Iterator[Command]:
    yield Command(name, command)
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for entry in sorted(command.list_commands(context)):
            if child := command.get_command(context, entry):
                yield from _walk(f"{name} {entry}", child)


def _section(entry: Command) -> str:
    usage = entry.command.get_usage(entry.context).removeprefix("Usage: ")
    rows = [[*_left(option), _default(option), option.help or ""] for option in entry.options]
    options = md.table(["option", "takes", "default", "meaning"], rows) if rows else ""
    parts = [f"## {entry.name}", md.block(" ".join(usage.split())), _help(entry), options]
    return "\n\n".join(part for part in parts if part)


def _help(entry: Command) -> str:
    """Returns the help text; paragraphs that click prints verbatim become code blocks."""
    paragraphs = inspect.cleandoc(entry.command.help or "").split("\n\n")
    return "\n\n".join(_paragraph(paragraph) for paragraph in paragraphs)


def _paragraph(text: str) -> str:
    if not text.startswith("\b\n"):
        return text
    lines = text.removeprefix("\b\n").splitlines()
    return md.block(
        "\n".join(re.sub(r"^(Example: +| +)", "", line) for line in lines if not line.endswith("Examples:"))
    )


def _left(option: click.Option) -> tuple[str, str]:
    names = ", ".join(md.code(name) for name in sorted(option.opts, key=len))
    return names, "" if option.is_flag else md.code(_takes(option).strip("[]"))


def _takes(option: click.Option) -> str:
    shown = option.make_metavar(click.Context(click.Command("any")))
    return f"{shown} ..." if option.multiple else shown


def _default(option: click.Option) -> str:
    default: Any = option.default
    if option.required:
        return "required"
    if option.is_flag or not isinstance(default, str | int | float | tuple) or default in ("", (), 0):
        return ""
    return ", ".join(md.code(one) for one in default) if isinstance(default, tuple) else md.code(default)
