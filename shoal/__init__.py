"""Shoal from Python: train, evaluate and play teams of agents.

    import shoal

    run = shoal.train("simple_spread", time="5m", actors=2)
    run.evaluate(episodes=1000).return_mean
    run.report()
    run.resume(time="10m")

    shoal.check("pettingzoo:my_env").findings

    team = shoal.load("runs/spread")
    actions = team.act({"agent_0": obs0, "agent_1": obs1, "agent_2": obs2})

`import shoal` is fast: each name is imported when it is first used. `load` and `Team.act` need numpy but not torch. An
invalid argument raises a subclass of `ShoalError` whose message names the value and what to do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from shoal import package_finder as _package_finder

if TYPE_CHECKING:
    from actor_node.evaluation.evaluate import Evaluation
    from common.errors import ConfigError, PeerError, ShoalError, WorldError
    from common.worlds import make_world, scenarios
    from shoal.commands.check.check import WorldCheck
    from shoal.team import Team, load
    from shoal.training import Run, check, evaluate, train

__all__ = [
    "ConfigError",
    "Evaluation",
    "PeerError",
    "Run",
    "ShoalError",
    "Team",
    "WorldCheck",
    "WorldError",
    "check",
    "evaluate",
    "load",
    "make_world",
    "scenarios",
    "train",
]

_MODULES = {
    "ConfigError": "common.errors",
    "Evaluation": "actor_node.evaluation.evaluate",
    "PeerError": "common.errors",
    "Run": "shoal.training",
    "ShoalError": "common.errors",
    "Team": "shoal.team",
    "WorldCheck": "shoal.commands.check.check",
    "WorldError": "common.errors",
    "check": "shoal.training",
    "evaluate": "shoal.training",
    "load": "shoal.team",
    "make_world": "common.worlds",
    "scenarios": "common.worlds",
    "train": "shoal.training",
}
"""The module that defines each public name."""

_package_finder.install()


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used; raises ImportError if a foreign package hides one of Shoal's."""
    if name not in _MODULES:
        raise AttributeError(f"module 'shoal' has no attribute {name!r}")
    _package_finder.refuse_conflict()
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    """Returns the public names, for completion in a notebook."""
    return [*__all__, "__doc__", "__name__", "__path__"]
