"""Metrics of an environment's own: the numbers in its infos, over whole episodes.

    Step.metrics --EpisodeMetrics--> Episode.metrics --info_metrics--> name and final_name -> one number an episode

NAME is the mean over the steps and agents that gave the number. `final_NAME` is the mean over agents of the number at
each agent's last step, for example whether the agent succeeded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from actor_node.evaluation.episodes import Episode, Float64s
from common.worlds import Step
from common.worlds.adapters.info_metrics import MAX_NAMES

FINAL = "final_"
_COLUMNS = frozenset(
    ("return_mean", "kind", "name", "scenario", "algorithm", "runs", "run_seed", "episodes", "seed", "updates")
)
"""The other columns of the table of `shoal evaluate`."""


class EpisodeMetrics:
    """Adds up the metrics of one episode in progress.

    Example:
        metrics = EpisodeMetrics(agents=2)
        metrics.add(world.step(actions))
        metrics.result()  # {"success": (0.25, 1.0)}
    """

    def __init__(self, agents: int) -> None:
        self._agents = agents
        self._sums: dict[str, tuple[float, int]] = {}
        self._last: dict[str, npt.NDArray[np.float64]] = {}

    def add(self, step: Step) -> None:
        """Adds one step of a world with one copy."""
        present = step.present[0] > 0
        for name, rows in step.metrics.items():
            values = rows[0][present]
            given = values[np.isfinite(values)]
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + float(given.sum()), count + len(given)
            self._last.setdefault(name, np.full(self._agents, np.nan))[present] = values

    def result(self) -> dict[str, tuple[float, float | None]]:
        """Returns name -> mean over steps and agents, and mean over agents of the last value if any agent gave one."""
        return {name: (total / count, _mean(self._last[name])) for name, (total, count) in self._sums.items() if count}


def info_metrics(episodes: Sequence[Episode]) -> tuple[dict[str, Float64s], list[str]]:
    """Returns the metrics of the episodes that succeeded, name -> [E] in their order, and the names that are left out.

    Values are NaN where an episode lacks the number. A name that another column of the table has is left out, and so
    are names after the first MAX_NAMES.
    """
    good = sorted((each for each in episodes if not each.failure), key=lambda each: each.number)
    metrics: dict[str, Float64s] = {}
    refused: list[str] = []
    taken = set(_COLUMNS)
    names = dict.fromkeys(name for episode in good for name in episode.metrics)
    for i, name in enumerate(names):
        columns = {f"{column}{end}" for column in (name, FINAL + name) for end in ("", "_low", "_high")}
        if columns & taken or i >= MAX_NAMES:
            refused.append(name)
            continue
        taken |= columns
        values = [episode.metrics.get(name, (np.nan, None)) for episode in good]
        metrics[name] = np.array([mean for mean, _ in values], np.float64)
        metrics[FINAL + name] = np.array([np.nan if last is None else last for _, last in values], np.float64)
    return {name: column for name, column in metrics.items() if np.isfinite(column).any()}, refused


def meaning_of(name: str, metrics: Mapping[str, object]) -> str:
    """Returns what a metric of an environment's own is, for people."""
    base = name.removeprefix(FINAL)
    if base != name and base in metrics:
        return f"{base} at each agent's last step"
    return f"{name} in the infos, mean over steps and agents"


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    given = values[np.isfinite(values)]
    return float(given.mean()) if len(given) else None
