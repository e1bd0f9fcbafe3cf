"""A user's own vectorised world: `batched:package.module` or `batched:package.module:attribute`.

The attribute, by default `make`, is a function or class: `make(copies, seed, **options)` returns a `World`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import ModuleType

from common.errors import ConfigError
from common.worlds.families import Constructor
from common.worlds.families.imports import import_path

PREFIX = "batched"
_DEFAULT = "make"
_FORM = f"{PREFIX}:package.module or {PREFIX}:package.module:attribute"


def find_constructor(name: str, path: str) -> Constructor:
    """Returns the function or class that makes the copies; ConfigError if there is none."""
    module, colon, attribute = path.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", module) or (colon and not attribute.isidentifier()):
        raise ConfigError(f"{name}: {path!r} does not name a module. Write {_FORM}.")
    found = import_path(name, module)
    if not isinstance(found, ModuleType):
        raise ConfigError(f"{name}: {module} is not a module. Write {PREFIX}:{':'.join(module.rsplit('.', 1))}.")
    make = getattr(found, attribute or _DEFAULT, None)
    if make is None:
        raise ConfigError(
            f"{name}: {module} has no {attribute or _DEFAULT}. Define {attribute or _DEFAULT}(copies, seed), which "
            f"returns a World, or name another function: {PREFIX}:{module}:function."
        )
    if not callable(make):
        raise ConfigError(
            f"{name}: {attribute or _DEFAULT} is {type(make).__name__}. Name a function {_DEFAULT}(copies, seed) or a "
            "class, which makes a World."
        )
    return make  # type: ignore[no-any-return]


def names() -> Sequence[str]:
    """Returns no names: any module may be named."""
    return ()
