"""Prints what pyproject.toml asks for, one requirement a line: the project's own dependencies and those of extras.

So an image can install them before Shoal's code is there, and keep them when it changes.

usage: python requirements.py EXTRA ...      beside pyproject.toml
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], extras: Iterable[str]) -> Iterator[str]:
    """Yields the requirements of extras; an extra that is made of others (`name[a,b]`) yields theirs."""
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            others = re.fullmatch(rf"{project['name']}\[(.*)\]", requirement)
            if others:
                yield from requirements(project, others[1].split(","))
            else:
                yield requirement


def main() -> None:
    """Prints the requirements of the extras that the command line names."""
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    print(*sorted({*project["dependencies"], *requirements(project, sys.argv[1:])}), sep="\n")  # noqa: T201


main()
