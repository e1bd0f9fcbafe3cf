"""Exceptions raised by an environment, in words: what was raised, and where in the user's code; no frame of Shoal's.

world: step 40 of copy 3: RuntimeError: the user's words
my_env.py:31 in step
raise RuntimeError("the user's words")
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
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals of an operator, a terminal or a machine that is out of memory."""
_ROOT = Path(common.__file__).resolve().parent.parent
_OWN = tuple(f"{_ROOT / folder}/" for folder in ("common", "actor_node", "learner_node", "replay_server", "deploy"))


def raised(where: str, error: BaseException, copy: int | None = None) -> ShoalError:
    """Returns what to raise for an exception that came out of an environment's code.

    where: world, step and copy. Shoal's own errors stay what they are; Ctrl-C is raised again.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, ShoalError):
        return error
    return described(where, error, copy)


def described(where: str, error: BaseException, copy: int | None = None) -> WorldError:
    """Returns any exception as the environment's, with its words and the last frames that are not Shoal's."""
    first, *rest = _words(error).splitlines() or [""]
    lines = [f"{where}: {first}", *(f"  {line}" for line in rest[:MOST_LINES])]
    cause = error.__cause__
    if cause is not None:
        lines.append(f"  because of {next(iter(_words(cause).splitlines()), '')}")
    lines += _frames(cause if cause is not None else error)
    return WorldError("\n".join(shorten(line, LONGEST_LINE) for line in lines), copy)


def process_ended(code: int, where: str = "") -> str:
    """Returns how the process of an environment ended: `code` is its exit code, negative for a signal.

    where: the call of the user's code that ran.
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


def _words(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the environment called exit({'' if error.code is None else repr(error.code)})"
    try:
        text = str(error)
    except Exception as e:  # noqa: BLE001  (the user's __str__)
        text = f"(its text cannot be read: {type(e).__name__})"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _frames(error: BaseException) -> list[str]:
    """Returns the last frames that are not Shoal's, the innermost last."""
    found = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_foreign(frame.filename)]
    lines = []
    for frame in found[-MOST_FRAMES:]:
        lines.append(f"  {frame.filename}:{frame.lineno} in {frame.name}")
        if frame.line:
            lines.append(f"    {frame.line}")
    return lines


def _is_foreign(filename: str) -> bool:
    return not filename.startswith(("<frozen importlib", *_OWN)) and "/importlib/__init__.py" not in filename
