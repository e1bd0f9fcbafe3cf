"""Multi-agent MuJoCo of gymnasium-robotics: `mamujoco:HalfCheetah-2x3` is scenario HalfCheetah, agent_conf 2x3."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec

from common.errors import ConfigError
from common.run.validation_errors import suggest
from common.worlds.families import Constructor
from common.worlds.families.imports import import_path, with_options
from common.worlds.families.mujoco_warnings import send_to_log

_INSTALL = "pip install 'shoal[mamujoco]'"
# As in https://robotics.farama.org/envs/MaMuJoCo/ and gymnasium_robotics/envs/multiagent_mujoco/obsk.py.
_FACTORISATIONS: Mapping[str, tuple[str, ...]] = {
    "Ant": ("2x4", "2x4d", "4x2"),
    "CoupledHalfCheetah": ("1p1",),
    "HalfCheetah": ("2x3", "6x1"),
    "Hopper": ("3x1",),
    "Humanoid": ("9|8",),
    "HumanoidStandup": ("9|8",),
    "Pusher": ("3p",),
    "Reacher": ("2x1",),
    "Swimmer": ("2x1",),
    "Walker2d": ("2x3",),
}
_SEGMENTED = ("ManySegmentAnt", "ManySegmentSwimmer")
"""Robots of any number of agents, each of any number of segments."""


def find_constructor(name: str, path: str) -> Constructor:
    """Returns MaMuJoCo's constructor with the robot and the factorisation of the path, as in `HalfCheetah-2x3`."""
    robot, _, factorisation = path.partition("-")
    if robot in _SEGMENTED:
        if not re.fullmatch(r"[1-9]\d?x[1-9]\d?", factorisation):
            raise ConfigError(f"{name}: write {robot}-AGENTSxSEGMENTS, as in mamujoco:{robot}-2x3.")
    elif factorisation not in _FACTORISATIONS.get(robot, ()):
        raise ConfigError(f"{name}: {_what_exists(robot, path)}")
    _silence_notification()
    make = import_path(name, "gymnasium_robotics.mamujoco_v1", _INSTALL).parallel_env
    import_path(name, "mujoco", _INSTALL)
    send_to_log()
    chosen = partial(make, scenario=robot, agent_conf=factorisation)
    # gym_env takes an object, which no option can be.
    return with_options(name, chosen, make, hidden=("scenario", "agent_conf", "gym_env"))


def names() -> Sequence[str]:
    """Returns every robot with every factorisation; those of any number of segments with 2x3."""
    fixed = [f"{robot}-{conf}" for robot, confs in _FACTORISATIONS.items() for conf in confs]
    return [*fixed, *(f"{robot}-2x3" for robot in _SEGMENTED)]


def install_command(path: str) -> str:  # noqa: ARG001  (all robots need the same)
    """Returns the command that installs MuJoCo; empty if it is installed."""
    return "" if find_spec("mujoco") else _INSTALL


def _silence_notification() -> None:
    """Removes a notification that gymnasium-robotics prints in every process, about environments of other families."""
    with suppress(ImportError):
        from farama_notifications import notifications  # noqa: PLC0415  (a dependency of gymnasium)

        notifications.pop("gymnasium_robotics", None)


def _what_exists(robot: str, path: str) -> str:
    if robot in _FACTORISATIONS:
        return f"{robot} is divided as {', '.join(f'{robot}-{conf}' for conf in _FACTORISATIONS[robot])}."
    return f"there is no {path!r}; {suggest(path, names())}"
