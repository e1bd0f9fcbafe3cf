"""Round values and their labels for the axes of charts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shoal.number_format import with_minus_sign


def linear_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Returns at most `most` + 1 round values (1, 2 or 5 times a power of ten apart) within low..high."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    power = 10 ** math.floor(math.log10(span / most))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if span / (factor * power) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Returns round values within low..high for a logarithmic axis, closer together where there are fewer decades."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**d for d in decades for f in factors if low * 0.999 <= f * 10.0**d <= high * 1.001]
        if len(ticks) <= most:
            return ticks
    return ticks[:: math.ceil(len(ticks) / most)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Returns the labels of a linear axis: k, M and G for thousands, millions and billions, and the decimals needed."""
    largest = max(map(abs, ticks), default=0.0)
    scale, unit = next(((s, u) for s, u in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if largest >= s), (1.0, ""))
    scaled = [tick / scale for tick in ticks]
    decimals = next(d for d in range(10) if d == 9 or all(_is_exact(value, d) for value in scaled))
    return [with_minus_sign(f"{value:.{decimals}f}{unit if value else ''}") for value in scaled]


def log_tick_labels(ticks: Sequence[float]) -> list[str]:
    """Returns the labels of a logarithmic axis, each with the digits it needs."""
    return [with_minus_sign(f"{tick:g}") for tick in ticks]


def _is_exact(value: float, decimals: int) -> bool:
    return abs(value - round(value, decimals)) <= 1e-6 * max(1.0, abs(value))
