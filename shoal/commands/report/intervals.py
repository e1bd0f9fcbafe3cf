"""Means with 95 % intervals over runs, and lines thinned to the points that a chart can show."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from shoal.commands.report.history import Floats

MAX_POINTS = 200
"""Most points of a line on a chart: more than one in two pixels cannot be distinguished."""

# 97.5 % quantiles of Student's t distribution (1908) for 1 to 30 degrees of freedom, and of the normal distribution.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_NORMAL = 1.959964


class Trace(NamedTuple):
    """One line: x ascending, y with NaN for unknown values; both [points]."""

    x: Floats
    y: Floats


class Band(NamedTuple):
    """A mean over runs and its 95 % interval; all [points]."""

    x: Floats
    y: Floats
    low: Floats
    high: Floats


def thinned(trace: Trace, most: int = MAX_POINTS) -> Trace:
    """Returns a line with at most `most` points: means of equal bins, and the last point unchanged."""
    if len(trace.x) <= most:
        return trace
    edges = np.linspace(0, len(trace.x) - 1, most).astype(int)
    bins = list(pairwise(edges))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a bin of only NaN has no mean and is not drawn
        x, y = ([float(np.nanmean(values[a:b])) for a, b in bins] for values in trace)
    return Trace(np.array([*x, trace.x[-1]]), np.array([*y, trace.y[-1]]))


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


def band(traces: Sequence[Trace], *, log: bool = False) -> Band | None:
    """Returns the mean over runs and its 95 % band over the range that all runs share; None if there is none.

    log: average logarithms (geometric means), for a logarithmic axis.
    """
    known = [_finite(trace) for trace in traces]
    if len(known) < 2 or any(len(trace.x) < 2 for trace in known):
        return None
    first, last = max(trace.x[0] for trace in known), min(trace.x[-1] for trace in known)
    if first >= last:
        return None
    x = np.linspace(first, last, MAX_POINTS)
    rows = np.array([np.interp(x, trace.x, np.log(trace.y) if log else trace.y) for trace in known])
    mean = rows.mean(axis=0)
    half = t_quantile(len(rows)) * rows.std(axis=0, ddof=1) / math.sqrt(len(rows))
    undo = np.exp if log else np.asarray
    return Band(x, undo(mean), undo(mean - half), undo(mean + half))


def _finite(trace: Trace) -> Trace:
    known = np.isfinite(trace.y) & np.isfinite(trace.x)
    return Trace(trace.x[known], trace.y[known])
