"""Values of settings as a user writes them, and options of worlds: plain data, including lists, tables and none.

TOML has no none: in `run.toml`, in a `--config` file and inside a list, write `{none = true}`.
"""

from __future__ import annotations

import ast
import json
import math
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from common.errors import ConfigError
from common.run.validation_errors import shorten

_NONE = {"none": True}
_MAX_DEPTH = 8
_MAX_VALUES = 10_000
_MAX_TEXT_CHARACTERS = 1_000
_MAX_INT = 2**63 - 1
_BOOLEANS = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
_CHOICES = ("yes", "no", "on", "off")
_NONES = ("none", "null", "nil")
_PYTHON_NAMES = {**dict.fromkeys(_NONES), "true": True, "false": False}
_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NUMBERS = re.compile(r"[+-]?[\d.]+(\s*,\s*[+-]?[\d.]+)+,?")


def read_value(text: str, assignment: str, *, typed: bool = False) -> Any:
    """Reads the value of a `--set` assignment as TOML; `none` is None, and other bare words are texts.

    typed: whether the setting has a declared type, so that a word such as `off` may be one of its choices.
    Raises ConfigError with the correct spelling for text that looks like a misspelt number, boolean, none or list.
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        pass
    if text in {"none", "null"}:
        return None
    if (typed and text in _CHOICES) or not _looks_like_a_value(text):
        return text
    name, _, _ = assignment.partition("=")
    meant = _correct_spelling(text)
    write = (
        f"write {shorten(meant)}" if meant else "write a list as [1, 2], a table as {a = 1}, a text in double quotes"
    )
    raise ConfigError(
        f"--set {shorten(assignment)}: {shorten(text)} cannot be read; {write}; for the text, write"
        f" '{shorten(name)}={shorten(json.dumps(text))}'."
    )


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options of a world as plain data: tuples as lists, `{none = true}` as None.

    Raises ValueError that names the option, its value and what is allowed.
    """
    count = [0]
    return {name: _plain(value, f"world.{name}", 1, count) for name, value in options.items()}


def spell_none(value: Any) -> Any:
    """Returns plain data in which None is spelled `{none = true}`, as TOML requires."""
    if value is None:
        return dict(_NONE)
    if isinstance(value, dict):
        return {key: spell_none(item) for key, item in value.items()}
    return [spell_none(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any, name: str, depth: int, count: list[int]) -> Any:
    count[0] += 1
    if depth > _MAX_DEPTH or count[0] > _MAX_VALUES:
        raise ValueError(
            f"{shorten(name)}: at most {_MAX_DEPTH} levels of lists and tables, and {_MAX_VALUES} values in all"
        )
    if isinstance(value, Mapping):
        if value == _NONE:
            return None
        wrong_keys = [key for key in value if not isinstance(key, str)]
        if wrong_keys:
            raise ValueError(f"{shorten(name)} has the key {shorten(repr(wrong_keys[0]))}: keys of tables are texts")
        return {key: _plain(item, f"{name}.{key}", depth + 1, count) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{name}[{i}]", depth + 1, count) for i, item in enumerate(value)]
    if reason := _refusal(value):
        raise ValueError(f"{shorten(name)} = {shorten(repr(value))}: {reason}")
    return value


def _refusal(value: Any) -> str:
    if isinstance(value, str):
        return f"a text has at most {_MAX_TEXT_CHARACTERS} characters" if len(value) > _MAX_TEXT_CHARACTERS else ""
    if isinstance(value, int):  # and bool
        return "" if abs(value) <= _MAX_INT else "a whole number has at most 63 bits"
    if isinstance(value, float):
        return "" if math.isfinite(value) else "a number is finite; write a text in quotes"
    expected = "expected a number, a text, true, false, none, a list or a table"
    return "" if value is None else f"{expected}; write a {type(value).__name__} as a text in quotes"


def _looks_like_a_value(text: str) -> bool:
    word = text.lower()
    return (
        word in _BOOLEANS
        or word in _NONES
        or text[:1] in {"(", "[", "{", '"', "'"}
        or bool(_NUMBER.fullmatch(text) or _NUMBERS.fullmatch(text))
    )


def _correct_spelling(text: str) -> str:
    """Returns how TOML spells the value that was probably meant; empty if unknown."""
    word = text.lower()
    if word in _NONES:
        return "none"
    if word in _BOOLEANS:
        return _BOOLEANS[word]
    try:
        if _NUMBER.fullmatch(text):
            return str(int(text)) if re.fullmatch(r"[+-]?[\d_]+", text) else str(float(text))
        return _to_toml(ast.literal_eval(_NamesAsValues().visit(ast.parse(text.strip(), mode="eval"))))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ""


class _NamesAsValues(ast.NodeTransformer):
    """Replaces the names of a Python expression by values: `none` and its like by None, other names by texts."""

    def visit_Name(self, node: ast.Name) -> ast.Constant:
        return ast.Constant(_PYTHON_NAMES.get(node.id.lower(), node.id))


def _to_toml(value: Any) -> str:
    """Writes plain data as one line of TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_to_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_to_toml(item) for item in value) + "]"
    return "{none = true}" if value is None else json.dumps(value)
