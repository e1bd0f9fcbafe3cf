"""The call of the user's code that each worker executes, in memory that the supervisor reads.

    worker       writes before and after each call: which call, of which copy, since when
    supervisor   reads once a second, sends a report to the replay server for a worker whose call does not return, and
                 logs the call

A call may hold the interpreter for minutes, so nothing in the worker's own process could report it.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import Array, c_double
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

SLOW_STEP_S = 1.0
"""A longer step of all copies is reported as the reason for a worker's slow pace [s]."""
LONG_CALL_S = 10.0
"""A longer call of the user's code is reported with its duration, and logged [s]."""
_FIELDS = 8
"""Numbers of one worker: the fields of CurrentCall."""


class Call(IntEnum):
    """Kinds of calls of the user's code."""

    NONE = 0
    MAKING = 1
    RESETTING = 2
    STEPPING = 3
    CLOSING = 4
    """close() of all copies; threads and processes that the environment leaves behind end with the worker."""


class CurrentCall(NamedTuple):
    """The call that one worker executes at one moment. Times are monotonic seconds, equal for all processes."""

    call: Call
    """The current call, or the last one if none runs; NONE between chunks."""
    copy: int
    copies: int
    started_at: float
    """When the call started; 0 if none runs."""
    step_started_at: float
    """When the step of all copies started; 0 outside a step."""
    last_step_s: float
    """Duration of the last step of all copies."""
    reported_at: float
    """When the worker last sent a report itself; 0 before its first."""
    incarnation: int

    def duration_s(self, now: float) -> float:
        """Returns how long the call has run; 0 if none runs."""
        return max(now - self.started_at, 0.0) if self.started_at else 0.0


def describe_activity(current: CurrentCall, now: float) -> str:
    """Describes what slows a worker down, for `ActorReport.doing`; empty at the usual pace."""
    duration_s = current.duration_s(now)
    duration = f" for {duration_s:.0f} s" if duration_s >= LONG_CALL_S else ""
    copy = f"copy {current.copy + 1} of {current.copies}{duration}"
    pace = f"{current.last_step_s:.1f} s a step of all copies" if current.last_step_s >= SLOW_STEP_S else ""
    if current.call is Call.NONE:
        return pace
    if current.call is Call.MAKING:
        return f"making {copy}"
    if current.call is Call.CLOSING:
        return f"closing the environments{duration}"
    if current.call is Call.RESETTING and not current.step_started_at:
        return f"resetting {copy}"
    is_slow = pace or now - current.step_started_at >= SLOW_STEP_S
    verb = "resetting" if current.call is Call.RESETTING else "stepping"
    return ", ".join(text for text in (f"{verb} {copy}", pace) if text) if is_slow else ""


def describe_call(current: CurrentCall) -> str:
    """Describes the call of the user's code that runs; empty if none runs."""
    if not current.started_at:
        return ""
    if current.call is Call.CLOSING:
        return "close() of the environments"
    name = {Call.MAKING: "the constructor", Call.RESETTING: "reset()", Call.STEPPING: "step()"}[current.call]
    return f"{name} of copy {current.copy + 1} of {current.copies}"


def describe_long_call(current: CurrentCall, now: float) -> str:
    """Describes a call that has run for LONG_CALL_S or longer; empty for a shorter call."""
    duration_s = current.duration_s(now)
    return f"{describe_call(current)} has not returned for {duration_s:.0f} s" if duration_s >= LONG_CALL_S else ""


class CallTable:
    """One row per worker in shared memory, without a lock, which a killed worker would hold forever."""

    def __init__(self, shared: Array[c_double]) -> None:
        self._rows: npt.NDArray[np.float64] = np.frombuffer(shared, np.float64).reshape(-1, _FIELDS)  # type: ignore[call-overload]

    @staticmethod
    def size(workers: int) -> int:
        """Returns the length of the shared array for this number of workers."""
        return workers * _FIELDS

    def read(self, worker: int) -> CurrentCall:
        """Returns the row of a worker."""
        call, copy, copies, started_at, step_started_at, last_step_s, reported_at, incarnation = self._rows[
            worker
        ].tolist()
        return CurrentCall(
            Call(int(call)),
            int(copy),
            int(copies),
            started_at,
            step_started_at,
            last_step_s,
            reported_at,
            int(incarnation),
        )

    def clear(self, worker: int) -> None:
        """Clears the row of a worker that has ended."""
        self._rows[worker] = 0.0

    def start_call(self, worker: int, call: Call, copy: int, copies: int, now: float) -> None:
        """Records the start of a call."""
        self._rows[worker, :4] = call, copy, copies, now

    def end_call(self, worker: int) -> None:
        """Records the end of the call."""
        self._rows[worker, 3] = 0.0

    def start_step(self, worker: int, now: float) -> None:
        """Records the start of a step of all copies."""
        self._rows[worker, 4] = now

    def end_chunk(self, worker: int, last_step_s: float) -> None:
        """Records the end of a chunk whose last step of all copies took `last_step_s`."""
        self._rows[worker, (0, 3, 4, 5)] = Call.NONE, 0.0, 0.0, last_step_s

    def reported(self, worker: int, incarnation: int, now: float) -> None:
        """Records that the worker sent a report itself."""
        self._rows[worker, 6:] = now, incarnation


class WatchedEnv:
    """A wrapper of an environment that announces `reset` and `step`; other attributes are passed through."""

    def __init__(self, env: Any, on_call: Callable[[Call], None], on_return: Callable[[], None]) -> None:
        self._env, self._on_call, self._on_return = env, on_call, on_return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, *args: Any, **kwargs: Any) -> Any:
        """Resets the environment."""
        self._on_call(Call.RESETTING)
        try:
            return self._env.reset(*args, **kwargs)
        finally:
            self._on_return()

    def step(self, actions: Any) -> Any:
        """Steps the environment."""
        self._on_call(Call.STEPPING)
        try:
            return self._env.step(actions)
        finally:
            self._on_return()
