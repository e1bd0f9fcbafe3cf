"""Parsing of a scenario's options: a ConfigError names the option, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from common.errors import ConfigError

StructT = TypeVar("StructT", bound=msgspec.Struct)


class OptionRow(msgspec.Struct, frozen=True):
    """One option of a scenario."""

    name: str
    default: Any
    allowed: str


def parse_options(world: str, kind: type[StructT], options: Mapping[str, Any]) -> StructT:
    """Returns the options as a `kind`. Raises ConfigError naming world, option, value and what is allowed."""
    rows = {row.name: row for row in option_rows(kind)}
    for name, value in options.items():
        if name not in rows:
            known = ", ".join(f"{row.name}={row.default!r}" for row in rows.values())
            raise ConfigError(f"{world} has no option {name!r}. Its options and their defaults: {known}.")
        try:
            msgspec.convert({name: value}, kind)
        except msgspec.ValidationError as e:
            raise ConfigError(f"{world}: {name}={value!r} is not allowed; give {rows[name].allowed}.") from e
    return msgspec.convert(dict(options), kind)


def option_rows(kind: type[msgspec.Struct]) -> tuple[OptionRow, ...]:
    """Returns the options of a scenario with their defaults and a text of the allowed values."""
    properties = msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"]
    return tuple(OptionRow(name, schema.get("default"), _allowed_text(schema)) for name, schema in properties.items())


def _allowed_text(schema: Mapping[str, Any]) -> str:
    """Returns the values that a JSON schema allows, as a text."""
    if "anyOf" in schema:
        return " or ".join(_allowed_text(branch) for branch in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(repr(value) for value in schema["enum"])
    texts = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "null": "nothing"}
    kind = texts.get(schema["type"], schema["type"])
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{kind} from {low:g} to {high:g}"
    return kind if low is None else f"{kind}, {low:g} or more"
