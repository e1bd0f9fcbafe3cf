"""Numbers in an environment's infos, such as success, waiting time or cost, as metrics of a step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_NAMES = 20
"""Maximum number of names; later ones are ignored."""
_NAME = re.compile(r"\w[\w.\- ]{0,39}")


class InfoMetrics:
    """Collects the numbers in the infos of a world's agents, by name.

    Example:
        metrics = InfoMetrics(["walker_0", "walker_1"])
        metrics.of_step([{"walker_0": {"success": True}}], present)["success"]  # [[1.0, nan]]
    """

    def __init__(self, agents: Sequence[Any]) -> None:
        """agents: keys of the agents in infos, in the order of the joint vectors."""
        self._agents = agents
        self._names: dict[str, None] = {}

    def of_step(
        self, infos: Sequence[Mapping[Any, Any]], present: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Returns name -> [copies, agents] for all names seen so far; NaN where an agent gave no finite number.

        infos: of each copy. present: `[copies, agents]`, 1.0 where the agent acted in this step.
        """
        found: dict[str, npt.NDArray[np.float64]] = {name: np.full(present.shape, np.nan) for name in self._names}
        for copy, agent in np.argwhere(present > 0).tolist():
            info = infos[copy].get(self._agents[agent])
            for name, value in info.items() if isinstance(info, Mapping) else ():
                if self._accepts(name) and (number := _finite_number(value)) is not None:
                    self._names[name] = None
                    found.setdefault(name, np.full(present.shape, np.nan))[copy, agent] = number
        return found

    def _accepts(self, name: Any) -> bool:
        if not isinstance(name, str):
            return False
        return name in self._names or (len(self._names) < MAX_NAMES and is_name(name))


def is_name(name: str) -> bool:
    """Returns whether a name of a metric is short and fits a table, a CSV header and a tracker."""
    return _NAME.fullmatch(name) is not None


def _finite_number(value: Any) -> float | None:
    """Returns a scalar as a float; None for any other value, NaN and infinities."""
    if not isinstance(value, bool | int | float | np.bool_ | np.integer | np.floating):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if np.isfinite(number) else None
