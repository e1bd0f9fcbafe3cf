"""The code speaks plain English: retired words stay out, and every option, setting and public name explains itself.

Each check counts per package what is still left, and `LEFT` holds the largest count allowed. The test fails when a
package gets worse, and it names the places. Whoever improves a package lowers its number: `LEFT` only shrinks.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import pytest

from common.process.durations import Duration
from common.run import run
from common.run.run import RunSpec
from shoal.commands.reference.commands import commands
from shoal.commands.reference.source import Source

ROOT = Path(__file__).parents[2]
PACKAGES = ("shoal", "common", "actor_node", "learner_node", "replay_server", "deploy")
LEFT: dict[str, dict[str, int]] = {
    "shoal": {"names": 0, "phrases": 0, "docstrings": 0},
    "common": {"names": 1, "phrases": 0, "docstrings": 0},
    "actor_node": {"names": 0, "phrases": 0, "docstrings": 0},
    "learner_node": {"names": 0, "phrases": 0, "docstrings": 0},
    "replay_server": {"names": 0, "phrases": 0, "docstrings": 0},
    "deploy": {"names": 0, "phrases": 0, "docstrings": 0},
    "options": {"shoal": 0, "replay": 0, "learner": 0, "actor": 0},
}
"""What is left of each check in each package, and of unclear options in each command."""

RETIRED_NAMES = frozenset(
    {
        "told",
        "kept",
        "held",
        "place",
        "places",
        "turn",
        "turns",
        "turned",
        "doing",
        "words",
        "own",
        "showing",
        "judge",
        "judged",
        "judges",
        "brain",
        "ground",
        "playground",
        "landing",
        "course",
        "crowd",
        "hold",
        "holds",
        "look",
        "looked",
        "tell",
        "tells",
        "knock",
        "knocked",
        "witness",
        "vitals",
        "mistake",
        "mistakes",
        "trouble",
        "troubles",
        "parcel",
        "overhang",
        "tally",
        "untaught",
        "taught",
        "anew",
        "shall",
    }
)
"""Parts of identifiers that are not the field's terms."""
NAMES_THAT_STAY = frozenset(
    {
        "Held",  # the message with the tag `held`
        "doing",  # a field of ActorReport, Busy, LearnerReport and ActorStatus
        "tell_apart",  # the setting network.tell_apart
    }
)
"""Identifiers that equal a tag or field on the wire, or a setting."""
RETIRED_PHRASES = {
    "told": r"\btold\b",
    "is had": r"\b(?:is|are|was|were|be) had\b",
    "had from": r"\bhad from\b",
    "anew": r"\banew\b",
    "go on": r"\b(?:go|goes|gone|going|went) on\b",
    "shall": r"\bshall\b",
    "is none": r"(?<!there )\b(?:is|are|was|were) (?-i:none)\b",
    "is no X": r"(?<!there )(?<!that )\b(?:is|are|was|were) no (?!longer\b|more\b|later\b|less\b)",
    "so many": r"\bso (?:many|much|long|often)\b(?! as\b)(?! that\b)",
    "of its own": r"\bof (?:its|their|his|her|our) own\b(?= ?[.,;:)]|$)",
    "begin with": r"\bbegins? (?:with|as)\b",
    "under way": r"\bunder way\b",
    "is begun": r"\b(?:is|was|were) begun\b",
}
"""Phrases of docstrings, comments, help texts and messages that language has better words for."""
TEXTS_THAT_STAY: tuple[str, ...] = ("not told",)  # a verdict in paper.json
"""Texts with a retired phrase that may not change, such as keys of files; a text is left out if it equals one."""

OPTIONS_WITHOUT_UNIT = r"(seed|port|baseline|base-seed)$"
"""Numbers that are no time, size or count."""
_SIZED = r"(^|[-_.])(s|seconds|time|size|bytes|steps|every|period|timeout|capacity|batch)$"
_COUNTED = (
    "Number of|World copies|Approximate transitions|Worker processes|Processes|Episodes|Copies|Runs|Seeds|CPU threads"
    "|Transitions|Environment steps|Batches"
)
_UNIT = re.compile(rf"\[(?!default)[^\[\]]+\]|^(?:{_COUNTED})\b")
"""A unit in brackets, or a text that begins with what is counted."""
_DEFAULT = re.compile(r"\s*\[default: [^\]]*\]$")


