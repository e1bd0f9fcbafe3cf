"""Values of settings as a user writes them, and options of worlds: plain data of any depth, none included.

TOML has no word for none: in `run.toml`, in a `--config` file and inside a list, none is written `{none = true}`.
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

_NONE = {"none": True}
_DEEPEST = 8
_MOST_VALUES = 10_000
_LONGEST_TEXT = 1_000
_LARGEST_INT = 2**63 - 1
_BOOLEANS = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
_CHOICES = ("yes", "no", "on", "off")
_NONES = ("none", "null", "nil")
_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NUMBERS = re.compile(r"[+-]?[\d.]+(\s*,\s*[+-]?[\d.]+)+,?")


def read_value(text: str, assignment: str, *, typed: bool = False) -> Any:
    """Reads the value of a `--set` assignment: as in TOML; `none` is None, and other bare words are texts.

    typed: the setting has a type of its own, so that a word such as `off` may be one of its choices.
    Raises ConfigError with the right spelling for what looks like another kind of value.
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
    meant = _meaning(text)
    write = f"write {meant}" if meant else "write a list as [1, 2], a table as {a = 1}, a text in double quotes"
    raise ConfigError(f"--set {assignment}: {text} cannot be read; {write}; for the text: '{name}={json.dumps(text)}'")


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options of a world as plain data: tuples as lists, `{none = true}` as None.

    Raises ValueError that names the option, its value and what is allowed.
    """
    counted = [0]
    return {name: _plain(value, f"world.{name}", 1, counted) for name, value in options.items()}


def spell_none(value: Any) -> Any:
    """Returns plain data in which None is spelled as TOML can hold it."""
    if value is None:
        return dict(_NONE)
    if isinstance(value, dict):
        return {key: spell_none(part) for key, part in value.items()}
    return [spell_none(part) for part in value] if isinstance(value, list) else value


def _plain(value: Any, name: str, depth: int, counted: list[int]) -> Any:
    counted[0] += 1
    if depth > _DEEPEST or counted[0] > _MOST_VALUES:
        raise ValueError(f"{name}: at most {_DEEPEST} levels of lists and tables, and {_MOST_VALUES} values in all")
    if isinstance(value, Mapping):
        if value == _NONE:
            return None
        strange = [key for key in value if not isinstance(key, str)]
        if strange:
            raise ValueError(f"{name} has the key {strange[0]!r}: keys of tables are texts")
        return {key: _plain(part, f"{name}.{key}", depth + 1, counted) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, f"{name}[{i}]", depth + 1, counted) for i, part in enumerate(value)]
    if reason := _refusal(value):
        raise ValueError(f"{name} = {value!r}: {reason}")
    return value


def _refusal(value: Any) -> str:
    if isinstance(value, str):
        return f"a text has at most {_LONGEST_TEXT} characters" if len(value) > _LONGEST_TEXT else ""
    if isinstance(value, int):  # and bool
        return "" if abs(value) <= _LARGEST_INT else "a whole number has at most 63 bits"
    if isinstance(value, float):
        return "" if math.isfinite(value) else "a number is finite; write a text in quotes"
    kinds = "expected a number, a text, true, false, none, a list or a table"
    return "" if value is None else f"{kinds}; write a {type(value).__name__} as a text in quotes"


def _looks_like_a_value(text: str) -> bool:
    word = text.lower()
    return (
        word in _BOOLEANS
        or word in _NONES
        or text[:1] in {"(", "[", "{", '"', "'"}
        or bool(_NUMBER.fullmatch(text) or _NUMBERS.fullmatch(text))
    )


def _meaning(text: str) -> str:
    """Returns how TOML spells what was probably meant; empty where that cannot be told."""
    word = text.lower()
    if word in _NONES:
        return "none"
    if word in _BOOLEANS:
        return _BOOLEANS[word]
    try:
        if _NUMBER.fullmatch(text):
            return str(int(text)) if re.fullmatch(r"[+-]?[\d_]+", text) else str(float(text))
        return _spell(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ""


def _spell(value: Any) -> str:
    """Writes plain data as one line of TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_spell(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_spell(part) for part in value) + "]"
    return "{none = true}" if value is None else json.dumps(value)
