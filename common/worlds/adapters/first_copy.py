"""The first copy of a user's environment, made in a separate process to read its agents' spaces.

    launcher, learner                                     first_copy_process.py
       --- name, options ------------------------------>
       <-- the call that begins ------------------------  import, constructor, spaces, reset, steps, close()
       <-- agents and spaces, or a fault ---------------
       <-- measurements, if they were asked for --------  after a second of steps with random actions
       <-- the end of the process ----------------------  after close()

A constructor may take minutes and is not interrupted; the user ends it with Ctrl-C. If the environment crashes or hangs
the process, or leaves processes behind, the command reports it and ends. An environment that raises an exception or
breaks its contract in the measured steps, twice in a row, ends the command too. One that crashes or hangs there is only
reported: the run starts without measurements, and its actors report what happens to them.

| waits for                | what ends the wait                                                                     |
|--------------------------|--------------------------------------------------------------------------------------|
| the child's next message | the message, the child's end, a stop; after 2 s, 10 s, 20 s, ... the call is reported  |
| the measurements         | their message, the child's end; SIGKILL to its session STEPS_S after the steps began |
| the child's end          | its end; SIGKILL to its session CLOSE_S after close() began                          |
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from common.errors import ConfigError, ShoalError, WorldError
from common.process.children.child_process import ChildProcess
from common.run.spaces import AgentSpaces
from common.run.world_facts import WorldFacts
from common.spec import AgentsSpec
from common.worlds.adapters.faults import describe_process_end

SLOW_S, VERY_SLOW_S = 2.0, 10.0
"""Times after which the running call is reported: first, second; then after twice the last time [s]."""
CLOSE_S = 5.0
STEPS_S = 8.0
"""Longest time that the measured steps may take, which is a second unless a reset or a step is very slow [s]."""
STEPS: Literal["reset() or step()"] = "reset() or step()"
_POLL_S = 0.1
_PURPOSE = "making one copy of the environment, to see what its agents observe and do"


class Task(msgspec.Struct, frozen=True):
    """The environment that the child makes."""

    name: str
    options: dict[str, Any]
    measure: bool = False
    """Whether the copy is stepped and measured."""
    wants_state: bool = False
    """Whether to reset the copy once, to find the length of its `state()`."""


class Began(msgspec.Struct, frozen=True, tag="began"):
    """A message: a call of the user's code starts."""

    call: Literal[
        "the import of its module",
        "its constructor",
        "observation_space(), action_space() or reset()",
        "reset() or state()",
        "reset() or step()",
        "close()",
    ]


class Found(msgspec.Struct, frozen=True, tag="found"):
    """A message: the agents and spaces of the copy."""

    agents: AgentsSpec
    spaces: tuple[AgentSpaces, ...]
    options: tuple[str, ...] = ()
    """The options of the constructor, as in `max_cycles=500`."""
    reports: tuple[str, ...] = ()
    """Lines for the user, for example that the environment was converted."""
    facts: WorldFacts | None = None
    """The measurements; None if none were asked for, or none could be made."""


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """A message: the measurements of the copy, or why there are none."""

    facts: WorldFacts | None
    fault: str = ""


class Fault(msgspec.Struct, frozen=True, tag="fault"):
    """A message: the environment's exception, or its fault."""

    kind: Literal["config", "world", "interrupt", "defect"]
    text: str
    copy: int | None = None

    def as_error(self) -> BaseException:
        """Returns the error that the caller would have received in its own process."""
        if self.kind == "interrupt":
            return KeyboardInterrupt()
        if self.kind == "defect":
            return RuntimeError(self.text)
        return ConfigError(self.text) if self.kind == "config" else WorldError(self.text, self.copy)


class Watch(NamedTuple):
    """Callbacks of a command that waits for the first copy."""

    notify: Callable[[str], object] = lambda _: None
    """Shows a line to the user."""
    poll: Callable[[], object] = lambda: None
    """Is called ten times a second; an exception ends the wait."""


