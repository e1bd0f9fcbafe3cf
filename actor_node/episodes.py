"""Whole episodes played from known seeds, with everything that is measured of them.

    reset(seed + e) -> act -> step -> ... until every episode of the batch is over -> the next batch of seeds

Legend: E episodes, T steps of the longest, A agents. What an episode does not reach any more is zero, and not played.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from common.heads import Floats
from common.worlds import Step, World

Float64s = npt.NDArray[np.float64]


class Acts(Protocol):
    """Whatever chooses joint actions."""

    def act(self, obs: Floats) -> Floats:
        """Returns joint actions `[copies, sum action]` for joint observations `[copies, sum obs]`."""
        ...


class Played(NamedTuple):
    """What episodes gave, step by step."""

    reward: Float64s
    """[E, T, A]."""
    played: npt.NDArray[np.bool_]
    """[E, T]: whether the episode still ran in that step."""
    metrics: Mapping[str, Float64s]
    """name -> [E, T, A]: the world's benchmark data, where it gives any."""

    @property
    def returns(self) -> Float64s:
        """[E, A]: rewards summed over each episode."""
        summed: Float64s = self.reward.sum(axis=1)
        return summed

    @property
    def last(self) -> npt.NDArray[np.intp]:
        """[E]: the last step of each episode."""
        steps: npt.NDArray[np.intp] = self.played.sum(axis=1) - 1
        return steps


def play_episodes(world: World, team: Acts, episodes: int, seed: int, progress: Callable[[int], object]) -> Played:
    """Plays `episodes` episodes; episode e starts from `reset(seed=seed + e)`.

    progress: called with the number of episodes done.
    """
    batches = []
    for first in range(0, episodes, world.copies):
        count = min(world.copies, episodes - first)
        batches.append(_play_batch(world, team, range(seed + first, seed + first + world.copies), count))
        progress(first + count)
    longest = max(batch.played.shape[1] for batch in batches)
    padded = [_padded(batch, longest) for batch in batches]
    return Played(
        reward=np.concatenate([batch.reward for batch in padded]),
        played=np.concatenate([batch.played for batch in padded]),
        metrics={name: np.concatenate([batch.metrics[name] for batch in padded]) for name in padded[0].metrics},
    )


def _play_batch(world: World, team: Acts, seeds: range, count: int) -> Played:
    """Plays one episode in every copy; returns the first `count` of them."""
    obs = world.reset(seeds)
    running = np.ones(world.copies, bool)
    steps: list[Step] = []
    played: list[npt.NDArray[np.bool_]] = []
    while running[:count].any():
        step = world.step(team.act(obs))
        steps.append(step)
        played.append(running)
        running = running & ~step.episode_over
        obs = step.obs
    mask = np.stack(played, axis=1)[:count]

    def over_time(rows: list[npt.NDArray[np.float32]] | list[Float64s]) -> Float64s:
        return np.where(mask[..., None], np.stack(rows, axis=1, dtype=np.float64)[:count], 0.0)

    return Played(
        reward=over_time([step.reward for step in steps]),
        played=mask,
        metrics={name: over_time([step.metrics[name] for step in steps]) for name in steps[0].metrics},
    )


def _padded(batch: Played, steps: int) -> Played:
    """Returns a batch as long as the longest."""
    missing = steps - batch.played.shape[1]
    longer = ((0, 0), (0, missing), (0, 0))
    return Played(
        reward=np.pad(batch.reward, longer),
        played=np.pad(batch.played, longer[:2]),
        metrics={name: np.pad(rows, longer) for name, rows in batch.metrics.items()},
    )
