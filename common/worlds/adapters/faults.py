"""Texts of faults in a user's environment: the exception, and where the user's code raised it, without frames of Shoal.

world: step 40 of copy 3 of 4: RuntimeError: the message of the user's code
my_env.py:31 in step
raise RuntimeError("the message of the user's code")
"""

from __future__ import annotations

import signal

from common.errors import ShoalError, WorldError
from common.user_code import exception_lines, shorten

MAX_NAME_CHARACTERS = 200
"""Characters of an agent's name in a message."""
FROM_OUTSIDE = tuple(s for s in signal.Signals if s.name in {"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"})
"""Signals that an operator, a terminal, or a machine without free memory sends; Windows has two of them."""


def environment_error(where: str, error: BaseException, copy: int | None = None) -> ShoalError:
    """Returns the error to raise for an exception of an environment's code.

    where: world, step and copy. Shoal's own errors are returned unchanged; KeyboardInterrupt is raised again.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, ShoalError):
        return error
    return describe_exception(where, error, copy)


def describe_exception(where: str, error: BaseException, copy: int | None = None) -> WorldError:
    """Returns any exception as an error of the environment: its text and the last frames outside Shoal."""
    return WorldError(exception_lines(where, error, "the environment"), copy)


def describe_process_end(code: int, where: str = "") -> str:
    """Returns how the process of an environment ended, as a text for the user.

    code: its exit code, negative for a signal. where: the call of the user's code that was running.
    """
    if -code in FROM_OUTSIDE:
        return f"killed by signal {-code}"
    where = f" in {where}" if where else ""
    if code >= 0:
        return f"the environment ended its process with exit code {code} (os._exit?){where}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "of no name"
    return f"the environment crashed its process with signal {-code} ({name}){where}"


def copy_text(copy: int, copies: int) -> str:
    """Returns the copy of an index as messages name it, counted from 1: "copy 3 of 4"."""
    return f"copy {copy + 1} of {copies}"


def agent_text(agent: object) -> str:
    """Returns an agent's name as messages show it: on one line, at most MAX_NAME_CHARACTERS characters."""
    return shorten(printable(str(agent)), MAX_NAME_CHARACTERS)


def printable(name: str) -> str:
    """Returns a name on one line, with control characters as Python escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
