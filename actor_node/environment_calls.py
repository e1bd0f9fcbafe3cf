"""What a worker's environment is doing, in memory that the supervisor reads while the environment holds the worker.

    worker       before and after each call of the user's code: which call, of which copy, since when
    supervisor   reads it once in a while, says it to the replay server for a worker that cannot, and names a call that
                 does not return

A call may hold the interpreter for minutes, so nothing that runs in the worker's own process could report it.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import Array, c_double
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

SLOW_STEP_S = 1.0
"""A step of all copies that takes longer is worth a word."""
LONG_CALL_S = 10.0
"""A call of the user's code that takes longer is named."""
_FIELDS = 8


class Call(IntEnum):
    """Kinds of calls into the user's code."""

    NONE = 0
    MAKING = 1
    RESETTING = 2
    STEPPING = 3
    CLOSING = 4
    """All copies, and what else of the environment ends with the process."""


class CurrentCall(NamedTuple):
    """One moment of one worker. Times are monotonic seconds, which all processes of a machine share."""

    call: Call
    """The call that runs, or, between two of them, the last one; NONE between chunks."""
    copy: int
    copies: int
    since: float
    """When the call began; 0 outside a call."""
    step_since: float
    """When the step of all copies began; 0 outside one."""
    step_s: float
    """Time that the last step of all copies took."""
    spoke_at: float
    """When the worker last reported by itself; 0 before."""
    incarnation: int

    def lasts_s(self, now: float) -> float:
        """Returns for how long the call has lasted; 0 outside a call."""
        return max(now - self.since, 0.0) if self.since else 0.0


def in_words(doing: CurrentCall, now: float) -> str:
    """Returns what keeps a worker busy; empty at the usual pace."""
    lasts_s = doing.lasts_s(now)
    where = f"copy {doing.copy + 1} of {doing.copies}" + (f" for {lasts_s:.0f} s" if lasts_s >= LONG_CALL_S else "")
    pace = f"{doing.step_s:.1f} s a step of all copies" if doing.step_s >= SLOW_STEP_S else ""
    if doing.call is Call.NONE:
        return pace
    if doing.call is Call.MAKING:
        return f"making {where}"
    if doing.call is Call.CLOSING:
        return "closing the environments" + (f" for {lasts_s:.0f} s" if lasts_s >= LONG_CALL_S else "")
    if doing.call is Call.RESETTING and not doing.step_since:
        return f"resetting {where}"
    slow = pace or now - doing.step_since >= SLOW_STEP_S
    verb = "resetting" if doing.call is Call.RESETTING else "stepping"
    return ", ".join(text for text in (f"{verb} {where}", pace) if text) if slow else ""


def call_in_words(doing: CurrentCall) -> str:
    """Names the call of the user's code that runs; empty outside one."""
    if not doing.since:
        return ""
    if doing.call is Call.CLOSING:
        return "close() of the environments"
    name = {Call.MAKING: "the constructor", Call.RESETTING: "reset()", Call.STEPPING: "step()"}[doing.call]
    return f"{name} of copy {doing.copy + 1} of {doing.copies}"


def long_call(doing: CurrentCall, now: float) -> str:
    """Names a call that has not returned for LONG_CALL_S; empty when there is none."""
    lasts_s = doing.lasts_s(now)
    return f"{call_in_words(doing)} has not returned for {lasts_s:.0f} s" if lasts_s >= LONG_CALL_S else ""


class CallTable:
    """One row a worker, in shared memory. Without a lock: a worker killed while it held one would block all others."""

    def __init__(self, shared: Array[c_double]) -> None:
        self._rows: npt.NDArray[np.float64] = np.frombuffer(shared, np.float64).reshape(-1, _FIELDS)  # type: ignore[call-overload]

    @staticmethod
    def size(workers: int) -> int:
        """Returns how many numbers the memory must hold."""
        return workers * _FIELDS

    def read(self, worker: int) -> CurrentCall:
        """Returns a worker's row."""
        call, copy, copies, since, step_since, step_s, spoke_at, incarnation = self._rows[worker].tolist()
        return CurrentCall(
            Call(int(call)), int(copy), int(copies), since, step_since, step_s, spoke_at, int(incarnation)
        )

    def clear(self, worker: int) -> None:
        """Forgets what a worker that has ended did."""
        self._rows[worker] = 0.0

    def call(self, worker: int, call: Call, copy: int, copies: int, now: float) -> None:
        """Notes that a call begins."""
        self._rows[worker, :4] = call, copy, copies, now

    def returned(self, worker: int) -> None:
        """Notes that the call has returned."""
        self._rows[worker, 3] = 0.0

    def steps(self, worker: int, now: float) -> None:
        """Notes that a step of all copies begins."""
        self._rows[worker, 4] = now

    def idle(self, worker: int, step_s: float) -> None:
        """Notes that a chunk is complete, whose last step of all copies took `step_s`."""
        self._rows[worker, (0, 3, 4, 5)] = Call.NONE, 0.0, 0.0, step_s

    def spoke(self, worker: int, incarnation: int, now: float) -> None:
        """Notes that the worker has reported by itself."""
        self._rows[worker, 6:] = now, incarnation


class WatchedEnv:
    """One environment that says when it is called; everything else is the environment's own."""

    def __init__(self, env: Any, began: Callable[[Call], None], returned: Callable[[], None]) -> None:
        self._env, self._began, self._returned = env, began, returned

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, *args: Any, **kwargs: Any) -> Any:
        """Resets the environment."""
        self._began(Call.RESETTING)
        try:
            return self._env.reset(*args, **kwargs)
        finally:
            self._returned()

    def step(self, actions: Any) -> Any:
        """Steps the environment."""
        self._began(Call.STEPPING)
        try:
            return self._env.step(actions)
        finally:
            self._returned()
