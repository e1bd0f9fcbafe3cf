"""Numbers, durations and intervals as text for reports, tables and the terminal."""

from __future__ import annotations

import math

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"


def significant(value: float, digits: int = 3) -> str:
    """Returns a number with a given number of significant digits and grouped thousands; a dash if it is not finite."""
    if not math.isfinite(value):
        return NOTHING
    size = abs(value)
    if size >= 10 ** (digits - 1):
        return with_minus_sign(f"{value:,.0f}")
    if 0 < size < 1e-3:
        return with_minus_sign(f"{value:.{digits - 1}e}")
    decimals = digits - 1 - math.floor(math.log10(size)) if size else 0
    return with_minus_sign(f"{value:,.{min(decimals, 6)}f}")


def brief(value: float, digits: int = 3) -> str:
    """Returns a number as `significant` does, without trailing zeros: for running text, where nothing is aligned."""
    text = significant(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def fixed(value: float, decimals: int = 2) -> str:
    """Returns a number with a given number of decimals and grouped thousands; a dash if it is not finite."""
    return with_minus_sign(f"{value:,.{decimals}f}") if math.isfinite(value) else NOTHING


def percent(fraction: float) -> str:
    """Returns a fraction of one as a percentage; a dash if it is not finite."""
    return f"{100 * fraction:.0f} %" if math.isfinite(fraction) else NOTHING


def duration(seconds: float) -> str:
    """Returns a duration as 45 s, 5 min 03 s or 2 h 05 min; a dash if it is not finite."""
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


def interval(ends: tuple[float, float], decimals: int = 2) -> str:
    """Returns an interval as `1.20 .. 3.40`, with an ASCII minus sign so that it can be copied into other programs."""
    return f"{ends[0]:.{decimals}f} .. {ends[1]:.{decimals}f}"


def mean_with_interval(mean: float, ends: tuple[float, float]) -> str:
    """Returns a mean and its interval as `2.30 (1.20 .. 3.40)`."""
    return f"{mean:.2f} ({interval(ends)})"


def ascii_number(value: float, digits: int = 3) -> str:
    """Returns a number as `significant` does, in ASCII: for terminals, whose text is copied into other programs."""
    return significant(value, digits).replace(MINUS, "-").replace(NOTHING, "-")


def with_minus_sign(text: str) -> str:
    """Returns a number's text with typographic minus signs."""
    return text.replace("-", MINUS)
