"""The commands accept every call in the pages: options, values, settings. Nothing is run."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from common.errors import ConfigError
from common.run.run import make_run_spec, parse_assignments
from shoal.commands.reference.commands import ROOTS, commands
from tests.docs.pages import NAMES
from tests.docs.shell import Call, calls

WORKED_EXAMPLE = "adversary=group,agent=maddpg"
"""The algorithm that docs/own-algorithm.md adds."""
CALLS = [call for page in NAMES for call in calls(page) if WORKED_EXAMPLE not in call.arguments]


@pytest.fixture(autouse=True)
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Creates empty files for those that the pages name with --config."""
    monkeypatch.chdir(tmp_path)
    for call in CALLS:
        if "--config" in call.arguments:
            (tmp_path / call.arguments[call.arguments.index("--config") + 1]).write_text("", "utf-8")


def parse(command: click.Command, name: str, arguments: list[str]) -> click.Context:
    """Parses arguments for a command, or for the called command of a group."""
    command.context_settings.setdefault("help_option_names", ["-h", "--help"])
    try:
        context = command.make_context(name, arguments)
    except click.exceptions.Exit:  # --help and --version end here
        return click.Context(command)
    if isinstance(command, click.Group):
        rest = [*getattr(context, "_protected_args", []), *context.args]
        child_name, child, rest = command.resolve_command(context, rest)
        assert child is not None
        return parse(child, f"{name} {child_name}", rest)
    return context


def test_the_pages_are_full_of_calls() -> None:
    assert len(CALLS) > 100
    assert {call.name for call in CALLS} == set(ROOTS)


@pytest.mark.parametrize("call", [call for call in CALLS if not call.refusal], ids=str)
def test_a_call_is_accepted(call: Call) -> None:
    check(call)


@pytest.mark.parametrize("call", [call for call in CALLS if call.refusal], ids=str)
def test_a_mistake_gives_the_error_that_the_page_shows(call: Call) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(call.refusal)}$"):
        check(call)


def check(call: Call) -> None:
    """Parses a call and the run's settings in it."""
    try:
        context = parse(ROOTS[call.name], call.name, list(call.arguments))
    except (click.BadOptionUsage, click.MissingParameter):
        if call.is_whole:
            raise
        return
    settings = parse_assignments(context.params.get("set") or ())
    make_run_spec({"scenario": "simple_spread"}, settings)
    if algorithm := context.params.get("algorithm"):
        make_run_spec({"scenario": "simple_spread", "algorithm": {"name": algorithm}})
    if train_options := context.params.get("train_options"):
        parse(dict(commands_by_name())["shoal train"], "shoal train", ["simple_spread", *train_options])


def commands_by_name() -> list[tuple[str, click.Command]]:
    return [(documented.name, documented.command) for documented in commands()]


def test_every_command_is_called_somewhere() -> None:
    """Users do not find a command that no page shows."""
    called = {f"{call.name} {call.arguments[0]}" if call.arguments else call.name for call in CALLS}
    called |= {call.name for call in CALLS}
    assert {each.name for each in commands() if len(each.name.split()) <= 2} - called == set()
