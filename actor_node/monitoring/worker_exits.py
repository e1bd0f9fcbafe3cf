"""Classifies how a worker ended, from its exit code and the failure that it reported. Pure.

| reported failure | exit code      | meaning                                                   | cause       |
|------------------|----------------|-----------------------------------------------------------|-------------|
| usage, peer      | 2, 3           | a usage error; a peer that refuses the worker             | usage, peer |
| other            | any            | the replay server requires a new worker, or a signal that | other       |
|                  |                | the supervisor did not send asked the worker to end       |             |
| fault            | any            | an exception of the environment, or a defect              | fault       |
| none             | 0 .. 255       | the environment ended the process (os._exit)              | fault       |
| none             | an end signal  | killed from outside (KILL, TERM, INT, HUP)                | other       |
| none             | another signal | the process crashed (SEGV, ABRT, ...)                     | fault       |

`common.process.children.restart_policy` decides what follows each cause.
"""

from __future__ import annotations

import traceback

import msgspec

from common.errors import ConfigError, PeerError, ShoalError, WorldError
from common.process.children.restart_policy import Cause, ProcessExit
from common.worlds.adapters.faults import FROM_OUTSIDE, describe_exception, describe_process_end

MAX_TEXT_CHARACTERS = 8_000
"""Characters of a failure that reach the supervisor: a text larger than a pipe's buffer would never be sent."""
MAX_LINE_CHARACTERS = 200


class WorkerFailure(msgspec.Struct, frozen=True):
    """The report of a failure that a worker sends to its supervisor before it ends."""

    cause: Cause
    text: str
    """One line that says what happened, then details."""

    @property
    def line(self) -> str:
        """The first line, cut to MAX_LINE_CHARACTERS."""
        return self.text.partition("\n")[0][:MAX_LINE_CHARACTERS]


def failure_of(error: BaseException) -> WorkerFailure:
    """Returns the failure to report for an error that ends a worker."""
    if isinstance(error, ConfigError):
        return WorkerFailure("usage", str(error)[:MAX_TEXT_CHARACTERS])
    if isinstance(error, PeerError):
        return WorkerFailure("peer", str(error)[:MAX_TEXT_CHARACTERS])
    if isinstance(error, WorldError):
        return WorkerFailure("fault", str(error)[:MAX_TEXT_CHARACTERS])
    if isinstance(error, ShoalError):
        return WorkerFailure("other", str(error)[:MAX_TEXT_CHARACTERS])
    if isinstance(error, KeyboardInterrupt):
        # Workers do not receive the terminal's Ctrl-C: this one was raised by the environment.
        return WorkerFailure("fault", str(describe_exception("the environment", error))[:MAX_TEXT_CHARACTERS])
    summary = f"{type(error).__name__}: {error}"[: MAX_TEXT_CHARACTERS // 2]
    frames = "".join(traceback.format_tb(error.__traceback__))[-MAX_TEXT_CHARACTERS // 2 :]
    return WorkerFailure("fault", f"{summary}\n{frames.rstrip()}")


def worker_exit(code: int, failure: WorkerFailure | None, *, collected: bool, call: str) -> ProcessExit:
    """Classifies the end of a worker with exit code `code` (negative: the signal that killed it).

    failure: what the worker reported; None if it reported nothing. collected: whether it collected a chunk.
    call: the call of the user's code that ran; empty outside one.
    """
    if failure is not None:
        # The exit code adds nothing: the node kills a worker that cannot end after its report.
        return ProcessExit(failure.cause, failure.text, collected)
    cause: Cause = "other" if -code in FROM_OUTSIDE else "fault"
    return ProcessExit(cause, describe_process_end(code, call), collected)
