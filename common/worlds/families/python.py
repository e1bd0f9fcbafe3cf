"""A user's own function or class that makes a world: `python:my_module:make_env`.

    name_of(make_env) == "python:my_module:make_env"

Worlds are made in other processes, which import the function by its name. It is never sent by value.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.worlds.families import Constructor
from common.worlds.families.imports import callable_of, import_attribute, import_in_progress

_PREFIX = "python"
_WAY_OUT = (
    "Worlds are made in other processes, which import the function by name. Move it to the top level of a file such as "
    "my_env.py, then: from my_env import make_env"
)


def find_constructor(name: str, path: str) -> Constructor:
    """Returns the function or class that `module:qualname` names; ConfigError if there is none."""
    module, _, qualname = path.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *qualname.split("."))):
        raise ConfigError(f"{name}: write {_PREFIX}:my_module:make_env, a module and a function or class in it.")
    return callable_of(name, path, import_attribute(name, module, qualname))


def names() -> Sequence[str]:
    """Returns no names: any function or class may be named."""
    return ()


def name_of(make: Any) -> str:
    """Returns the name of the world that a function or class makes.

    Raises ConfigError for what other processes cannot import by name: a lambda, a nested function, a `partial`, an
    object, and what a notebook defines.
    """
    module, qualname = getattr(make, "__module__", None), getattr(make, "__qualname__", None)
    if not callable(make) or not module or not qualname:
        kind = type(make).__name__
        hint = " Pass the function itself, and its options as settings={'world.NAME': VALUE}." if callable(make) else ""
        raise ConfigError(f"A world is a name, or a function or class that makes an environment, not a {kind}.{hint}")
    if "<lambda>" in qualname:
        raise ConfigError(f"The world is a lambda, which has no name. {_WAY_OUT}")
    if "<locals>" in qualname:
        raise ConfigError(f"{qualname.rpartition('.')[2]} is defined inside a function. {_WAY_OUT}")
    if module == "__main__":
        module = _name_of_script(qualname)
    elif _attribute(module, qualname) != make:
        raise ConfigError(
            f"{module}.{qualname} is not the function that was passed: its name means another. {_WAY_OUT}"
        )
    return f"{_PREFIX}:{module}:{qualname}"


def refuse_import(function: str) -> None:
    """Raises ConfigError if a script calls a function of Shoal while it is imported to make a world."""
    if module := import_in_progress():
        raise ConfigError(
            f"{module} calls {function} while Shoal imports it to make a world. Put the call under:"
            ' if __name__ == "__main__":'
        )


def _attribute(module: str, qualname: str) -> Any:
    found = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def _name_of_script(qualname: str) -> str:
    """Returns the name by which another process imports the script that runs as `__main__`."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m package.module
        return str(spec.name)
    file = getattr(main, "__file__", None)
    if not file or not Path(file).is_file():
        raise ConfigError(f"{qualname} is defined in a notebook or an interactive session. {_WAY_OUT}")
    module = Path(file).stem
    found = find_spec(module) if module.isidentifier() else None
    if found is None or not found.origin or Path(found.origin).resolve() != Path(file).resolve():
        raise ConfigError(f"{qualname} is defined in {file}, which cannot be imported as {module!r}. {_WAY_OUT}")
    return module
