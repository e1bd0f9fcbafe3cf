"""Pieces of Markdown: tables, code and whole pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table; line breaks in cells become spaces."""
    lines = [_row(head), "|" + "---|" * len(head), *map(_row, rows)]
    return "\n".join(lines)


def code(text: object) -> str:
    """Returns a span of code; empty for an empty text."""
    return f"`{text}`" if f"{text}" else ""


def block(text: str, language: str = "") -> str:
    """Returns a code block."""
    return f"```{language}\n{text.strip()}\n```"


def page(title: str, *parts: str) -> str:
    """Returns a page with a title and a note that it is generated."""
    note = "<!-- Written by `make reference` from the code. Do not edit. -->"
    return "\n\n".join([f"# {title}", note, *(part.strip() for part in parts if part.strip())]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
