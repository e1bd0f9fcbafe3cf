"""Printing tables to a terminal or a file."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from common.process import command

_FILE_WIDTH = 100_000


def print_tables(*tables: Table) -> None:
    """Prints tables on stdout: within the width of a terminal, elsewhere without wrapping."""
    console = Console(file=command.results(), markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    for table in tables:
        console.print(table)
