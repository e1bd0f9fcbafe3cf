"""The restart policy: decides whether a process that ended starts again, after a growing delay, or not. Pure.

Two supervisors decide through this policy: `shoal train` for its processes, and an actor node for its workers. Each
classifies how a process ended (`ProcessExit`); this policy then decides:

    a usage error, or a peer that refuses the process                 give up
    a failure that the process itself reports as lasting              give up
    a fault of the user's code before the first progress              give up
    the same fault MAX_EQUAL_FAULTS times without progress in between      give up
    the same fault in the same step MAX_EQUAL_FAULTS times in a row        give up: the step always fails
    more than MAX_FAILURES failures in a row without progress        give up
    any other end                                                     restart after the delay

Progress resets the delay. A worker makes progress when it collects a chunk, however long that takes: time spent waiting
for a peer or for a slow constructor does not count. Any other process makes progress when it runs for STEADY_S.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from common.errors import ConfigError, LastingError, PeerError, ShoalError

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
STEADY_S = 60.0
"""A process that collects no chunks makes progress when it runs this long."""
MAX_FAILURES = 8
"""Failures in a row, without progress in between, after which the process is not restarted."""
MAX_EQUAL_FAULTS = 3

Cause = Literal["usage", "peer", "permanent", "fault", "other"]
"""Why a process ended: a usage error, a peer that refuses it, another failure that the process reports as lasting
("permanent"), the user's code ("fault"), or anything else."""
_LASTING: dict[Cause, type[ShoalError]] = {"usage": ConfigError, "peer": PeerError, "permanent": LastingError}
"""The causes of lasting failures, which a restart cannot fix, and the error that each of them raises."""


class ProcessExit(NamedTuple):
    """One end of a process."""

    cause: Cause
    reason: str
    """Text for the user: one line, then details."""
    progressed: bool
    """Whether the process made progress since it started."""


class Finished(NamedTuple):
    """The process finished its work. The supervisor of `shoal train` returns it; the policy never does."""


class Restart(NamedTuple):
    """Start the process again after the delay."""

    delay_s: float
    reason: str
    """Why the process ended: one line, then details."""


class GiveUp(NamedTuple):
    """Raise the error: a restart cannot help."""

    error: ShoalError


class RestartPolicy:
    """The failures of one process, and what each of them leads to.

    Example:
        policy = RestartPolicy("worker 3")
        policy.decide(ProcessExit("other", "killed by signal 9", progressed=True))   # Restart(delay_s=0.5, ...)
    """

    def __init__(self, process: str) -> None:
        """Takes the name that error messages give the process."""
        self._process = process
        self.failures = 0
        """Failures in a row without progress in between."""
        self.restarts = 0
        """Restarts granted in total."""
        self._ever_progressed = False
        self._faults: list[str] = []
        """First lines of the last failures without progress in between, oldest first; '' for one that is no fault."""
        self._faults_in_a_row: list[str] = []
        """First lines of the last failures, with or without progress in between; '' for one that is no fault."""

    def decide(self, end: ProcessExit) -> Restart | GiveUp:
        """Returns what follows an end of the process."""
        if error := _LASTING.get(end.cause):
            return GiveUp(error(end.reason))
        self._ever_progressed |= end.progressed
        self.failures = 1 if end.progressed else self.failures + 1
        line = end.reason.partition("\n")[0] if end.cause == "fault" else ""
        self._faults = [*([] if end.progressed else self._faults), line]
        self._faults_in_a_row = [*self._faults_in_a_row, line][-MAX_EQUAL_FAULTS:]
        if repetition := self._repetition(line):
            return GiveUp(LastingError(f"{end.reason}\n({self._process} failed {repetition}; it is not restarted)"))
        self.restarts += 1
        return Restart(min(FIRST_DELAY_S * 2.0 ** (self.failures - 1), MAX_DELAY_S), end.reason)

    def _repetition(self, fault: str) -> str:
        """Describes the repetition of failures that makes a restart useless; empty while a restart may help."""
        if fault and not self._ever_progressed:
            return "before its first chunk was collected"
        last = [_without_numbers(line) for line in self._faults[-MAX_EQUAL_FAULTS:]]
        if fault and len(last) == MAX_EQUAL_FAULTS and len(set(last)) == 1:
            return f"{MAX_EQUAL_FAULTS} times in a row without a chunk in between"
        same_step = self._faults_in_a_row == [fault] * MAX_EQUAL_FAULTS and re.search(r"\bstep \d", fault)
        if same_step:
            return f"{MAX_EQUAL_FAULTS} times in a row in the same step of the same copy"
        if self.failures > MAX_FAILURES:
            return f"{self.failures} times in a row"
        return ""


def _without_numbers(line: str) -> str:
    """Replaces the numbers in an error message: steps, copies and values differ between equal faults."""
    return re.sub(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "#", line)
