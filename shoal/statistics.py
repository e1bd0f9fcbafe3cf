"""Means over independent runs: Student's t interval, and the interquartile mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# 97.5 % quantiles of Student's t distribution (1908) for 1 to 30 degrees of freedom, and of the normal distribution.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_NORMAL = 1.959964


def t_quantile(runs: int) -> float:
    """Returns the half-width of the 95 % interval of a mean over `runs` runs, in standard errors."""
    freedom = runs - 1
    if freedom <= len(_T):
        return _T[freedom - 1]
    # Beyond the table, the expansion about the normal quantile (Fisher 1925) is exact to 1e-4.
    return _NORMAL + (_NORMAL**3 + _NORMAL) / (4 * freedom)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the mean of independent runs and its 95 % interval (Student's t); NaN for fewer than two values."""
    known = np.array([value for value in values if math.isfinite(value)])
    if len(known) < 2:
        return (float(known.mean()) if len(known) else math.nan), math.nan, math.nan
    half = t_quantile(len(known)) * known.std(ddof=1) / math.sqrt(len(known))
    return float(known.mean()), float(known.mean() - half), float(known.mean() + half)


def interquartile_mean(values: Sequence[float]) -> float:
    """Returns the mean of the middle half of the values; values at the quartiles count fractionally."""
    ordered, cut = sorted(values), len(values) / 4
    weights = [max(0.0, min(i + 1.0, len(ordered) - cut) - max(float(i), cut)) for i in range(len(ordered))]
    return sum(weight * value for weight, value in zip(weights, ordered, strict=True)) / sum(weights)
