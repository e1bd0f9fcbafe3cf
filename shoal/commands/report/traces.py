"""Lines of a chart: means over runs with their 95 % bands, and lines thinned to the points that a chart can show."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from actor_node.evaluation.rollouts.episodes import Float64s
from shoal.statistics import t_quantile

MAX_POINTS = 200
"""Most points of a line on a chart: more than one in two pixels cannot be distinguished."""


class Trace(NamedTuple):
    """One line: x ascending, y with NaN for unknown values; both [points]."""

    x: Float64s
    y: Float64s


class Band(NamedTuple):
    """A mean over runs and its 95 % interval; all [points]."""

    x: Float64s
    y: Float64s
    low: Float64s
    high: Float64s


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
