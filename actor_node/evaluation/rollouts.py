"""A team's episodes in the world that is asked for: batched, in mpe2 itself, or in an environment of the user's.

| world                        | played                                              | episodes if not given         |
|------------------------------|-----------------------------------------------------|-------------------------------|
| batched                      | 50 copies step together; some also in mpe2, checked | 1,000                         |
| mpe2 itself                  | 50 copies step together                             | as many as fit into the time  |
| `pettingzoo:` environments   | copies side by side, in processes (process_pool.py) | as many as fit into the time  |
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from actor_node.evaluation.batched_rollouts import Actor, EpisodeBatch, RolloutStats, Watcher, play_episodes
from actor_node.evaluation.process_pool import LEAST_EPISODES, MOST_EPISODES, Extent, play_in_processes
from actor_node.evaluation.task import EvalGame, EvalTask, is_foreign, make_eval_world, one_copy
from common.errors import ConfigError, WorldError
from common.policy.heads import Floats

COPIES = 50
"""Environments stepped side by side, so that a policy's forward pass serves many.

The batched world takes as many: the same products of the same sizes then give the same bits as in mpe2.
"""
FOREIGN_COPIES = 8
"""Of an environment whose run does not say with how many it was trained."""
DEFAULT_BOUND = 10_000
"""Steps after which an episode is cut off where nobody has said when."""


class PlayOptions(NamedTuple):
    """How much is played, and by whom."""

    episodes: int = 0
    """0 = what the table above says."""
    within_s: float = 60.0
    """Where the time decides: how long episodes are begun."""
    processes: int = 0
    """Of an environment that is not batched; 0 = in this process."""
    copies: int = 0
    """In each process, at most; 0 = COPIES, of an environment that is not batched FOREIGN_COPIES."""
    max_steps: int = 0
    """Of an episode; 0 = what the run says, or as the world ends it."""
    at_most: int = MOST_EPISODES
    """Where the time decides: no more episodes than these."""


class RolloutResult(NamedTuple):
    """What was played, and where."""

    rollouts: RolloutStats
    world: str
    """The environment that was stepped."""
    checked: int = 0
    """Episodes that were also played in mpe2 and gave the same."""
    bound: int = 0
    """Steps after which an episode was cut off; 0 = none was."""


class RolloutTask(NamedTuple):
    """Whose episodes, and where."""

    game: EvalGame
    name: str
    """Of the team, in errors."""
    make_team: Callable[[], Actor]
    """Goes to other processes pickled where there are any."""
    seed: int
    """Of the first episode; episode e has seed + e."""
    ground: EvalTask


def run_rollouts(task: RolloutTask, options: PlayOptions, watcher: Watcher) -> RolloutResult:
    """Plays a team's episodes; episode e starts from `reset(seed=task.seed + e)`, whoever plays it.

    Raises ConfigError for a ground that the world does not have, WorldError where no episode could be played.
    """
    bound = options.max_steps or task.game.spec.episode.max_steps
    if is_foreign(task.game.spec) and not task.ground.batched:
        return _in_foreign(task, options, bound or DEFAULT_BOUND, watcher)
    played, world = _in_copies(task, options, bound, watcher)
    if not task.ground.fast or not task.ground.check:
        return RolloutResult(RolloutStats.of_played(played), world, bound=bound)
    try:
        checked = _checked(task, played, bound, watcher)
    except ConfigError as e:
        watcher.say(f"not checked in mpe2: {e}")
        checked = 0
    if checked is None:
        watcher.say(
            "warning: the batched world gives other returns than the installed mpe2 for the same seeds; "
            "playing all episodes in mpe2"
        )
        played, world = _in_copies(task._replace(ground=EvalTask()), options, bound, watcher)
    return RolloutResult(RolloutStats.of_played(played), world, checked or 0, bound)


def _in_foreign(task: RolloutTask, options: PlayOptions, bound: int, watcher: Watcher) -> RolloutResult:
    copies = min(options.copies or FOREIGN_COPIES, options.episodes or options.at_most)
    extent = Extent(options.episodes, options.within_s, options.processes, copies, bound, options.at_most)
    game = task.game
    ended = play_in_processes(partial(one_copy, game, task.name), task.make_team, task.seed, extent, watcher)
    rollouts = RolloutStats.of_episodes(ended.episodes, len(game.joint.agents))
    if not len(rollouts.returns):
        first = rollouts.failures[0].failure if rollouts.failures else "no process is left that plays"
        raise WorldError(f"{task.name}: no episode could be played: {first}")
    return RolloutResult(rollouts, game.spec.scenario, bound=bound)


def _in_copies(task: RolloutTask, options: PlayOptions, bound: int, watcher: Watcher) -> tuple[EpisodeBatch, str]:
    """Plays in copies that step together; returns also the world's name."""
    by_time = not options.episodes and not task.ground.batched
    episodes = options.episodes or options.at_most
    world = make_eval_world(task.game, min(options.copies or COPIES, episodes), task.seed, task.ground, task.name)
    began_at = time.monotonic()

    def goes_on(done: int) -> bool:
        return not by_time or done < LEAST_EPISODES or time.monotonic() - began_at < options.within_s

    def progress(done: int) -> None:
        expected = episodes
        if by_time:
            fitting = int(done / max(time.monotonic() - began_at, 1e-3) * options.within_s)
            expected = min(max(done, fitting), episodes)
        watcher.done(done, expected)

    try:
        played = play_episodes(
            world,
            task.make_team(),
            episodes,
            task.seed,
            progress,
            max_steps=bound,
            tick=watcher.tick,
            goes_on=goes_on,
        )
    finally:
        world.close()
    return played, world.name


def _checked(task: RolloutTask, played: EpisodeBatch, bound: int, watcher: Watcher) -> int | None:
    """Plays the first episodes in mpe2 too; returns how many were the same, None where any differed."""
    count = min(task.ground.check, len(played.reward))
    rows = min(COPIES, len(played.reward))
    world = make_eval_world(task.game, count, task.seed, EvalTask(), task.name)
    team = _Padded(task.make_team(), rows)
    try:
        real = play_episodes(world, team, count, task.seed, int, max_steps=bound, tick=watcher.tick)
    finally:
        world.close()
    steps = real.reward.shape[1]
    same = np.array_equal(real.reward, played.reward[:count, :steps]) and not played.played[:count, steps:].any()
    return count if same else None


class _Padded:
    """A team that computes more rows than are asked for: products of other sizes may give other last bits."""

    def __init__(self, team: Actor, rows: int) -> None:
        self._team, self._rows = team, rows

    def act(self, obs: Floats) -> Floats:
        """Returns joint actions `[copies, sum action]`."""
        padded = np.zeros((self._rows, obs.shape[1]), np.float32)
        padded[: len(obs)] = obs
        return self._team.act(padded)[: len(obs)]
