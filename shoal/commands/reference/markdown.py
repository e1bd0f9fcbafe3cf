"""Pieces of Markdown: tables and code that stand as they were meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table; a cell's line breaks become spaces."""
    lines = [_row(head), "|" + "---|" * len(head), *map(_row, rows)]
    return "\n".join(lines)


def code(text: object) -> str:
    """Returns a span of code; nothing for nothing."""
    return f"`{text}`" if f"{text}" else ""


def block(text: str, language: str = "") -> str:
    """Returns a block of code."""
    return f"```{language}\n{text.strip()}\n```"


def page(title: str, *parts: str) -> str:
    """Returns a whole page, which says where it comes from."""
    note = "<!-- Written by `make reference` from the code. Do not edit. -->"
    return "\n\n".join([f"# {title}", note, *(part.strip() for part in parts if part.strip())]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
