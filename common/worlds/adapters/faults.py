"""Texts of faults in a user's environment: the exception, and where the user's code raised it, without frames of Shoal.

world: step 40 of copy 3 of 4: RuntimeError: the message of the user's code
my_env.py:31 in step
raise RuntimeError("the message of the user's code")
"""

from __future__ import annotations

import signal
import traceback
from pathlib import Path

import common
from common.errors import ShoalError, WorldError

MOST_FRAMES = 6
MOST_LINES = 12
LONGEST_LINE = 500
MAX_NAME_CHARACTERS = 200
"""Characters of an agent's name in a message."""
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that an operator, a terminal, or a machine without free memory sends."""
_ROOT = Path(common.__file__).resolve().parent.parent
_OWN = tuple(
    f"{_ROOT / folder}/" for folder in ("shoal", "common", "actor_node", "learner_node", "replay_server", "deploy")
)


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
    first, *rest = _exception_text(error).splitlines() or [""]
    lines = [f"{where}: {first}", *(f"  {line}" for line in rest[:MOST_LINES])]
    cause = error.__cause__
    if cause is not None:
        lines.append(f"  because of {next(iter(_exception_text(cause).splitlines()), '')}")
    lines += _frames(cause if cause is not None else error)
    return WorldError("\n".join(shorten(line, LONGEST_LINE) for line in lines), copy)


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


def shorten(text: str, length: int) -> str:
    """Returns a text of at most `length` characters."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def copy_text(copy: int, copies: int) -> str:
    """Returns the copy of an index as messages name it, counted from 1: "copy 3 of 4"."""
    return f"copy {copy + 1} of {copies}"


def agent_text(agent: object) -> str:
    """Returns an agent's name as messages show it: on one line, at most MAX_NAME_CHARACTERS characters."""
    return shorten(printable(str(agent)), MAX_NAME_CHARACTERS)


def printable(name: str) -> str:
    """Returns a name on one line, with control characters as Python escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _exception_text(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the environment called exit({'' if error.code is None else repr(error.code)})"
    try:
        text = str(error)
    except Exception as e:  # noqa: BLE001  (the user's __str__)
        text = f"(str() of it failed with {type(e).__name__})"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _frames(error: BaseException) -> list[str]:
    """Returns the last frames outside Shoal, the innermost last."""
    found = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_foreign(frame.filename)]
    lines = []
    for frame in found[-MOST_FRAMES:]:
        lines.append(f"  {frame.filename}:{frame.lineno} in {frame.name}")
        if frame.line:
            lines.append(f"    {frame.line}")
    return lines


def _is_foreign(filename: str) -> bool:
    return not filename.startswith(("<frozen importlib", *_OWN)) and "/importlib/__init__.py" not in filename
