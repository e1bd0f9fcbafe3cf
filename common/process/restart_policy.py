"""When a process that ended starts again: after a growing delay, until repetition is known not to help. Pure.

What both supervisors decide (`shoal train` over its processes, an actor node over its workers):

    it got something done since its last failure                     the delay starts anew
    a fault of the user's code before anything was ever done         give up
    the same fault SAME_FAULTS times and nothing done in between     give up
    the same fault in the same step SAME_FAULTS times in a row       give up: it always happens there
    MOST_FAILURES failures in a row and nothing done in between      give up
    else                                                             start again after the delay

A worker gets something done when it collects a chunk, however long that takes: the time it waits for a peer, or for a
slow constructor, is no success. Any other process gets something done when it runs for STEADY_S.
"""

from __future__ import annotations

import re
from typing import NamedTuple

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
STEADY_S = 60.0
"""A process without chunks to count that ran this long counts as having started well."""
MOST_FAILURES = 8
"""Failures in a row, nothing done in between, before the process is given up."""
SAME_FAULTS = 3


class Retry(NamedTuple):
    """Start again after the delay."""

    delay_s: float


class GiveUp(NamedTuple):
    """Starting again cannot help; `reason` says how that is known."""

    reason: str


class RestartPolicy:
    """The history of one process: asked at each end whether and when it starts again."""

    def __init__(self) -> None:
        self.failures = 0
        """In a row, nothing done in between."""
        self.total = 0
        """RestartPolicy granted."""
        self._ever_progressed = False
        self._faults: list[str] = []
        """First lines of the last faults in a row, oldest first, nothing done in between."""
        self._in_step: list[str] = []
        """First lines of the last faults in a row."""

    def after(self, *, progressed: bool, fault: str = "") -> Retry | GiveUp:
        """Decides what follows an end.

        progressed: whether the process got something done since it started.
        fault: what the user's code did wrong, in words; empty when something else ended the process (a signal).
        """
        self._ever_progressed |= progressed
        self.failures = 1 if progressed else self.failures + 1
        line = fault.partition("\n")[0]
        self._faults = [*([] if progressed else self._faults), line]
        self._in_step = [*self._in_step, line][-SAME_FAULTS:]
        if reason := self._why_not(line):
            return GiveUp(reason)
        self.total += 1
        return Retry(min(FIRST_DELAY_S * 2.0 ** (self.failures - 1), LONGEST_DELAY_S))

    def _why_not(self, fault: str) -> str:
        if fault and not self._ever_progressed:
            return "before its first chunk was collected"
        last = [_words(line) for line in self._faults[-SAME_FAULTS:]]
        if fault and len(last) == SAME_FAULTS and len(set(last)) == 1:
            return f"{SAME_FAULTS} times in a row without a chunk in between"
        same_step = self._in_step == [fault] * SAME_FAULTS and re.search(r"\bstep \d", fault)
        if same_step:
            return f"{SAME_FAULTS} times in a row in the same step of the same copy"
        if self.failures > MOST_FAILURES:
            return f"{self.failures} times in a row"
        return ""


def _words(line: str) -> str:
    """Returns an error's words without its numbers, which tell steps, copies and values."""
    return re.sub(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "#", line)
