"""PettingZoo's environments: `pettingzoo:sisl/pursuit-v5`, `pettingzoo:package.module`, `pettingzoo:module:MyEnv`.

| path                        | means                                                                               |
|-----------------------------|-------------------------------------------------------------------------------------|
| `sisl/pursuit-v5`           | an id of PettingZoo's registry                                                       |
| `my_package:team/my_env-v0` | an id that `my_package` registers when it is imported                                |
| `package.module`            | a module with `parallel_env`, or with `env` of an AEC environment                    |
| `package.module.MyEnv`      | a class or function of a module; also `package.module:MyEnv`                         |

PettingZoo 1.27 deprecates its own modules (`pettingzoo.sisl.pursuit_v5`); their names are resolved by the registry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal

from common.errors import ConfigError
from common.run.validation_errors import suggest
from common.user_code import defined_classes
from common.worlds.families import Constructor
from common.worlds.families.imports import callable_of, import_attribute, import_path, with_options

_ID = re.compile(r"(?:(?P<package>[\w.]+):)?(?P<id>[\w.-]+/[\w.-]+|[\w.]+-v\d+)")
_DEPRECATED_MODULE = re.compile(r"pettingzoo\.(?P<group>\w+)\.(?P<env>\w+_v\d+)")
_MAX_CLASSES = 3
"""Classes that a message offers."""
_GROUPS = ("atari", "butterfly", "classic", "magent", "sisl")


def find_constructor(name: str, path: str) -> Constructor:
    """Returns a registered entry point, a module's `parallel_env`, or the class or function that `path` names.

    Raises ConfigError if there is none, and WorldError for an exception that the module raises.
    """
    if found := _ID.fullmatch(path):
        if found["package"]:
            import_path(name, found["package"])
        return _registered(name, found["id"])
    _check_spelling(name, path)
    deprecated = _DEPRECATED_MODULE.fullmatch(path)
    if deprecated and any(env_id.startswith(f"{deprecated['group']}/") for env_id in _ids()):
        return _registered(name, f"{deprecated['group']}/{deprecated['env']}")
    module, colon, qualname = path.partition(":")
    thing = import_attribute(name, module, qualname) if colon else import_path(name, path)
    return _of_module(name, path, thing) if isinstance(thing, ModuleType) else callable_of(name, path, thing)


def names() -> Sequence[str]:
    """Returns the ids of PettingZoo's registry."""
    return sorted(_ids())


def install_command(path: str) -> str:
    """Returns the command that installs what all environments of a path's group import; empty if it is installed."""
    is_missing = path.startswith("atari/") and find_spec("multi_agent_ale_py") is None
    return "pip install 'pettingzoo[atari]'" if is_missing else ""


def _registered(name: str, given: str) -> Constructor:
    wanted = _as_id(given)
    known = _ids()
    if wanted not in known:
        if not known:
            raise ConfigError(f"{name}: the installed PettingZoo has no registry. Install PettingZoo 1.27 or later.")
        raise ConfigError(f"{name}: PettingZoo's registry has no {given!r}; {_suggestion(wanted, known)}")
    import pettingzoo  # noqa: PLC0415  (for this family only)

    kind: Literal["parallel", "aec"] = known[wanted]
    spec = pettingzoo.spec(kind, wanted)
    make = partial(pettingzoo.make, kind, spec)
    if isinstance(spec.entry_point, str):
        module, _, attribute = spec.entry_point.partition(":")
        extra = f"pip install 'pettingzoo[{spec.namespace}]'" if spec.namespace in _GROUPS else ""
        entry = import_attribute(name, module, attribute, extra)
    else:
        entry = spec.entry_point
    limit = {} if spec.max_cycles is None else {"max_cycles": spec.max_cycles}
    return with_options(name, make, entry, defaults=spec.kwargs, extra=limit)


def _suggestion(wanted: str, known: Mapping[str, Any]) -> str:
    stem = wanted.partition("-v")[0]
    versions = sorted(known_id for known_id in known if known_id.partition("-v")[0] == stem)
    if versions:
        return f"did you mean {' or '.join(versions)}?"
    close = suggest(wanted, known)
    if close.startswith("did"):
        return close
    other = f" An environment of Gymnasium is named gymnasium:{wanted}." if "/" not in wanted else ""
    return f"`shoal scenarios pettingzoo` lists what it has.{other}"


def _as_id(given: str) -> str:
    return re.sub(r"_v(?=\d+$)", "-v", given)


def _ids() -> Mapping[str, Any]:
    """Returns id -> "parallel" or "aec", parallel wherever an environment has both; empty before PettingZoo 1.27."""
    import pettingzoo  # noqa: PLC0415  (for this family only)

    registries = {kind: getattr(pettingzoo, f"{kind}_registry", {}) for kind in ("aec", "parallel")}
    return {known: kind for kind, registry in registries.items() for known in registry}


def _of_module(name: str, path: str, module: ModuleType) -> Constructor:
    for attribute in ("parallel_env", "env", "raw_env"):
        make: Constructor | None = getattr(module, attribute, None)
        if callable(make):
            return make
    written = [f"pettingzoo:{path}:{c.__name__}" for c in defined_classes(module) if _is_env_class(c)]
    if written:
        raise ConfigError(f"{name}: {path} has no parallel_env(). Write {' or '.join(written[:_MAX_CLASSES])}.")
    raise ConfigError(f"{name}: {path} has no parallel_env(). Name a module that makes a PettingZoo ParallelEnv.")


def _is_env_class(found: type) -> bool:
    return all(callable(getattr(found, method, None)) for method in ("reset", "step"))


def _check_spelling(name: str, path: str) -> None:
    if path.endswith(".py"):
        raise ConfigError(f"{name}: write pettingzoo:{path.removesuffix('.py').replace('/', '.').strip('.')}")
    if not re.fullmatch(r"[\w.]+(:[\w.]+)?", path):
        raise ConfigError(
            f"{name}: {path!r} is not the name of an environment; write pettingzoo:package.module, whose "
            "parallel_env() makes a PettingZoo ParallelEnv, or an id of PettingZoo's registry, as in "
            "pettingzoo:sisl/pursuit-v5"
        )
