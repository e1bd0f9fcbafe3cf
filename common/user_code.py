"""Texts about a user's own code: where a module that cannot be imported may be, and what an exception says.

my_env.py:31 in step                        the frames outside Shoal, the innermost last
raise RuntimeError("the message of the user's code")
"""

from __future__ import annotations

import inspect
import os
import sys
import sysconfig
import traceback
from difflib import get_close_matches
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import common
from common.errors import ConfigError
from common.run.validation_errors import shorten as shorten_name
from common.run.validation_errors import suggest

MOST_FRAMES = 6
MOST_LINES = 12
LONGEST_LINE = 500
_PATH_HINT = "install it, or, in the directory of its file: export PYTHONPATH=$PWD"
_MAX_ENTRIES = 10_000
"""Files of a directory that are searched for similar names."""
_ROOT = Path(common.__file__).resolve().parent.parent
_OWN = tuple(
    f"{_ROOT / folder}/" for folder in ("shoal", "common", "actor_node", "learner_node", "replay_server", "deploy")
)


def exception_lines(where: str, error: BaseException, owner: str) -> str:
    """Returns an exception of a user's code as a text: its message, and the last frames outside Shoal.

    where: what was running. owner: what the code is, as in "the environment", for code that calls exit().
    """
    first, *rest = _exception_text(error, owner).splitlines() or [""]
    lines = [f"{where}: {first}", *(f"  {line}" for line in rest[:MOST_LINES])]
    cause = error.__cause__
    if cause is not None:
        lines.append(f"  because of {next(iter(_exception_text(cause, owner).splitlines()), '')}")
    lines += _frames(cause if cause is not None else error)
    return "\n".join(shorten(line, LONGEST_LINE) for line in lines)


def shorten(text: str, length: int) -> str:
    """Returns a text of at most `length` characters."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def similar_names(found: Any, written: str) -> str:
    """Returns the names of the classes of a module as a suggestion that starts with ";"; empty if there are none."""
    classes = defined_classes(found) if isinstance(found, ModuleType) else []
    return f"; {suggest(written, [c.__name__ for c in classes])}" if classes else ""


def defined_classes(module: ModuleType) -> list[type]:
    """Returns the classes that a module, or a module of a package, defines."""
    prefix = f"{module.__name__}."
    return [c for c in vars(module).values() if inspect.isclass(c) and f"{c.__module__}.".startswith(prefix)]


def import_object(setting: str, path: str, importer: str) -> Any:
    """Imports what a setting names by its path, a text such as "my_module:MyClass".

    setting: the setting's key, for errors. importer: who else imports the module, as a sentence. Raises ConfigError if
    the module cannot be imported, or has nothing of this name.
    """
    label = f"{setting} = {path!r}"
    module, _, name = path.partition(":")
    try:
        found: Any = import_module(module)
    except ImportError as e:
        raise ConfigError(f"{label}: cannot import {module}: {e}{import_hint(module, e)}. {importer}") from e
    except (Exception, SystemExit) as e:
        raise ConfigError(exception_lines(f"{label}: importing {module}", e, module)) from e
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{label}: {module} has no {name}{similar_names(found, name)}")
        found = getattr(found, part)
    return found


def import_hint(module: str, error: ImportError) -> str:
    """Returns what to do if a module, or a module that it imports, is not found; the text continues an error."""
    if not (error.name and f"{module}.".startswith(f"{error.name}.")):
        return f"; install what {module} needs"
    searched = os.pathsep.join(_search_path())
    return f"{f' (PYTHONPATH is {shorten_name(searched)})' if searched else ''}; {_find_hint(module, error.name)}"


def _exception_text(error: BaseException, owner: str) -> str:
    if isinstance(error, SystemExit):
        return f"{owner} called exit({'' if error.code is None else repr(error.code)})"
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


def _search_path() -> list[str]:
    """Returns the directories of `sys.path` that are neither Python's, nor of installed packages, nor Shoal's.

    The variable PYTHONPATH of a child process contains all of `sys.path`.
    """
    python = sysconfig.get_paths()["stdlib"]
    # A script's directory is in `sys.path` too: for the commands, the one of the interpreter.
    commands = {str(Path(sys.executable).parent), sysconfig.get_path("scripts")}
    others = {python, str(Path(python, "lib-dynload")), str(Path(common.__file__).resolve().parent.parent), *commands}
    return list(
        dict.fromkeys(
            entry
            for entry in sys.path
            if entry
            and entry not in others
            and Path(entry).is_dir()
            and not {"site-packages", "dist-packages"} & set(Path(entry).parts)
        )
    )


def _find_hint(module: str, missing: str) -> str:
    """Returns where a module that is not found may be: in the working directory, or under a similar name.

    missing: the module, or the package that contains it.
    """
    searched = _search_path()
    export = f"export PYTHONPATH=$PWD{':$PYTHONPATH' if searched else ''}"
    parts = [] if os.getcwd() in searched else module.split(".")  # noqa: PTH109  (compared with texts)
    for length in range(len(parts), 0, -1):
        file = Path(*parts[:length]).with_suffix(".py")
        if os.path.isfile(file):  # noqa: PTH113  (False for a name that is too long)
            return f"./{file} is here: {export}"
    if "." in missing:
        return _PATH_HINT
    on_path = [name for entry in searched for name in _modules(entry)]
    here = _modules(".")
    if not (close := get_close_matches(shorten_name(missing), {*on_path, *here}, n=1)):
        return _PATH_HINT
    where = "" if close[0] in on_path else f" It is in this directory: {export}"
    return f"did you mean {close[0]}{module.removeprefix(missing)}?{where}"


def _modules(directory: str) -> list[str]:
    """Returns the modules and packages in a directory; none if it cannot be read."""
    try:
        with os.scandir(directory) as entries:
            found = [Path(entry.path) for entry in islice(entries, _MAX_ENTRIES)]
    except OSError:
        return []
    names = [path.stem for path in found if path.suffix == ".py" or (path / "__init__.py").is_file()]
    return [name for name in names if name.isidentifier() and name != "__init__"]
