"""Shell lines of the pages that call Shoal's commands, as words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from tests.docs.pages import blocks, spans

COMMANDS = ("shoal", "replay", "learner", "actor")
_OPERATORS = {"&", "&&", "|", "||", ";", ">", ">>", "<", "2>"}
_PRINTED = re.compile(r"[\d=]")
"""How the second word begins where the line is what a command printed, or a key of a file."""
_ASSIGNMENT = re.compile(r"[A-Z_]+=.*")


class Call(NamedTuple):
    """One call of a command of ours."""

    where: str
    name: str
    arguments: tuple[str, ...]
    is_whole: bool = True
    """Whether it could be typed as it is; in a line of text an option's value may be left out."""
    refusal: str = ""
    """What the page shows as the command's answer, where it does not take the call."""

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join([self.name, *self.arguments])}"


def calls(page: str) -> Iterator[Call]:
    """Yields the calls in a page's blocks of commands, and those in its text that have an option."""
    for block in blocks(page):
        if block.language in ("", "sh", "bash", "console"):
            text = block.text.replace("\\\n", " ")
            lines = text.splitlines()
            for i, line in enumerate(lines):
                for call in _in_line(f"{page}:{block.line + i}", line):
                    answer, said = f"{call.name}: ", lines[i + 1] if i + 1 < len(lines) else ""
                    yield call._replace(refusal=said.removeprefix(answer)) if said.startswith(answer) else call
    for span in spans(page):
        if " --" in span or " -o" in span:
            yield from (call._replace(is_whole=False) for call in _in_line(page, span))


def _in_line(where: str, line: str) -> Iterator[Call]:
    """Yields the calls in one line; a line that is no shell is none, nor is one that leaves something out."""
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
    """Yields what stands between operators of the shell."""
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