class Found(NamedTuple):
    """One place that a check objects to."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def modules(package: str) -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield str(path.relative_to(ROOT)), path.read_text("utf-8")


def defined_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yields each name where it is defined: classes, functions, parameters, variables and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def parts_of(name: str) -> set[str]:
    return {part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)}


def retired_names(package: str) -> Iterator[Found]:
    for where, text in modules(package):
        for line, name in defined_names(ast.parse(text)):
            if name.strip("_") not in NAMES_THAT_STAY and parts_of(name) & RETIRED_NAMES:
                yield Found(f"{where}:{line}", name)


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yields every string and every comment of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def retired_phrases(package: str) -> Iterator[Found]:
    for where, source in modules(package):
        for line, text in texts(source):
            if text in TEXTS_THAT_STAY:
                continue
            flat = " ".join(text.split())
            for phrase, pattern in RETIRED_PHRASES.items():
                for hit in re.finditer(pattern, flat, re.IGNORECASE):
                    yield Found(
                        f"{where}:{line}", f'"{phrase}" in "...{flat[max(hit.start() - 30, 0) : hit.end() + 20]}"'
                    )


def public_docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields the docstrings of a module, and of its public classes, functions and methods."""
    nodes: list[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef] = [tree]
    while nodes:
        node = nodes.pop()
        text = ast.get_docstring(node)
        if text:
            yield getattr(node, "lineno", 1), text
        if isinstance(node, ast.Module | ast.ClassDef):
            nodes += [
                child
                for child in node.body
                if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                and not child.name.startswith("_")
            ]


def unfinished_docstrings(package: str) -> Iterator[Found]:
    for where, source in modules(package):
        for line, text in public_docstrings(ast.parse(source)):
            first = " ".join(text.split("\n\n")[0].split())
            if not re.match(r"[A-Z`]", first) or not first.endswith((".", ".)", ":")):
                yield Found(f"{where}:{line}", first[:80])


def options() -> Iterator[tuple[str, str, click.Option]]:
    for own in commands():
        for option in own.options:
            yield own.name.split()[0], f"{own.name} {option.opts[0]}", option


def lacks(name: str, text: str, *, sized: bool) -> str:
    """Returns what a help text lacks, empty if nothing."""
    if not _DEFAULT.sub("", text).rstrip().endswith("."):
        return "does not end with a period"
    if sized and not re.search(OPTIONS_WITHOUT_UNIT, name) and not _UNIT.search(_DEFAULT.sub("", text)):
        return "names no unit, as in [s]"
    return ""


def is_sized(kind: Any, name: str) -> bool:
    return kind in (int, click.INT) or isinstance(kind, Duration) or bool(re.search(_SIZED, name))


def unclear_options(command: str) -> Iterator[Found]:
    for root, name, option in options():
        if root == command:
            sized = not option.is_flag and is_sized(option.type, name)
            if lack := lacks(name, option.help or "", sized=sized):
                yield Found(name, f"{lack}: {option.help}")


def unclear_settings() -> Iterator[Found]:
    source = Source.of(run)
    for section in msgspec.structs.fields(RunSpec):
        kind = type(getattr(RunSpec("any"), section.name))
        if not issubclass(kind, msgspec.Struct):
            continue
        docs = source.field_docs(kind.__name__)
        for field in msgspec.structs.fields(kind):
            name, value = f"{section.name}.{field.name}", field.default
            first = value[0] if isinstance(value, tuple) and value else value
            sized = is_sized(int if isinstance(first, int) and not isinstance(first, bool) else None, name)
            if lack := lacks(name, docs.get(field.name, ""), sized=sized):
                yield Found(name, f"{lack}: {docs.get(field.name)}")


CHECKS = {"names": retired_names, "phrases": retired_phrases, "docstrings": unfinished_docstrings}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_gets_no_worse(package: str, check: str) -> None:
    found = list(CHECKS[check](package))
    assert len(found) <= LEFT[package][check], "\n".join(map(str, found))


@pytest.mark.parametrize("command", ["shoal", "replay", "learner", "actor"])
def test_options_say_what_they_do_and_in_which_unit(command: str) -> None:
    found = list(unclear_options(command))
    assert len(found) <= LEFT["options"][command], "\n".join(map(str, found))


def test_settings_say_what_they_do_and_in_which_unit() -> None:
    assert [str(found) for found in unclear_settings()] == []


# ---- the checks themselves ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "parts"), [("gap_told", {"gap", "told"}), ("KeptWeights", {"kept", "weights"})])
def test_names_are_split_into_words(name: str, parts: set[str]) -> None:
    assert parts_of(name) == parts


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("It is told and goes on.", {"told", "go on"}),
        ("It is no directory; there is no other.", {"is no X"}),
        ("It is no longer there.", set()),
        ("After so many steps, each of its own.", {"so many", "of its own"}),
    ],
)
def test_phrases_are_found(text: str, phrases: set[str]) -> None:
    found = {phrase for phrase, pattern in RETIRED_PHRASES.items() if re.search(pattern, text)}
    assert found == phrases


@pytest.mark.parametrize(
    ("text", "lack"),
    [
        ("Time to wait [s]; 0 waits forever.  [default: 5]", ""),
        ("Time to wait [s]", "does not end with a period"),
        ("Time to wait.  [default: 5]", "names no unit, as in [s]"),
        ("Episodes to play.", ""),
    ],
)
def test_help_texts_are_judged(text: str, lack: str) -> None:
    assert lacks("replay --wait", text, sized=True) == lack
