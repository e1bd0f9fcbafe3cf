"""Turns what a constructor returned into a PettingZoo ParallelEnv: AEC and Gymnasium environments are converted."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

from gymnasium.spaces import Space

from common.worlds.adapters.gymnasium_env import GymnasiumParallelEnv

_log = logging.getLogger(__name__)
_reports: list[str] = []


def as_parallel_env(name: str, env: Any) -> Any:
    """Returns the environment as a ParallelEnv; one of an unknown kind is returned unchanged.

    name: of the world, for the line that reports a conversion. Raises ConfigError for spaces without agents.
    """
    if hasattr(env, "agent_iter"):
        return _from_aec(name, env)
    if _is_gymnasium(env):
        return GymnasiumParallelEnv(name, env)
    return env


def _is_gymnasium(env: Any) -> bool:
    """Returns whether the spaces of an environment are values, not methods that take an agent."""
    space = getattr(env, "observation_space", None)
    is_values = isinstance(space, Space | list | tuple)
    return is_values and not hasattr(env, "possible_agents") and callable(getattr(env, "step", None))


def _from_aec(name: str, env: Any) -> Any:
    from pettingzoo.utils.conversions import aec_to_parallel, turn_based_aec_to_parallel  # noqa: PLC0415  (for AEC only)
    from pettingzoo.utils.env_logger import EnvLogger  # noqa: PLC0415  (for AEC only)

    # PettingZoo reports every illegal move, and keeps each report in memory for the life of the process.
    EnvLogger.get_logger().setLevel(logging.ERROR)
    EnvLogger.mqueue = deque(maxlen=1)
    if env.metadata.get("is_parallelizable", False):
        _report(name, "an AEC environment, converted by PettingZoo's aec_to_parallel: all agents act in each step")
        return aec_to_parallel(env)
    _report(
        name,
        "an AEC environment, converted by PettingZoo's turn_based_aec_to_parallel: in each step one agent acts, and "
        "the actions of the others have no effect",
    )
    return turn_based_aec_to_parallel(env)


def conversion_reports() -> tuple[str, ...]:
    """Returns one line for each conversion in this process; the first copy's process sends them to the user."""
    return tuple(_reports)


def _report(name: str, text: str) -> None:
    line = f"{name}: {text}"
    if line not in _reports:
        _reports.append(line)
        _log.info(line)
