"""Prints the requirements in pyproject.toml, one per line: the project's dependencies and those of the named extras.

An image installs the requirements before it copies Shoal's code, so that a change of code does not reinstall them.

Usage: python requirements.py EXTRA ...      in the directory of pyproject.toml
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], extras: Iterable[str]) -> Iterator[str]:
    """Yields the requirements of extras. Resolves extras that consist of other extras (`name[a,b]`)."""
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            others = re.fullmatch(rf"{project['name']}\[(.*)\]", requirement)
            if others:
                yield from requirements(project, others[1].split(","))
            else:
                yield requirement


def main() -> None:
    """Prints the requirements of the extras on the command line."""
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    print(*sorted({*project["dependencies"], *requirements(project, sys.argv[1:])}), sep="\n")  # noqa: T201


main()
