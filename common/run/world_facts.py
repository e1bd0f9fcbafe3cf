"""Measurements of an environment's first copy: plain data, from which settings are chosen."""

from __future__ import annotations

import msgspec

NOMINAL_STEP_S = 1e-3


class WorldFacts(msgspec.Struct, frozen=True):
    """Measurements of one copy of an environment under random actions."""

    steps: int
    """Number of steps taken."""
    step_s: float
    """Median duration of a step [s]."""
    time_limit: int = 0
    """Length at which episodes are truncated [environment steps]; 0 if it is not known."""
    longest_episode: int = 0
    """Length of the longest episode that ended [environment steps]; 0 if none ended."""
    batched: bool = False
    """Whether all copies of this world step in one operation."""

    @property
    def on_any_machine(self) -> WorldFacts:
        """These facts with a nominal duration of a step, for a choice that no machine's speed changes."""
        return msgspec.structs.replace(self, step_s=NOMINAL_STEP_S)
