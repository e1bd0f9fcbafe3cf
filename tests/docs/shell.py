"""Calls of Shoal's commands in the pages' shell lines, split into words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from tests.docs.pages import blocks, spans

COMMANDS = ("shoal", "replay", "learner", "actor")
_OPERATORS = {"&", "&&", "|", "||", ";", ">", ">>", "<", "2>"}
_PRINTED = re.compile(r"[\d=]")
"""Start of the second word of a line that is a command's output, or a key of a file."""
_ASSIGNMENT = re.compile(r"[A-Z_]+=.*")


class Call(NamedTuple):
    """One call of one of Shoal's commands."""

    where: str
    name: str
    arguments: tuple[str, ...]
    is_whole: bool = True
    """Whether the call is complete; in a line of text an option's value may be left out."""
    refusal: str = ""
    """The error that the page shows for a call that the command refuses, or an empty text."""

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join([self.name, *self.arguments])}"


def calls(page: str) -> Iterator[Call]:
    """Yields the calls in a page's blocks of commands, and calls with an option in its text."""
    for block in blocks(page):
        if block.language in ("", "sh", "bash", "console"):
            text = block.text.replace("\\\n", " ")
            lines = text.splitlines()
            for i, line in enumerate(lines):
                for call in _in_line(f"{page}:{block.line + i}", line):
                    prefix, output = f"{call.name}: ", lines[i + 1] if i + 1 < len(lines) else ""
                    yield call._replace(refusal=output.removeprefix(prefix)) if output.startswith(prefix) else call
    for span in spans(page):
        if " --" in span or " -o" in span:
            yield from (call._replace(is_whole=False) for call in _in_line(page, span))


def _in_line(where: str, line: str) -> Iterator[Call]:
    """Yields the calls in one line. A line that is not shell, or that contains an ellipsis, has no calls."""
    if "..." in line or "[OPTIONS]" in line or "[--" in line:
        return
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return
    for part in _parts(words):
        if found := _call(part):
            yield Call(where, *found)


def _parts(words: list[str]) -> Iterator[list[str]]:
    """Yields the words between operators of the shell."""
    part: list[str] = []
    for word in words:
        if word in _OPERATORS or set(word) <= set("&|;<>"):
            yield part
            part = []
        else:
            part.append(word)
    yield part


def _call(words: list[str]) -> tuple[str, tuple[str, ...]] | None:
    while words and (_ASSIGNMENT.fullmatch(words[0]) or words[0] == "$"):
        words = words[1:]
    if words[:2] == ["docker", "compose"] and "shoal" in words:
        words = words[words.index("shoal") :]
    if "--" in words and words[0] in ("kubectl", "srun"):
        words = words[words.index("--") + 1 :]
    name = words[0].rpartition("/")[2] if words else ""
    is_call = name in COMMANDS and not (words[1:] and _PRINTED.match(words[1]))
    return (name, tuple(words[1:])) if is_call else None
