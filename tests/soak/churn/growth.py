"""How fast a figure of a role's processes grows: one slope over all lives, with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from shoal.statistics import t_quantile

BLOCK_S = 60.0
"""Samples of one minute count as one observation: neighbouring samples of a process are nearly the same."""
_HOUR_S = 3_600.0


class Slope(NamedTuple):
    """Growth an hour, with its 95 % interval; NaN where there is too little to say."""

    per_hour: float
    low: float
    high: float
    hours: float
    """Observed time of all lives together."""


def pooled_slope(lives: Iterable[Sequence[tuple[float, float]]]) -> Slope:
    """Returns the least-squares slope that all lives share, each with a level of its own.

    lives: of each life its samples, (age in seconds, value). The interval is robust to residuals that depend on each
    other within a block of BLOCK_S (the sandwich estimator with clusters; Liang and Zeger 1986).
    """
    ages, values, blocks, seconds, count = [np.zeros(0)], [np.zeros(0)], [np.zeros(0, int)], 0.0, 0
    for life in lives:
        if len(life) < 2:
            continue
        age, value = np.array(life, np.float64).T
        seconds += float(age[-1] - age[0])
        ages.append(age - age.mean())
        values.append(value - value.mean())
        block = ((age - age[0]) // BLOCK_S).astype(int)
        blocks.append(count + block)
        count += int(block[-1]) + 1
    x, y = np.concatenate(ages), np.concatenate(values)
    spread = float(x @ x)
    if not spread:
        return Slope(math.nan, math.nan, math.nan, seconds / _HOUR_S)
    slope = float(x @ y) / spread
    scores = np.bincount(np.concatenate(blocks), x * (y - slope * x))
    half = math.nan
    if count > 2:
        half = t_quantile(count) * math.sqrt(count / (count - 1) * float(scores @ scores)) / spread
    return Slope(slope * _HOUR_S, (slope - half) * _HOUR_S, (slope + half) * _HOUR_S, seconds / _HOUR_S)
