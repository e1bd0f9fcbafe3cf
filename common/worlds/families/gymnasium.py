"""Gymnasium's environments: `gymnasium:Pendulum-v1`, or `gymnasium:my_package:MyEnv-v0` for a registering package.

`gymnasium.make` makes them, so that the time limit of the registration holds; `--set world.max_episode_steps=N`
changes it. The ids of a few packages are known: they are found without naming the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

from common.errors import ConfigError
from common.run.validation_errors import suggest
from common.worlds.families import Constructor
from common.worlds.families.imports import import_attribute, import_path, with_options
from common.worlds.families.mujoco_warnings import send_to_log

_REGISTERED_BY = (
    ("Foraging", "lbforaging", "lbforaging"),
    ("rware", "rware", "rware"),
    ("intersection", "highway_env", "highway-env"),
    ("highway", "highway_env", "highway-env"),
)
"""Start of an id, the package that registers it, and the package's name for pip."""
_NEEDS = {
    "box2d": ("Box2D", "box2d"),
    "mujoco": ("mujoco", "mujoco"),
    "phys2d": ("jax", "jax"),
    "tabular": ("jax", "jax"),
}
"""By group of Gymnasium's own environments: the module that they import, and the extra that installs it."""


def find_constructor(name: str, path: str) -> Constructor:
    """Returns what makes a registered environment; ConfigError if no package registers the id."""
    package, _, env_id = path.rpartition(":")
    if package:
        import_path(name, package)
    spec = _find_spec(name, env_id)
    entry, group = spec.entry_point, _group(spec)
    if isinstance(entry, str):
        module, _, attribute = entry.partition(":")
        entry = import_attribute(name, module, attribute, _install(group) if group else "")
        if group == "mujoco":
            send_to_log()
    if entry is None:
        raise ConfigError(f"{name}: {env_id} is registered only as a vector environment; Shoal makes single ones.")
    import gymnasium  # noqa: PLC0415  (for this family only)

    # Shoal checks every environment itself, also those whose spaces are lists, which Gymnasium's checker rejects.
    make = partial(gymnasium.make, spec, disable_env_checker=True)
    return with_options(name, make, entry, defaults=spec.kwargs, extra={"max_episode_steps": spec.max_episode_steps})


def names() -> Sequence[str]:
    """Returns the registered ids, except older versions and environments that Gymnasium only says to be gone."""
    newest: dict[str, tuple[int, str]] = {}
    for env_id, spec in _registry().items():
        if getattr(spec.entry_point, "__name__", "").startswith("_raise_"):
            continue
        stem = env_id.removesuffix(f"-v{spec.version}")
        newest[stem] = max(newest.get(stem, (-1, "")), (spec.version or 0, env_id))
    return sorted(env_id for _, env_id in newest.values())


def install_command(path: str) -> str:
    """Returns the command that installs what an environment of Gymnasium's own imports; empty if it is installed."""
    group = _group(_registry()[path])
    return _install(group) if group in _NEEDS and find_spec(_NEEDS[group][0]) is None else ""


def _group(spec: Any) -> str:
    """Returns the package of Gymnasium's own environments to which an entry point belongs, such as box2d."""
    module = str(spec.entry_point).partition(":")[0]
    return module.removeprefix("gymnasium.envs.").partition(".")[0] if module.startswith("gymnasium.envs.") else ""


def _install(group: str) -> str:
    return f"pip install 'gymnasium[{_NEEDS[group][1] if group in _NEEDS else group}]'"


def _find_spec(name: str, env_id: str) -> Any:
    registry = _registry()
    if env_id not in registry:
        for start, package, distribution in _REGISTERED_BY:
            if env_id.startswith(start):
                import_path(name, package, f"pip install {distribution}")
                break
    if env_id not in registry:
        raise ConfigError(
            f"{name}: Gymnasium has no environment {env_id!r} registered; {_suggestion(env_id, registry)}"
        )
    return registry[env_id]


def _suggestion(env_id: str, registry: Any) -> str:
    stem = env_id.partition("-v")[0]
    versions = sorted(known for known in registry if known.partition("-v")[0] == stem)
    if versions:
        return f"did you mean {' or '.join(versions)}?"
    close = suggest(env_id, registry)
    way_out = "name the package that registers it, as in gymnasium:my_package:MyEnv-v0."
    return f"{close} Else {way_out}" if close.startswith("did") else way_out


def _registry() -> Any:
    if find_spec("gymnasium") is None:
        raise ConfigError("Gymnasium is not installed; install it with: pip install 'shoal[actor]'")
    import gymnasium  # noqa: PLC0415  (for this family only)

    return gymnasium.registry
