"""Metrics of an environment's own: the numbers in its infos, over whole episodes.

    Step.metrics --EpisodeMetrics--> Episode.metrics --metrics_of_episodes--> name and final_name, a number an episode

NAME is the mean over the steps and agents that gave the number. `final_NAME` is the mean over agents of the number at
each agent's last step, for example whether the agent succeeded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from actor_node.evaluation.rollouts.episodes import Episode, EpisodeBatch, Float64s
from common.worlds import Step
from common.worlds.adapters.info_metrics import MAX_NAMES, is_name

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


def metrics_of_episodes(episodes: Sequence[Episode]) -> tuple[dict[str, Float64s], list[str]]:
    """Returns the metrics of the episodes that succeeded, name -> [E] in their order, and the names that are left out.

    Values are NaN where an episode lacks the number. A name that another column of the table has is left out, and so
    are names after the first MAX_NAMES.
    """
    good = sorted((each for each in episodes if not each.failure), key=lambda each: each.number)
    figures: dict[str, tuple[Float64s, Float64s]] = {}
    for name in dict.fromkeys(name for episode in good for name in episode.metrics):
        values = [episode.metrics.get(name, (np.nan, None)) for episode in good]
        means, last = zip(*values, strict=True)
        figures[name] = np.array(means, np.float64), np.array([np.nan if one is None else one for one in last])
    return _as_columns(figures)


def metrics_of_batch(batch: EpisodeBatch) -> tuple[dict[str, Float64s], list[str]]:
    """Returns what `metrics_of_episodes` does, of a vectorised world whose steps contain metrics."""
    figures: dict[str, tuple[Float64s, Float64s]] = {}
    for name, rows in batch.metrics.items():
        values = np.where(batch.played[..., None], rows, np.nan)
        figures[name] = _means(values, (1, 2)), _means(values[np.arange(len(values)), batch.last], (1,))
    return _as_columns(figures)


def _as_columns(figures: Mapping[str, tuple[Float64s, Float64s]]) -> tuple[dict[str, Float64s], list[str]]:
    """Returns the columns NAME and final_NAME of the table, and the names that are left out."""
    metrics: dict[str, Float64s] = {}
    refused: list[str] = []
    taken = set(_COLUMNS)
    for i, (name, values) in enumerate(figures.items()):
        columns = {f"{column}{end}" for column in (name, FINAL + name) for end in ("", "_low", "_high")}
        if columns & taken or i >= MAX_NAMES or not is_name(name):
            refused.append(name)
            continue
        taken |= columns
        metrics[name], metrics[FINAL + name] = values
    return {name: column for name, column in metrics.items() if np.isfinite(column).any()}, refused


def meaning_of(name: str, metrics: Mapping[str, object]) -> str:
    """Returns what a metric of an environment's own is, for people."""
    base = name.removeprefix(FINAL)
    if base != name and base in metrics:
        return f"{base} at each agent's last step"
    return f"{name} in the infos, mean over steps and agents"


def _means(values: Float64s, axes: tuple[int, ...]) -> Float64s:
    """Returns the means over some axes of the finite values; NaN where there is none."""
    given = np.isfinite(values)
    counts = given.sum(axis=axes)
    means: Float64s = np.where(counts > 0, np.where(given, values, 0.0).sum(axis=axes) / np.maximum(counts, 1), np.nan)
    return means


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    given = values[np.isfinite(values)]
    return float(given.mean()) if len(given) else None
