"""The restart policy: when a process that failed is restarted. Exponential back-off until a restart cannot help. Pure.

Both supervisors use it (`shoal train` for its processes, an actor node for its workers):

    progress since the last failure                                  the delay restarts at FIRST_DELAY_S
    a fault of the user's code before any progress                   give up
    the same fault SAME_FAULTS times without progress in between     give up
    the same fault in the same step SAME_FAULTS times in a row       give up: it always happens there
    more than MAX_FAILURES failures in a row without progress        give up
    otherwise                                                        restart after the delay

A worker makes progress when it collects a chunk; time that it waits for a peer or a slow constructor is not progress.
Any other process makes progress when it runs for STEADY_S.
"""

from __future__ import annotations

import re
from typing import NamedTuple

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
STEADY_S = 60.0
"""Running time after which a process that collects no chunks has made progress [s]."""
MAX_FAILURES = 8
"""Maximum number of failures in a row without progress before the supervisor gives up."""
SAME_FAULTS = 3
"""Number of equal faults in a row after which the supervisor gives up."""


class Retry(NamedTuple):
    """The decision to restart after a delay [s]."""

    delay_s: float


class GiveUp(NamedTuple):
    """The decision not to restart, with the reason."""

    reason: str


class RestartPolicy:
    """The failure history of one process: decides after each failure whether and when to restart it.

    Example:
        policy = RestartPolicy()
        decision = policy.after(progressed=False, fault="KeyError: 'agent_0'")
    """

    def __init__(self) -> None:
        self.failures = 0
        """Failures in a row without progress in between."""
        self.total = 0
        """Restarts so far."""
        self._ever_progressed = False
        self._faults_without_progress: list[str] = []
        """First lines of the faults since the last progress, oldest first."""
        self._last_faults: list[str] = []
        """First lines of the last SAME_FAULTS faults, oldest first."""

    def after(self, *, progressed: bool, fault: str = "") -> Retry | GiveUp:
        """Decides what follows a failure.

        progressed: whether the process made progress since it started.
        fault: error text of the user's code; empty if something else ended the process (a signal).
        """
        self._ever_progressed |= progressed
        self.failures = 1 if progressed else self.failures + 1
        line = fault.partition("\n")[0]
        self._faults_without_progress = [*([] if progressed else self._faults_without_progress), line]
        self._last_faults = [*self._last_faults, line][-SAME_FAULTS:]
        if reason := self._give_up_reason(line):
            return GiveUp(reason)
        self.total += 1
        return Retry(min(FIRST_DELAY_S * 2.0 ** (self.failures - 1), LONGEST_DELAY_S))

    def _give_up_reason(self, fault: str) -> str:
        if fault and not self._ever_progressed:
            return "before its first chunk was collected"
        last = [_without_numbers(line) for line in self._faults_without_progress[-SAME_FAULTS:]]
        if fault and len(last) == SAME_FAULTS and len(set(last)) == 1:
            return f"{SAME_FAULTS} times in a row without a chunk in between"
        same_step = self._last_faults == [fault] * SAME_FAULTS and re.search(r"\bstep \d", fault)
        if same_step:
            return f"{SAME_FAULTS} times in a row in the same step of the same copy"
        if self.failures > MAX_FAILURES:
            return f"{self.failures} times in a row"
        return ""


def _without_numbers(line: str) -> str:
    """Returns an error text without its numbers, which are steps, copies and values."""
    return re.sub(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "#", line)
