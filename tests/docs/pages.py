"""Content of the pages, read by a Markdown parser: blocks, spans of code, links, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "SECURITY")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


class Block(NamedTuple):
    """A block of code; `language` is empty for an indented one."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def tokens(name: str) -> tuple[Token, ...]:
    """Returns a page's tokens, with the spans inside lines."""
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse((ROOT / name).read_text("utf-8")):
        found.append(token)
        found += token.children or []
    return tuple(found)


def blocks(name: str) -> Iterator[Block]:
    """Yields a page's blocks of code."""
    for token in tokens(name):
        if token.type in ("fence", "code_block"):
            assert token.map
            yield Block(name, token.map[0] + 1, token.info.strip(), token.content)


def spans(name: str) -> Iterator[str]:
    """Yields the spans of code in a page's text."""
    yield from (token.content for token in tokens(name) if token.type == "code_inline")


def links(name: str) -> Iterator[str]:
    """Yields the targets of a page's links and pictures."""
    for token in tokens(name):
        target = token.attrs.get("href") if token.type == "link_open" else token.attrs.get("src")
        if target:
            yield str(target)


def anchors(name: str) -> set[str]:
    """Returns the names of a page's headings, as GitHub and the site make them."""
    found: list[str] = []
    for token, inline in zip(tokens(name), tokens(name)[1:], strict=False):
        if token.type == "heading_open":
            text = "".join(child.content for child in inline.children or [] if child.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", text.lower().strip()).replace(" ", "-")
            found.append(slug if slug not in found else f"{slug}-{found.count(slug)}")
    return set(found)
