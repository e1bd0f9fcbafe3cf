"""A warning in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from common.run.run import RunSpec
from learner_node.inputs import Remark

_SETTING = re.compile(r"([a-z]+)\.([a-z_]+) = ([^\s,]+)")


class DiagnosisWarning(msgspec.Struct, frozen=True, rename={"to_try": "try"}):
    """One warning."""

    topic: str
    """communication, values, networks, inputs or course."""
    about: str
    seen: str
    means: str
    to_try: tuple[str, ...]
    direction: str = ""
    """over or under, where what is meant and advised is the same of both."""

    def fitting(self, spec: RunSpec) -> DiagnosisWarning:
        """Returns the warning without the advice to set what the run has set already."""
        return msgspec.structs.replace(self, to_try=tuple(one for one in self.to_try if not _is_set(one, spec)))


def warned(topic: str, remark: Remark) -> DiagnosisWarning:
    """Returns what the learner would remark of itself as a warning."""
    return DiagnosisWarning(topic, remark.about, remark.seen, remark.means, remark.to_try)


def merged(warnings: Iterable[DiagnosisWarning]) -> list[DiagnosisWarning]:
    """Returns one warning for all that mean the same and advise the same, in the order of the first of each."""
    alike: dict[tuple[str, str, tuple[str, ...], str], list[DiagnosisWarning]] = {}
    for warned in warnings:
        alike.setdefault((warned.topic, warned.means, warned.to_try, warned.direction), []).append(warned)
    return [
        msgspec.structs.replace(group[0], about=", ".join(one.about for one in group), seen=_seen(group))
        for group in alike.values()
    ]


def _seen(group: Sequence[DiagnosisWarning]) -> str:
    """Returns what was seen of the first; a team of twelve would fill the screen, and `--json` has all figures."""
    first, *others = group
    return "; ".join([first.seen, *([f"likewise {', '.join(one.about for one in others)}"] if others else [])])


def _is_set(advice: str, spec: RunSpec) -> bool:
    found = _SETTING.match(advice)
    if found is None:
        return False
    section, key, value = found.groups()
    return str(getattr(getattr(spec, section), key)) == value
