"""Rollouts in a world whose copies step together: the batched MPE worlds, mpe2 itself, and diagnosis in any world.

    reset(seed + e) -> act -> step -> ... until every episode of the batch is over -> the next batch

`play_batch` is the only loop; evaluation, tournaments, ablations and diagnosis call it. An exception of the environment
ends the rollouts; `copies.py` plays environments that may raise one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from actor_node.evaluation.rollouts.episodes import (
    Actor,
    Bools,
    EpisodeBatch,
    Float64s,
    Trajectories,
    start_episodes,
)
from common.policy.heads import Floats
from common.worlds import Step, World, global_state


class TrajectoryRecorder:
    """Records the transitions of one batch of episodes.

    Example:
        recorder = TrajectoryRecorder(obs_steps=25)
        play_batch(world, policy, seeds=range(world.copies), recorder=recorder)
        recorder.trajectories().obs  # [25, copies, sum obs]
    """

    def __init__(self, obs_steps: int, patience_s: float = math.inf) -> None:
        """obs_steps: number of first steps whose observations and actions are recorded.

        patience_s: later steps are played only while the whole batch has taken at most this time [s].
        """
        self._obs_steps, self._patience_s = obs_steps, patience_s
        self._started_at = time.monotonic()
        self._seen: list[tuple[Floats, Floats]] = []
        self._states: list[Floats] = []
        self._signals: list[tuple[Floats, Floats, Floats]] = []

    @property
    def is_full(self) -> bool:
        """Whether the recorder needs no further step: the observed steps are recorded and the patience is over."""
        enough = len(self._signals) >= self._obs_steps
        return enough and time.monotonic() - self._started_at > self._patience_s

    def add(self, obs: Floats, action: Floats, step: Step, running: Bools, *, state: Floats | None = None) -> None:
        """Records one step of all copies.

        running: `[copies]`, whether the copy's episode was running before the step. state: the global states before it.
        """
        if len(self._seen) < self._obs_steps:
            self._seen.append((obs, action))
            if state is not None:
                self._states.append(state)
        alive = running[:, None]
        self._signals.append((step.reward * alive, step.discount, step.present * alive))

    def trajectories(self) -> Trajectories:
        """Returns all that was recorded."""
        obs, action = (np.stack(column) for column in zip(*self._seen, strict=True))
        reward, discount, present = (np.stack(column).astype(np.float32) for column in zip(*self._signals, strict=True))
        state = np.stack(self._states) if self._states else None
        return Trajectories(obs, action, reward, discount, present, state)


def play_episodes(
    world: World,
    team: Actor,
    episodes: int,
    seed: int,
    progress: Callable[[int], object],
    *,
    max_steps: int = 0,
    poll: Callable[[], object] = lambda: None,
    wants_more: Callable[[int], bool] = lambda _: True,
) -> EpisodeBatch:
    """Plays `episodes` episodes; episode e starts from `reset(seed=seed + e)`.

    progress: called with the number of finished episodes. max_steps: limit on steps of an episode; 0 sets none.
    poll: called before each step. wants_more: called between batches with the number of finished episodes; False ends
    the rollouts.
    """
    batches = []
    for first in range(0, episodes, world.copies):
        if first and not wants_more(first):
            break
        count = min(world.copies, episodes - first)
        seeds = range(seed + first, seed + first + world.copies)
        batches.append(play_batch(world, team, seeds, count, max_steps=max_steps, poll=poll))
        progress(first + count)
    longest = max(batch.played.shape[1] for batch in batches)
    padded = [_padded(batch, longest) for batch in batches]
    return EpisodeBatch(
        reward=np.concatenate([batch.reward for batch in padded]),
        played=np.concatenate([batch.played for batch in padded]),
        metrics={name: np.concatenate([batch.metrics[name] for batch in padded]) for name in padded[0].metrics},
        cut=np.concatenate([batch.cut for batch in padded if batch.cut is not None]),
    )


def play_batch(
    world: World,
    team: Actor,
    seeds: range,
    episodes: int | None = None,
    *,
    max_steps: int = 0,
    poll: Callable[[], object] = lambda: None,
    recorder: TrajectoryRecorder | None = None,
) -> EpisodeBatch:
    """Plays one episode in every copy, copy c from `reset(seed=seeds[c])`; returns the first `episodes` of them.

    episodes: None returns those of all copies. max_steps: limit on steps of an episode; 0 sets none. poll: called
    before each step. recorder: records the transitions of all copies, and may end the batch early.
    """
    obs = world.reset(seeds)
    start_episodes(team)
    running = np.ones(world.copies, bool)
    rewards: list[npt.NDArray[np.float32]] = []
    metrics: list[Mapping[str, Float64s]] = []
    played: list[Bools] = []
    while running[:episodes].any() and not 0 < max_steps <= len(played):
        if recorder is not None and recorder.is_full:
            break
        poll()
        action = team.act(obs)
        state = global_state(world) if recorder is not None else None
        step = world.step(action)
        if recorder is not None:
            recorder.add(obs, action, step, running, state=state)
        rewards.append(step.reward)
        metrics.append(step.metrics)
        played.append(running)
        running = running & ~step.episode_over
        obs = step.obs
    mask = np.stack(played, axis=1)[:episodes]

    def over_time(rows: list[npt.NDArray[np.float32]] | list[Float64s]) -> Float64s:
        return np.where(mask[..., None], np.stack(rows, axis=1, dtype=np.float64)[:episodes], 0.0)

    return EpisodeBatch(
        reward=over_time(rewards),
        played=mask,
        metrics={name: over_time([each[name] for each in metrics]) for name in metrics[0]},
        cut=running[:episodes].copy(),
    )


def _padded(batch: EpisodeBatch, steps: int) -> EpisodeBatch:
    """Returns a batch extended to `steps` steps."""
    missing = steps - batch.played.shape[1]
    longer = ((0, 0), (0, missing), (0, 0))
    return EpisodeBatch(
        reward=np.pad(batch.reward, longer),
        played=np.pad(batch.played, longer[:2]),
        metrics={name: np.pad(rows, longer) for name, rows in batch.metrics.items()},
        cut=batch.cut,
    )
