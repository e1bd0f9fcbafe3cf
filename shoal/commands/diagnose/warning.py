"""Warnings of a diagnosis: what was observed, its usual cause, and what to try."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from common.run.run import RunSpec
from learner_node.run_checks.inputs import Remark

_SETTING = re.compile(r"([a-z]+)\.([a-z_]+) = ([^\s,]+)")


class DiagnosisWarning(msgspec.Struct, frozen=True, rename={"to_try": "try"}):
    """One warning of a diagnosis, about settings or figures of a trained run.

    A learner's warning is a `Remark`, and a result of `shoal check` a `Finding`.
    """

    topic: str
    """communication, values, networks, inputs or course (the training log)."""
    about: str
    """Agent, network or metric that the warning is about."""
    seen: str
    """The observation."""
    means: str
    """The usual cause."""
    to_try: tuple[str, ...]
    """Settings to try."""
    direction: str = ""
    """over or under, to keep warnings of both directions apart when cause and advice are equal; else empty."""

    def without_current_settings(self, spec: RunSpec) -> DiagnosisWarning:
        """Returns the warning without advice that the run already follows."""
        return msgspec.structs.replace(self, to_try=tuple(one for one in self.to_try if not _is_set(one, spec)))


def as_warning(topic: str, remark: Remark) -> DiagnosisWarning:
    """Returns a remark of the learner as a warning."""
    return DiagnosisWarning(topic, remark.about, remark.seen, remark.means, remark.to_try)


def merged(warnings: Iterable[DiagnosisWarning]) -> list[DiagnosisWarning]:
    """Merges warnings with the same cause and advice into one, in the order of their first occurrence."""
    groups: dict[tuple[str, str, tuple[str, ...], str], list[DiagnosisWarning]] = {}
    for warning in warnings:
        groups.setdefault((warning.topic, warning.means, warning.to_try, warning.direction), []).append(warning)
    return [
        msgspec.structs.replace(group[0], about=", ".join(one.about for one in group), seen=_seen(group))
        for group in groups.values()
    ]


def _seen(group: Sequence[DiagnosisWarning]) -> str:
    """Returns the observation of the first warning and the names of the others; `--json` has all figures."""
    first, *others = group
    return "; ".join([first.seen, *([f"likewise {', '.join(one.about for one in others)}"] if others else [])])


def _is_set(advice: str, spec: RunSpec) -> bool:
    found = _SETTING.search(advice)
    if found is None:
        return False
    section, key, value = found.groups()
    return str(getattr(getattr(spec, section), key)) == value
