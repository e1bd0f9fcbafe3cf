"""Durations: options that accept seconds or texts such as 5m and 1h30m, and durations as text."""

from __future__ import annotations

import re
from typing import Annotated, Any

import click
from msgspec import Meta

_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Duration(click.ParamType[float]):
    """The option type of a duration: 300, 90s, 5m, 1h30m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the duration [s]."""
        if isinstance(value, int | float):
            return float(value)
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", value)
        if parts and "".join(number + unit for number, unit in parts) == value:
            return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is not a duration. Write 300, 90s, 5m or 1h30m.", param, ctx)


Seconds = Annotated[float, Meta(ge=0, extra={"param": Duration()})]
"""A duration [s]."""


def format_duration(seconds: float) -> str:
    """Returns a duration as m:ss or h:mm:ss, rounded down."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
