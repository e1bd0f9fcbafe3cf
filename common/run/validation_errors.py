"""A user's mistake in words: which setting, what was written there, and what may be.

msgspec says "Invalid enum value 'ppo' - at `$.algorithm.name`". A user reads
"algorithm.name = 'ppo': not one of 'maddpg'".
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

_STEP = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")


class Place(NamedTuple):
    """Where in some settings a mistake is."""

    name: str
    """As a user writes it: replay.batch, network.policy_hidden[1]; empty for the whole."""
    value: Any
    kind: Any
    """The type that is wanted there."""


def explain(error: msgspec.ValidationError, settings: Mapping[str, Any], root: type[msgspec.Struct]) -> str:
    """Turns msgspec's message into one that names the setting, its value, and what is allowed or was meant."""
    text, _, path = str(error).rpartition(" - at `$")
    if not text:
        text, path = path, ""
    place = _find(path.removesuffix("`"), settings, root)
    if unknown := re.search(r"unknown field `(.*)`", text):
        name = f"{place.name}.{unknown[1]}" if place.name else unknown[1]
        return f"{name} is not a setting; {suggest(unknown[1], _field_names(place.kind))}"
    if not place.name:
        return text
    return f"{place.name} = {place.value!r}: {_wanted(text, place)}"


def suggest(written: str, known: Iterable[str]) -> str:
    """Returns "did you mean ...?" with the names close to what was written, or all that are known."""
    names = list(known)
    close = difflib.get_close_matches(written, names, n=2)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"


def _wanted(text: str, place: Place) -> str:
    if typing.get_origin(place.kind) is typing.Literal:
        allowed = typing.get_args(place.kind)
        close = difflib.get_close_matches(str(place.value), [str(choice) for choice in allowed], n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        return f"not one of {', '.join(repr(choice) for choice in allowed)}{meant}"
    if "Expected `object`" in text:
        names = ", ".join(_field_names(place.kind))
        return f"a section of settings, not one value{f'; it holds {names}' if names else ''}"
    return f"{text[0].lower()}{text[1:]}"


def _find(path: str, settings: Mapping[str, Any], root: type[msgspec.Struct]) -> Place:
    """Follows a path of msgspec's (`.replay.batch`, `.world[...]`, `.policy_hidden[1]`)."""
    place = Place("", settings, root)
    for key, index in _STEP.findall(path):
        if key:
            place = _enter(place, key, _field_types(place.kind).get(key))
        elif index == "...":
            kind = (*typing.get_args(place.kind), None)[1]
            place = _enter(place, _first_misfit(place.value, kind), kind)
        else:
            kind = (*typing.get_args(place.kind), None)[0]
            place = Place(f"{place.name}[{index}]", place.value[int(index)], _bare(kind))
    return place


def _enter(place: Place, key: str, kind: Any) -> Place:
    value = place.value.get(key) if isinstance(place.value, Mapping) else place.value
    return Place(f"{place.name}.{key}" if place.name else key, value, _bare(kind))


def _first_misfit(table: Mapping[str, Any], kind: Any) -> str:
    """Returns the key whose value is not of the kind: msgspec names none for a table with free keys."""
    for key, value in table.items():
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            return key
    return "..."


def _bare(kind: Any) -> Any:
    """Strips Annotated and `| None`."""
    while True:
        choices = [choice for choice in typing.get_args(kind) if choice is not types.NoneType]
        is_union = typing.get_origin(kind) in (types.UnionType, typing.Union)
        if typing.get_origin(kind) is not Annotated and not (is_union and len(choices) == 1):
            return kind
        kind = choices[0]


def _field_types(kind: Any) -> dict[str, Any]:
    is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    return {field.name: field.type for field in msgspec.structs.fields(kind)} if is_struct else {}


def _field_names(kind: Any) -> list[str]:
    return list(_field_types(kind))
