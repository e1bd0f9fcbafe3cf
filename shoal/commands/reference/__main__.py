"""Writes the pages of docs/reference."""

from __future__ import annotations

from pathlib import Path

from shoal.commands.reference.commands import commands_page
from shoal.commands.reference.python_api import python_api_page
from shoal.commands.reference.scenarios import scenarios_page
from shoal.commands.reference.settings import settings_page
from shoal.commands.reference.variables import variables_page

DIRECTORY = Path(__file__).parents[3] / "docs" / "reference"
PAGES = {
    "commands.md": commands_page,
    "settings.md": settings_page,
    "scenarios.md": scenarios_page,
    "variables.md": variables_page,
    "python.md": python_api_page,
}


def main() -> None:
    """Writes every page."""
    DIRECTORY.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (DIRECTORY / name).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
