"""Plays a team's episodes in the requested world: batched, mpe2 itself, or the user's environment.

| world                      | played by                                           | default episodes       |
|----------------------------|-----------------------------------------------------|------------------------|
| batched, Shoal's own       | batched.py, 50 copies; some also in mpe2, as a check | 1,000                  |
| `batched:`, `vmas:`        | batched.py, 50 copies                               | as many as time allows |
| mpe2 itself                | batched.py, 50 copies                               | as many as time allows |
| all other families         | copies.py, here or in processes (process_pool.py)   | as many as time allows |
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from actor_node.evaluation.episode_metrics import metrics_of_batch, metrics_of_episodes
from actor_node.evaluation.rollouts.batched import play_episodes
from actor_node.evaluation.rollouts.copies import make_copy_set, play_in_copies
from actor_node.evaluation.rollouts.episodes import (
    Actor,
    Episode,
    EpisodeBatch,
    Float64s,
    RolloutStats,
    Watcher,
    ignore_progress,
    start_episodes,
)
from actor_node.evaluation.rollouts.process_pool import PoolTask, ProcessPool
from actor_node.evaluation.rollouts.schedule import MAX_EPISODES, MIN_EPISODES, EpisodeSchedule, PlayLimits
from actor_node.evaluation.task import EvalTask, make_eval_copy, make_eval_world
from common.errors import ConfigError, WorldError
from common.policy.heads import Floats
from common.run.run import Run
from common.worlds import is_batched, is_foreign
from common.worlds.adapters.info_metrics import MAX_NAMES

COPIES = 50
"""Environments stepped together, so that one forward pass of the policy serves many.

