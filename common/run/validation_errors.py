"""Validation errors for people: which setting is wrong, the value that was written, and what is allowed.

msgspec says "Invalid enum value 'ppo' - at `$.algorithm.name`". A user reads
"algorithm.name = 'ppo': not one of 'maddpg'."
"""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

MAX_SHOWN_CHARACTERS = 200
"""Longest name or value that a message repeats [characters]."""
_MAX_SUGGESTIONS = 3
_TYPE_CHOICES: dict[Any, tuple[str, ...]] = {
    bool: ("true", "false"),
    int: ("a number",),
    float: ("a number",),
    types.NoneType: ("none",),
}
_STEP = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")


class _Field(NamedTuple):
    """A field of the settings, or an item of one."""

    path: str
    """As a user writes it: replay.batch, network.policy_hidden[1]; empty for the root."""
    value: Any
    kind: Any
    """The expected type, without Annotated and `| None`."""
    default: Any = None
    choices: tuple[str, ...] = ()
    """What the setting allows, if that can be listed."""


def explain(error: msgspec.ValidationError, settings: Mapping[str, Any], root: type[msgspec.Struct]) -> str:
    """Rewrites msgspec's message so that it names the setting, its value, and what is allowed or was meant."""
    text, _, path = str(error).rpartition(" - at `$")
    if not text:
        text, path = path, ""
    field = _find(path.removesuffix("`"), settings, root)
    if unknown := re.search(r"unknown field `(.*)`", text, re.DOTALL):
        name = _join(field.path, unknown[1])
        return _sentence(f"{shorten(name)} is not a setting; {_suggest_setting(unknown[1], field, root)}")
    if not field.path:
        return _sentence(text)
    return _sentence(f"{shorten(field.path)} = {shorten(repr(field.value))}: {_expected(text, field)}")


def suggest(written: str, known: Iterable[str]) -> str:
    """Returns "did you mean ...?" with the names close to the written one, or "known: ..." with all names."""
    names = list(known)
    return _did_you_mean(_close(written, names)) or f"known: {', '.join(names)}"


def shorten(text: str) -> str:
    """Returns a text of at most `MAX_SHOWN_CHARACTERS` characters: longer ones are cut and end with "..."."""
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[: MAX_SHOWN_CHARACTERS - 3]}..."


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


def _suggest_setting(written: str, section: _Field, root: type[msgspec.Struct]) -> str:
    """Returns the settings that were probably meant: of this section first, then of all sections."""
    names = _field_names(section.kind)
    endings = [name for name in names if name.endswith(f"_{written}")]
    in_section = [_join(section.path, name) for name in endings]
    paths = [f"{key}.{name}" for key, kind in _field_types(root).items() for name in _field_names(_bare(kind))]
    exact = [path for path in paths if path.partition(".")[2] == written]
    if found := in_section + exact:
        return _did_you_mean(found)
    if found := [_join(section.path, name) for name in _close(written, names)]:
        return _did_you_mean(found)
    elsewhere = [
        path for path in paths if path.partition(".")[2] in _close(written, [p.partition(".")[2] for p in paths])
    ]
    if not section.path and not isinstance(section.value.get(written), Mapping):
        # An option of the world that is written without its section.
        elsewhere += [shorten(f"{key}.{written}") for key, kind in _field_types(root).items() if kind == dict[str, Any]]
    return _did_you_mean(elsewhere) or f"known: {', '.join(names)}"


def _did_you_mean(names: list[str]) -> str:
    return f"did you mean {' or '.join(names[:_MAX_SUGGESTIONS])}?" if names else ""


def _close(written: str, names: list[str]) -> list[str]:
    return difflib.get_close_matches(shorten(written), names, n=2)


def _expected(text: str, field: _Field) -> str:
    # Bounds of a number are in msgspec's text; what it expected instead of another type is not.
    if field.choices and ("enum value" in text or ", got `" in text):
        close = difflib.get_close_matches(shorten(str(field.value)), [c.strip("'") for c in field.choices], n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        return f"not one of {', '.join(field.choices)}{meant}"
    if "Expected `object`" in text:
        names = ", ".join(_field_names(field.kind))
        return f"a section of settings, not one value{f'; it contains {names}' if names else ''}"
    hint = f"; write {example}" if "Expected `array`, got" in text and (example := _list_example(field)) else ""
    return f"{text[0].lower()}{text[1:]}{hint}"


def _choices(kind: Any) -> tuple[str, ...]:
    """Returns what a setting allows that takes words, or values of several types: 'auto', true, a number, none."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _choices(parts[0])
    if origin is typing.Literal:
        return tuple(map(repr, parts))
    if origin in (types.UnionType, typing.Union):
        return tuple(choice for part in parts for choice in _choices(part) or _TYPE_CHOICES.get(_bare(part), ()))
    return ()


def _list_example(field: _Field) -> str:
    """Returns the list that was probably meant by one value: the value, as often as the default has items."""
    example = _listed(field.value, field.kind, len(field.default) if isinstance(field.default, tuple) else 1)
    try:
        msgspec.convert(example, field.kind)
        return json.dumps(example)
    except (msgspec.ValidationError, TypeError):
        return "a list in brackets"


def _listed(value: Any, kind: Any, count: int) -> Any:
    if typing.get_origin(kind) is not tuple or isinstance(value, list | tuple):
        return value
    return [_listed(value, _bare(typing.get_args(kind)[0]), 1)] * max(count, 1)


def _find(path: str, settings: Mapping[str, Any], root: type[msgspec.Struct]) -> _Field:
    """Follows a path of msgspec's (`.replay.batch`, `.world[...]`, `.policy_hidden[1]`)."""
    field = _Field("", settings, root)
    for key, index in _STEP.findall(path):
        if key:
            field = _enter(field, key, _field_types(field.kind).get(key))
        elif index == "...":
            kind = (*typing.get_args(field.kind), None)[1]
            field = _enter(field, _first_invalid(field.value, kind), kind)
        else:
            kind = (*typing.get_args(field.kind), None)[0]
            field = _Field(f"{field.path}[{index}]", field.value[int(index)], _bare(kind), choices=_choices(kind))
    return field


def _enter(field: _Field, key: str, kind: Any) -> _Field:
    value = field.value.get(key) if isinstance(field.value, Mapping) else field.value
    return _Field(_join(field.path, key), value, _bare(kind), _default(field.kind, key), _choices(kind))


def _first_invalid(table: Mapping[str, Any], kind: Any) -> str:
    """Returns the first key whose value does not fit the type: msgspec names none for a table with free keys."""
    for key, value in table.items():
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            return key
    return "..."


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _bare(kind: Any) -> Any:
    """Strips Annotated and `| None`."""
    while True:
        choices = [choice for choice in typing.get_args(kind) if choice is not types.NoneType]
        is_union = typing.get_origin(kind) in (types.UnionType, typing.Union)
        if typing.get_origin(kind) is not Annotated and not (is_union and len(choices) == 1):
            return kind
        kind = choices[0]


def _fields(kind: Any) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind) if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else ()


def _field_types(kind: Any) -> dict[str, Any]:
    return {field.name: field.type for field in _fields(kind)}


def _field_names(kind: Any) -> list[str]:
    return [field.name for field in _fields(kind)]


def _default(kind: Any, key: str) -> Any:
    return next((field.default for field in _fields(kind) if field.name == key), None)
