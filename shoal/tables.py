"""Tables on stdout, for people and for files."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from common.process import command

_ENDLESS = 100_000


def print_tables(*tables: Table) -> None:
    """Prints tables: on a terminal within its width, elsewhere as wide as they are, for a file has no edge."""
    console = Console(file=command.results(), markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _ENDLESS
    for table in tables:
        console.print(table)
