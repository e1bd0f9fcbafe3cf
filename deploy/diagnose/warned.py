"""A warning in words."""

from __future__ import annotations

import re

import msgspec

from common.run import RunSpec

_SETTING = re.compile(r"([a-z]+)\.([a-z_]+) = ([^\s,]+)")


class Warned(msgspec.Struct, frozen=True, rename={"to_try": "try"}):
    """One warning."""

    topic: str
    """communication, values, networks or course."""
    about: str
    seen: str
    means: str
    to_try: tuple[str, ...]

    def fitting(self, spec: RunSpec) -> Warned:
        """Returns the warning without the advice to set what the run has set already."""
        return msgspec.structs.replace(self, to_try=tuple(one for one in self.to_try if not _is_set(one, spec)))


def _is_set(advice: str, spec: RunSpec) -> bool:
    found = _SETTING.match(advice)
    if found is None:
        return False
    section, key, value = found.groups()
    return str(getattr(getattr(spec, section), key)) == value
