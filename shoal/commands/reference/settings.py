"""The page of a run's settings: allowed values, default and meaning by section, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect as kinds

from common.run import run
from common.run.presets import PRESETS
from common.run.run import RunSpec
from shoal.commands.reference import markdown as md
from shoal.commands.reference.source import Source

_UNBOUNDED = 1e12
"""A bound this large, or its inverse, only excludes infinity and NaN."""
_SECTIONS = tuple(
    name for name in RunSpec.__struct_fields__ if isinstance(getattr(RunSpec("any"), name), msgspec.Struct)
)

_INTRODUCTION = """
These settings define a run. `--set section.key=value` sets one of them, a section of the file given with `--config`
sets several, and `--preset` replaces the defaults. The run's directory stores them in `run.toml`. An invalid setting is
refused before anything starts; the message names the setting, its value and the allowed values.
[algorithms.md](../algorithms.md) gives the reasons for the defaults.
"""


def settings_page() -> str:
    """Returns the page as Markdown."""
    source = Source.of(run)
    sections = [_section(source, name) for name in _SECTIONS]
    return md.page("Settings of a run", _INTRODUCTION, _top(source), *sections, _presets())


def _top(source: Source) -> str:
    rows = [row for row in _rows(source, RunSpec) if row[0].strip("`") not in _SECTIONS]
    note = "[Scenarios](scenarios.md) lists the options of each world."
    return f"## The run\n\n{_table(rows)}\n\n{note}"


def _section(source: Source, name: str) -> str:
    kind = type(getattr(RunSpec("any"), name))
    return f"## {name}\n\n{kind.__doc__}\n\n{_table(_rows(source, kind, f'{name}.'))}"


def _rows(source: Source, kind: type[msgspec.Struct], prefix: str = "") -> list[list[str]]:
    docs = source.field_docs(kind.__name__)
    return [
        [
            md.code(prefix + field.name),
            _allowed_text(kinds.type_info(field.type)),
            _value(field),
            docs.get(field.name, ""),
        ]
        for field in msgspec.structs.fields(kind)
    ]


def _table(rows: list[list[str]]) -> str:
    return md.table(["setting", "allowed", "default", "meaning"], rows)


def _presets() -> str:
    """Returns the table of the settings in which a preset differs from the defaults."""
    names = [name for name, departures in PRESETS.items() if departures]
    flat = {name: _flat(PRESETS[name]) for name in names}
    defaults = _flat(msgspec.to_builtins(RunSpec("any")))
    keys = sorted({key for preset in flat.values() for key in preset})
    rows = [
        [md.code(key), *(_plain(preset.get(key, defaults.get(key))) for preset in ({}, *flat.values()))]
        for key in keys
        if any(preset.get(key, defaults.get(key)) != defaults.get(key) for preset in flat.values())
    ]
    header = ["setting", "`particle`, the defaults", *(md.code(name) for name in names)]
    return "## Presets\n\n" + md.table(header, rows)


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{section}.{key}": list(value) if isinstance(value, tuple | list) else value
        for section, table in settings.items()
        if isinstance(table, Mapping)
        for key, value in table.items()
    }


def _value(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    return _plain(field.default_factory() if field.default is msgspec.NODEFAULT else field.default)


def _plain(value: Any) -> str:
    """Returns a value as written in TOML."""
    if value is None or value in ("", {}):
        return "none"
    if isinstance(value, bool):
        return md.code(str(value).lower())
    if isinstance(value, tuple | list):
        return md.code(f"[{', '.join(str(one) for one in value)}]")
    return md.code(f"{value:.6g}" if isinstance(value, float) else f"{value:_}" if isinstance(value, int) else value)


def _allowed_text(kind: kinds.Type) -> str:
    """Returns a description of the values that a type allows."""
    match kind:
        case kinds.IntType():
            text = f"whole number{_bounds(kind)}"
        case kinds.FloatType():
            text = f"number{_bounds(kind)}"
        case kinds.LiteralType():
            text = " or ".join(md.code(value) for value in kind.values)
        case kinds.VarTupleType():
            text = f"list of {kind.min_length} to {kind.max_length}: {_allowed_text(kind.item_type)}"
        case kinds.DictType():
            text = f"table by name: {_allowed_text(kind.value_type)}"
        case kinds.UnionType():
            text = " or ".join(_allowed_text(one) for one in kind.types if not isinstance(one, kinds.NoneType))
        case kinds.BoolType():
            text = "true or false"
        case _:
            text = "text"
    return text


def _bounds(kind: kinds.IntType | kinds.FloatType) -> str:
    """Returns a description of the bounds of a number, without bounds that only exclude infinity."""
    low = kind.ge if kind.ge is not None else kind.gt
    high = kind.le if kind.le is not None else None if kind.lt is None else kind.lt - 1
    is_open = low is not None and (kind.ge is None or 0 < low <= 1 / _UNBOUNDED)
    has_low = low is not None and low > -_UNBOUNDED
    has_high = high is not None and high < _UNBOUNDED
    if has_low and has_high:
        return f" above 0, to {_number(high)}" if is_open else f" from {_number(low)} to {_number(high)}"
    if has_low:
        return " above 0" if is_open else f", {_number(low)} or more"
    return f", {_number(high)} at most" if has_high else ""


def _number(bound: float | None) -> str:
    """Returns a bound as text, without decimals if it is whole.

    typing caches equal annotations, so the type of an equal bound, such as 1 or 1.0, depends on the order of imports.
    """
    return "" if bound is None else f"{int(bound):,}" if bound == int(bound) else f"{bound:,}"
