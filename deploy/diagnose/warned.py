"""A warning in words."""

from __future__ import annotations

import msgspec


class Warned(msgspec.Struct, frozen=True, rename={"to_try": "try"}):
    """One warning."""

    topic: str
    """communication, values, networks or course."""
    about: str
    seen: str
    means: str
    to_try: tuple[str, ...]
