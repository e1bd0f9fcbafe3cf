"""docs/reference agrees with the code."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

from common.run.run import RunSpec
from shoal.commands.reference.__main__ import DIRECTORY, PAGES
from shoal.commands.reference.commands import commands
from shoal.commands.reference.python_api import PUBLIC_NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_current(name: str) -> None:
    """`make reference` writes the pages again."""
    assert (DIRECTORY / name).read_text("utf-8") == PAGES[name]()


def test_there_is_no_other_page() -> None:
    assert {path.name for path in DIRECTORY.iterdir()} == set(PAGES)


def test_every_option_has_its_help() -> None:
    assert [f"{each.name} {option.opts[0]}" for each in commands() for option in each.options if not option.help] == []


def test_every_setting_has_its_meaning() -> None:
    page = (DIRECTORY / "settings.md").read_text("utf-8")
    rows = [line for line in page.partition("## Presets")[0].splitlines() if line.startswith("| `")]
    assert len(rows) > len(RunSpec.__struct_fields__) * 5
    assert [row for row in rows if row.endswith("|  |")] == []


@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_listed_names_can_be_imported(module: str) -> None:
    found = import_module(module)
    for name in PUBLIC_NAMES[module]:
        assert inspect.getdoc(getattr(found, name)), name
