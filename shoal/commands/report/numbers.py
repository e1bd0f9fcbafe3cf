"""Numbers as people read them, and round values for the axes of charts."""

from __future__ import annotations

import math
from collections.abc import Sequence

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"


def in_words(value: float, digits: int = 3) -> str:
    """Returns a number with so many significant digits and grouped thousands; a dash where there is none."""
    if not math.isfinite(value):
        return NOTHING
    size = abs(value)
    if size >= 10 ** (digits - 1):
        return _signed(f"{value:,.0f}")
    if 0 < size < 1e-3:
        return _signed(f"{value:.{digits - 1}e}")
    decimals = digits - 1 - math.floor(math.log10(size)) if size else 0
    return _signed(f"{value:,.{min(decimals, 6)}f}")


def brief(value: float, digits: int = 3) -> str:
    """Returns a number as `in_words` does, without zeros at its end: for text, where no column is to be aligned."""
    text = in_words(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def fixed(value: float, decimals: int = 2) -> str:
    """Returns a number with so many decimals; a dash where there is none."""
    return _signed(f"{value:,.{decimals}f}") if math.isfinite(value) else NOTHING


def share(value: float) -> str:
    """Returns a share of one as a percentage."""
    return f"{100 * value:.0f} %" if math.isfinite(value) else NOTHING


def clock(seconds: float) -> str:
    """Returns a length of time as 45 s, 5 min 03 s or 2 h 05 min."""
    if not math.isfinite(seconds):
        return NOTHING
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60:02} min"


def file_size(count: float) -> str:
    """Returns a number of bytes in kB or MB."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


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
    """Returns round values within low..high for an axis of logarithms: the closer together, the fewer decades."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**d for d in decades for f in factors if low * 0.999 <= f * 10.0**d <= high * 1.001]
        if len(ticks) <= most:
            return ticks
    return ticks[:: math.ceil(len(ticks) / most)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Returns the labels of an axis: k and M for thousands and millions, as many decimals as they need."""
    largest = max(map(abs, ticks), default=0.0)
    scale, unit = next(((s, u) for s, u in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if largest >= s), (1.0, ""))
    scaled = [tick / scale for tick in ticks]
    decimals = next(d for d in range(10) if d == 9 or all(_is_exact(value, d) for value in scaled))
    return [_signed(f"{value:.{decimals}f}{unit if value else ''}") for value in scaled]


def log_tick_labels(ticks: Sequence[float]) -> list[str]:
    """Returns the labels of an axis of logarithms: each with as few digits as it needs."""
    return [_signed(f"{tick:g}") for tick in ticks]


def _is_exact(value: float, decimals: int) -> bool:
    return abs(value - round(value, decimals)) <= 1e-6 * max(1.0, abs(value))


def _signed(text: str) -> str:
    return text.replace("-", MINUS)
