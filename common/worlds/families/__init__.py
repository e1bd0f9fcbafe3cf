"""The families of worlds: the sources of environments whose names have a prefix, such as `mamujoco:HalfCheetah-2x3`.

    family = family_of("mamujoco:HalfCheetah-2x3")
    make = family.find_constructor("mamujoco:HalfCheetah-2x3")
    env = make(agent_obsk=2)

A family is one row of the table and one module, which is imported when a name needs it. The module has

| function                       | returns                                                               |
|--------------------------------|-----------------------------------------------------------------------|
| `find_constructor(name, path)` | the function that makes a copy; ConfigError for an unknown path       |
| `names()`                      | all names of the family; empty if the user's own modules can be named |

The constructor returns a PettingZoo ParallelEnv, an AEC environment or a Gymnasium environment
(`common/worlds/adapters/conversion.py`); one adapter makes a World of all of them. In a batched family it makes all
copies at once (`common/worlds/batched/`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from typing import Any, NamedTuple

Constructor = Callable[..., Any]
"""Makes one environment from the options of the world, given as keywords."""


class Family(NamedTuple):
    """One family: the prefix of its names, and where its environments come from.

    Example: family_of("pettingzoo:sisl/pursuit-v5").installed_version() == "1.27.0"
    """

    prefix: str
    meaning: str
    example: str
    package: str
    """The distribution that makes the environments; empty if the user's own code does."""
    install: str
    """The command that installs the package."""
    module: str
    """The module of Shoal that has the functions of the family."""
    is_batched: bool = False
    """Whether the constructor makes all copies at once: `make(copies, seed, **options)` returns a World."""

    def find_constructor(self, name: str) -> Constructor:
        """Returns the function that makes a copy; ConfigError for a name that does not exist or is not installed."""
        module = import_module(self.module)
        found: Constructor = module.find_constructor(name, name.removeprefix(f"{self.prefix}:"))
        return found

    def names(self) -> Sequence[str]:
        """Returns the known names, with prefix; ConfigError if the package is not installed."""
        return [f"{self.prefix}:{path}" for path in import_module(self.module).names()]

    def uninstalled(self) -> dict[str, str]:
        """Returns the known names whose own packages are not installed, with the commands that install them."""
        module = import_module(self.module)
        commands = {f"{self.prefix}:{path}": module.install_command(path) for path in module.names()}
        return {name: install for name, install in commands.items() if install}

    def installed_version(self) -> str:
        """Returns the version of the installed package; empty if it is not installed or the family has no package."""
        try:
            return metadata.version(self.package) if self.package else ""
        except metadata.PackageNotFoundError:
            return ""


FAMILIES = (
    Family(
        "pettingzoo",
        "PettingZoo environments: an id of its registry, a module with parallel_env(), a class; AEC ones converted",
        "pettingzoo:sisl/pursuit-v5",
        "pettingzoo",
        "pip install 'shoal[actor]'",
        "common.worlds.families.pettingzoo",
    ),
    Family(
        "mamujoco",
        "multi-agent MuJoCo of gymnasium-robotics: a robot, and how its joints are divided among agents",
        "mamujoco:HalfCheetah-2x3",
        "gymnasium-robotics",
        "pip install 'shoal[mamujoco]'",
        "common.worlds.families.mamujoco",
    ),
    Family(
        "gymnasium",
        "Gymnasium environments of one agent, or of one agent for each entry of their Tuple spaces",
        "gymnasium:Pendulum-v1",
        "gymnasium",
        "pip install 'shoal[actor]'",
        "common.worlds.families.gymnasium",
    ),
    Family(
        "python",
        "your own function or class that returns one of these environments",
        "python:my_module:make_env",
        "",
        "",
        "common.worlds.families.python",
    ),
    Family(
        "vmas",
        "VMAS: vectorised multi-agent scenarios in torch, all copies in one batch",
        "vmas:balance",
        "vmas",
        "pip install 'shoal[vmas]'",
        "common.worlds.batched.vmas",
        is_batched=True,
    ),
    Family(
        "batched",
        "your own vectorised world: a module with make(copies, seed), which steps all copies in one call",
        "batched:my_module",
        "",
        "",
        "common.worlds.batched.user_module",
        is_batched=True,
    ),
)
"""All families, in the order in which `shoal scenarios` lists them."""


def family_of(name: str) -> Family | None:
    """Returns the family of a name's prefix; None for a particle scenario and for an unknown prefix."""
    prefix, colon, _ = name.partition(":")
    return next((family for family in FAMILIES if colon and family.prefix == prefix), None)
