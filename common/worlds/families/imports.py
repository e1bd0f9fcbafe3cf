"""Imports the modules and attributes in the names of worlds, and checks the options of constructors by signatures."""

from __future__ import annotations

import inspect
import os
import sys
import sysconfig
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import common
from common.errors import ConfigError
from common.run.validation_errors import shorten, suggest
from common.worlds.adapters.faults import environment_error
from common.worlds.families import Constructor

_PATH_HINT = "install it, or, in the directory of its file: export PYTHONPATH=$PWD"
_MAX_ENTRIES = 10_000
"""Files of a directory that are searched for similar names."""
_in_progress: list[str] = []


def import_in_progress() -> str:
    """Returns the name of the module that is being imported to make a world; empty if none is."""
    return _in_progress[-1] if _in_progress else ""


def import_path(name: str, path: str, install: str = "") -> Any:
    """Imports a module by its dotted path, or an attribute of a module, which is then the last name of the path.

    name: the world's name, for errors. install: the command that installs what the path needs.
    Raises ConfigError if it does not exist, and WorldError for an exception that the module raises.
    """
    try:
        return _import(path)
    except ImportError as e:
        error = e
    except BaseException as e:
        if isinstance(e.__cause__, ImportError):
            # Gymnasium's DependencyNotInstalled, for example, whose text has the way out.
            raise ConfigError(f"{name}: cannot import {path}: {e}") from e
        raise environment_error(f"{name}: importing {path}", e) from e
    parent, _, last = path.rpartition(".")
    if parent and error.name in {path, parent}:
        try:
            return getattr(_import(parent), last)
        except AttributeError:
            if not hasattr(_import(parent), "__path__"):
                raise ConfigError(f"{name}: {parent} has no {last}{_similar(_import(parent), last)}") from None
        except ImportError:
            pass
        except BaseException as e:
            raise environment_error(f"{name}: importing {parent}", e) from e
    raise ConfigError(f"{name}: cannot import {path}: {error}{_way_out(path, error, install)}") from error


def import_attribute(name: str, module: str, qualname: str, install: str = "") -> Any:
    """Imports `qualname` of a module, for example a class; parameters and errors are those of `import_path`."""
    found = import_path(name, module, install)
    for i, part in enumerate(parts := qualname.split(".")):
        try:
            found = getattr(found, part)
        except AttributeError:
            owner = ".".join([module, *parts[:i]])
            raise ConfigError(f"{name}: {owner} has no {part}{_similar(found, part)}") from None
    return found


def callable_of(name: str, path: str, found: Any) -> Constructor:
    """Returns the imported object `found` if it is callable; else raises ConfigError."""
    if not callable(found):
        raise ConfigError(f"{name}: {path} is {type(found).__name__}. Name a function or class that makes a world.")
    constructor: Constructor = found
    return constructor


def with_options(
    name: str,
    make: Constructor,
    signature_of: Constructor,
    *,
    defaults: Mapping[str, Any] | None = None,
    hidden: Collection[str] = (),
    extra: Mapping[str, Any] | None = None,
) -> Constructor:
    """Returns `make` with the signature of another callable, so that unknown options are refused before the call.

    name: the world's name, for errors. defaults: values that `make` itself passes. extra: further options.
    hidden: parameters that the name of the world decides; giving one of them as an option is a ConfigError.
    """
    try:
        parameters = inspect.signature(signature_of).parameters
    except (TypeError, ValueError):
        return make
    known = defaults or {}
    keywords = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY, default=known.get(p.name, p.default))
        for p in parameters.values()
        if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY} and p.name not in hidden
    ]
    names = {p.name for p in keywords}
    keywords += [
        inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=value)
        for option, value in (extra or {}).items()
        if option not in names
    ]
    rest = [p for p in parameters.values() if p.kind is p.VAR_KEYWORD]

    def constructor(**options: Any) -> Any:
        if decided := [option for option in options if option in hidden]:
            raise ConfigError(f"{name}: the name of the world decides {decided[0]!r}. Leave world.{decided[0]} out.")
        return make(**options)

    constructor.__signature__ = inspect.Signature([*keywords, *rest])  # type: ignore[attr-defined]
    return constructor


def _import(path: str) -> ModuleType:
    with _importing(path):
        return import_module(path)


@contextmanager
def _importing(path: str) -> Iterator[None]:
    _in_progress.append(path)
    try:
        yield
    finally:
        _in_progress.pop()


def _similar(found: Any, written: str) -> str:
    """Returns the names of the classes of a module as a suggestion; empty if there are none."""
    classes = defined_classes(found) if isinstance(found, ModuleType) else []
    return f"; {suggest(written, [c.__name__ for c in classes])}" if classes else ""


def defined_classes(module: ModuleType) -> list[type]:
    """Returns the classes that a module, or a module of a package, defines."""
    prefix = f"{module.__name__}."
    return [c for c in vars(module).values() if inspect.isclass(c) and f"{c.__module__}.".startswith(prefix)]


def _way_out(module: str, error: ImportError, install: str) -> str:
    """Returns what to do if a module, or a module that it imports, is not found."""
    if install:
        return f"; install it with: {install}"
    if not (error.name and f"{module}.".startswith(f"{error.name}.")):
        return f"; install what {module} needs"
    searched = os.pathsep.join(_search_path())
    return f"{f' (PYTHONPATH is {shorten(searched)})' if searched else ''}; {_find_hint(module, error.name)}"


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
    if not (close := get_close_matches(shorten(missing), {*on_path, *here}, n=1)):
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