The batched world also has this number of copies: matrix products of equal sizes give equal bits in both worlds.
"""
FOREIGN_COPIES = 8
"""Copies of an environment that is not batched, if its run does not name their number."""
DEFAULT_MAX_STEPS = 10_000
"""Limit on steps of an episode that has no other limit."""


class PlayOptions(NamedTuple):
    """How many episodes are played, in how many processes and copies."""

    episodes: int = 0
    """0 takes the default of the table above."""
    within_s: float = 60.0
    """Time during which episodes may start, if their number is not given [s]."""
    processes: int = 0
    """Processes for an environment that is not batched; 0 plays in this process."""
    copies: int = 0
    """Largest number of copies in each process; 0 takes COPIES, or FOREIGN_COPIES if the world is not batched."""
    max_steps: int = 0
    """Limit on steps of an episode; 0 takes the run's limit, or the environment's own."""
    max_episodes: int = MAX_EPISODES
    """Largest number of episodes, if their number is not given."""
    min_episodes: int = MIN_EPISODES
    """Number of episodes that are played even if the time is over, if their number is not given."""


class RolloutResult(NamedTuple):
    """The results of rollouts, and the world that was stepped."""

    rollouts: RolloutStats
    world: str
    """Name of the environment that was stepped."""
    checked: int = 0
    """Number of episodes that were also played in mpe2, with equal rewards."""
    max_steps: int = 0
    """Limit on steps of an episode; 0: there was none."""


class RolloutTask(NamedTuple):
    """A team and the episodes that it plays."""

    run: Run
    """The run whose world the team plays in."""
    name: str
    """Name of the team, for errors."""
    make_actor: Callable[[], Actor]
    """Must be picklable if there are other processes."""
    seed: int
    """Seed of the first episode; episode e has seed + e."""
    task: EvalTask


def run_rollouts(rollout: RolloutTask, options: PlayOptions, watcher: Watcher) -> RolloutResult:
    """Plays a team's episodes; episode e starts from `reset(seed=rollout.seed + e)` in whichever copy plays it.

    Raises ConfigError for a task that the world does not support, WorldError if every episode failed.
    """
    max_steps = options.max_steps or rollout.run.spec.episode.max_steps
    if is_foreign(rollout.run.spec.scenario) and not rollout.task.batched:
        max_steps = max_steps or DEFAULT_MAX_STEPS
        if not is_batched(rollout.run.spec.scenario):
            return _play_foreign(rollout, options, max_steps, watcher)
    batch, world = _play_batched(rollout, options, max_steps, watcher)
    if is_foreign(rollout.run.spec.scenario):
        metrics = _without_refused(metrics_of_batch(batch), watcher)
        return RolloutResult(RolloutStats.of_batch(batch)._replace(info_metrics=metrics), world, max_steps=max_steps)
    if not rollout.task.fast or not rollout.task.check:
        return RolloutResult(RolloutStats.of_batch(batch), world, max_steps=max_steps)
    try:
        checked = _check_in_mpe2(rollout, batch, max_steps, watcher)
    except ConfigError as e:
        watcher.notify(f"not checked in mpe2: {e}")
        checked = 0
    if checked is None:
        watcher.notify(
            "warning: the batched world and the installed mpe2 give different returns for the same seeds; "
            "playing all episodes in mpe2"
        )
        batch, world = _play_batched(rollout._replace(task=EvalTask()), options, max_steps, watcher)
    return RolloutResult(RolloutStats.of_batch(batch), world, checked or 0, max_steps)


def _play_foreign(rollout: RolloutTask, options: PlayOptions, max_steps: int, watcher: Watcher) -> RolloutResult:
    """Plays in copies of an environment that is not batched."""
    copies = min(options.copies or FOREIGN_COPIES, options.episodes or options.max_episodes)
    limits = PlayLimits(
        options.episodes,
        options.within_s,
        options.processes,
        copies,
        max_steps,
        options.max_episodes,
        options.min_episodes,
    )
    run = rollout.run
    task = PoolTask(partial(make_eval_copy, run, rollout.name), rollout.make_actor, rollout.seed, limits)
    episodes = ProcessPool(task, watcher).run() if limits.processes else _play_in_this_process(task, watcher)
    rollouts = RolloutStats.of_episodes(episodes, len(run.joint.agents))
    if not len(rollouts.returns):
        first = rollouts.failures[0].failure if rollouts.failures else "every evaluation process has ended"
        raise WorldError(f"{rollout.name}: every episode failed: {first}")
    metrics = _without_refused(metrics_of_episodes(episodes), watcher)
    return RolloutResult(rollouts._replace(info_metrics=metrics), run.spec.scenario, max_steps=max_steps)


def _without_refused(found: tuple[Mapping[str, Float64s], Sequence[str]], watcher: Watcher) -> Mapping[str, Float64s]:
    """Returns the metrics of an environment; tells the user of names that are left out."""
    metrics, refused = found
    if refused:
        watcher.notify(
            f"numbers in the infos that are not shown: {', '.join(refused)} (another column has the name, or there are "
            f"more than {MAX_NAMES} names)"
        )
    return metrics


def _play_in_this_process(task: PoolTask, watcher: Watcher) -> list[Episode]:
    schedule = EpisodeSchedule(task.limits, watcher)
    copies = make_copy_set(task.make, task.limits.copies)
    try:
        if copies.note:
            watcher.notify(copies.note)
        play_in_copies(
            copies,
            task.make_actor,
            task.seed,
            task.limits.max_steps,
            next_number=schedule.next_number,
            on_episode=schedule.add,
            poll=watcher.poll,
        )
    finally:
        copies.close()
    return schedule.episodes


def _play_batched(
    rollout: RolloutTask, options: PlayOptions, max_steps: int, watcher: Watcher
) -> tuple[EpisodeBatch, str]:
    """Plays in copies that step together; returns the episodes and the world's name."""
    by_time = not options.episodes and not rollout.task.batched
    episodes = options.episodes or options.max_episodes
    copies = min(options.copies or COPIES, episodes)
    world = make_eval_world(rollout.run, copies, rollout.seed, rollout.task, rollout.name)
    started_at = time.monotonic()

    def wants_more(done: int) -> bool:
        return not by_time or done < options.min_episodes or time.monotonic() - started_at < options.within_s

    def progress(done: int) -> None:
        expected = episodes
        if by_time:
            fitting = int(done / max(time.monotonic() - started_at, 1e-3) * options.within_s)
            expected = min(max(done, fitting), episodes)
        watcher.done(done, expected)

    try:
        batch = play_episodes(
            world,
            rollout.make_actor(),
            episodes,
            rollout.seed,
            progress,
            max_steps=max_steps,
            poll=watcher.poll,
            wants_more=wants_more,
        )
    finally:
        world.close()
    return batch, world.name


def _check_in_mpe2(rollout: RolloutTask, batch: EpisodeBatch, max_steps: int, watcher: Watcher) -> int | None:
    """Plays the first episodes in mpe2 too; returns their number if all rewards are equal, else None."""
    count = min(rollout.task.check, len(batch.reward))
    rows = min(COPIES, len(batch.reward))
    world = make_eval_world(rollout.run, count, rollout.seed, EvalTask(), rollout.name)
    team = _PaddedActor(rollout.make_actor(), rows)
    try:
        real = play_episodes(world, team, count, rollout.seed, ignore_progress, max_steps=max_steps, poll=watcher.poll)
    finally:
        world.close()
    steps = real.reward.shape[1]
    same = np.array_equal(real.reward, batch.reward[:count, :steps]) and not batch.played[:count, steps:].any()
    return count if same else None


class _PaddedActor:
    """A team that computes a fixed number of rows: matrix products of other sizes may differ in the last bits."""

    def __init__(self, team: Actor, rows: int) -> None:
        self._team, self._rows = team, rows

    def start_episodes(self) -> None:
        """Starts new episodes in all copies."""
        start_episodes(self._team)

    def act(self, obs: Floats) -> Floats:
        """Returns joint actions `[copies, sum action]`."""
        padded = np.zeros((self._rows, obs.shape[1]), np.float32)
        padded[: len(obs)] = obs
        return self._team.act(padded)[: len(obs)]
