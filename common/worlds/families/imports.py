"""Imports the modules and attributes in the names of worlds, and checks the options of constructors by signatures."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from common.errors import ConfigError
from common.user_code import import_hint, similar_names
from common.worlds.adapters.faults import environment_error
from common.worlds.families import Constructor

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
                raise ConfigError(f"{name}: {parent} has no {last}{similar_names(_import(parent), last)}") from None
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
            raise ConfigError(f"{name}: {owner} has no {part}{similar_names(found, part)}") from None
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


def _way_out(path: str, error: ImportError, install: str) -> str:
    """Returns what to do if a module, or a module that it imports, is not found."""
    return f"; install it with: {install}" if install else import_hint(path, error)
