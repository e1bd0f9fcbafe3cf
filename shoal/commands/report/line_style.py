"""The colour and dash pattern of each line of a chart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shoal.commands.report.figures import FigureLine
from shoal.commands.report.run_record import RunGroup

COLOURS = 6
"""Number of line colours and dash patterns in the style sheet; further lines reuse them."""


class LineStyle(NamedTuple):
    """The appearance of a line: the numbers of its colour and dash pattern, and its label."""

    colour: int
    dash: int
    label: str


def line_styles(lines: Sequence[FigureLine], groups: Sequence[RunGroup]) -> list[LineStyle]:
    """Returns the style of each line.

    Groups differ by colour and lines of a figure by dashes; if there is only one group or line, by both. Beyond
    COLOURS lines, a colour comes back with another dash pattern.
    """
    many, several = len(groups) > 1, len({line.series for line in lines}) > 1
    return [_style(line, many=many, several=several) for line in lines]


def _style(line: FigureLine, *, many: bool, several: bool) -> LineStyle:
    colour = line.group if many else line.series
    dash = line.series if several else line.group
    return LineStyle(colour % COLOURS, (dash + dash // COLOURS) % COLOURS, line.label)