class FirstCopy:
    """One copy of an environment that exists until its spaces are read.

    Example: found = FirstCopy("pettingzoo:meet", {"max_steps": 30}, Watch(notify=print)).read()
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        watch: Watch,
        *,
        measure: bool = False,
        wants_state: bool = False,
    ) -> None:
        """Takes the environment to make.

        measure: whether to step it for a second, for `Found.facts`. wants_state: whether the agents that are read
        include the length of the environment's global state.
        """
        self._task, self._watch = Task(name, dict(options), measure, wants_state), watch
        self._call: str = "the import of its module"
        self._began_at = self._call_began_at = time.monotonic()
        self._report_at = SLOW_S
        self._found: Found | None = None
        self._fault: Fault | None = None

    def read(self) -> Found:
        """Makes the copy, reads it and closes it.

        Raises ConfigError and WorldError like `make_world`, and WorldError if the environment ended its process.
        """
        child = ChildProcess("common.worlds.adapters.first_copy_process")
        try:
            with contextlib.suppress(OSError):  # the child has died; its exit code tells how
                child.pipe.send_bytes(msgspec.msgpack.encode(self._task))
            hangs = False
            while not hangs and self._receive_next(child):
                self._watch.poll()
                now = time.monotonic()
                self._report_slow_call(now)
                hangs = now - self._call_began_at >= {"close()": CLOSE_S, STEPS: STEPS_S}.get(self._call, math.inf)
        finally:
            code = child.kill()
        if hangs and self._call == STEPS:
            self._report_unmeasured(f"{STEPS} did not return in {STEPS_S:.0f} s; killed")
        elif hangs:
            self._watch.notify(
                f"{self._task.name}: close() of the first copy did not return in {CLOSE_S:.0f} s; killed"
            )
        if self._fault is not None:
            raise self._fault.as_error()
        crashed = bool(code and not hangs)
        if self._found is None or (crashed and self._call != STEPS):
            raise WorldError(f"{self._task.name}: making copy 1 of 1: {describe_process_end(code, self._call)}")
        if crashed:
            self._report_unmeasured(describe_process_end(code, self._call))
        return self._found

    def _receive_next(self, child: ChildProcess) -> bool:
        """Receives one message, if there is one; returns whether the process may send more."""
        message = child.receive(_POLL_S)
        if message is None:
            return child.may_send
        self._receive(msgspec.msgpack.decode(message, type=Began | Found | Measured | Fault))
        return True

    def _receive(self, message: Began | Found | Measured | Fault) -> None:
        if isinstance(message, Began):
            self._call, self._call_began_at = message.call, time.monotonic()
        elif isinstance(message, Found):
            self._found = message
            for line in message.reports:
                self._watch.notify(line)
        elif isinstance(message, Measured):
            # The measured steps last a second on purpose: they do not count as a slow start.
            self._began_at += time.monotonic() - self._call_began_at
            if message.fault:
                self._report_unmeasured(message.fault)
            elif self._found is not None:
                self._found = msgspec.structs.replace(self._found, facts=message.facts)
        else:
            # A later fault comes from closing after the first fault.
            self._fault = self._fault or message

    def _report_unmeasured(self, reason: str) -> None:
        self._watch.notify(f"{self._task.name}: the first copy could not be measured: {reason}")

    def _report_slow_call(self, now: float) -> None:
        if now - self._began_at < self._report_at or self._call == STEPS:  # which STEPS_S bounds
            return
        self._report_at = max(VERY_SLOW_S, 2.0 * self._report_at)
        lasts_s = now - self._call_began_at
        self._watch.notify(f"{_PURPOSE}: {self._call} has not returned for {lasts_s:.0f} s")


def fault_of(error: BaseException, details: str) -> Fault:
    """Returns the message for an error that ends the child; details: its traceback."""
    if isinstance(error, ConfigError):
        return Fault("config", _clean(str(error)))
    if isinstance(error, ShoalError):
        return Fault("world", _clean(str(error)), getattr(error, "copy", None))
    if isinstance(error, KeyboardInterrupt):
        return Fault("interrupt", "")
    return Fault("defect", _clean(details))


def _clean(text: str) -> str:
    """Returns a text that UTF-8 can encode; names of files and agents may contain anything."""
    return text.encode("utf-8", "backslashreplace").decode()
