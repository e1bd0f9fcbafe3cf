"""Whole episodes played from known seeds, and what is kept of them: rewards and metrics, never observations.

    batched       reset(seed + e) -> act -> step -> ... until every episode of the batch is over -> the next batch
    side by side  a free copy takes the next seed -> one forward pass for all copies -> each copy steps -> ...

Legend: E episodes, T steps of the longest, A agents. Steps after an episode's end are zero, and marked as not played.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from common.policy.heads import Floats
from common.worlds import World

Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Actor(Protocol):
    """Whatever chooses joint actions."""

    def act(self, obs: Floats) -> Floats:
        """Returns joint actions `[copies, sum action]` for joint observations `[copies, sum obs]`."""
        ...


class Watcher:
    """Hears how far play has come; this one says nothing. `tick` is called often and may raise to end the play."""

    def done(self, episodes: int, total: int) -> None:
        """Hears how many episodes are done of how many that are expected."""

    def say(self, text: str) -> None:
        """Hears a line for the user."""

    def tick(self, playing: int = 0) -> None:
        """Is called at least every few steps; playing: episodes under way, where that is known."""


class Reporting(Watcher):
    """Passes the number of episodes done to a function."""

    def __init__(self, progress: Callable[[int], object]) -> None:
        self._progress = progress

    def done(self, episodes: int, total: int) -> None:  # noqa: ARG002  (only the first is passed on)
        """Calls the function."""
        self._progress(episodes)


class Episode(msgspec.Struct, frozen=True):
    """One episode that was played."""

    number: int
    """Its seed is the first seed plus this."""
    returns: tuple[float, ...] = ()
    """By agent; empty where the episode failed."""
    length: int = 0
    cut: bool = False
    """Whether the limit on steps ended it."""
    shared: bool = False
    """Whether all present agents had equal rewards in every step."""
    failure: str = ""
    """What the environment raised, empty where the episode was played."""


class EpisodeBatch(NamedTuple):
    """What episodes of a batched world gave, step by step."""

    reward: Float64s
    """[E, T, A]."""
    played: Bools
    """[E, T]: whether the episode still ran in that step."""
    metrics: Mapping[str, Float64s]
    """name -> [E, T, A]: the world's benchmark data, where it gives any."""
    cut: Bools | None = None
    """[E]: whether the limit on steps ended the episode; None = none was."""

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


class RolloutStats(NamedTuple):
    """What episodes gave, in the order of their seeds; those that failed are left out."""

    returns: Float64s
    """[E, A]."""
    lengths: npt.NDArray[np.intp]
    """[E]."""
    cut: Bools
    """[E]: whether the limit on steps ended the episode."""
    shared: bool
    """Whether all agents had equal rewards in every step of every episode; False where there is one agent."""
    steps: EpisodeBatch | None
    """Step by step, where the world has metrics to be made of it."""
    numbers: npt.NDArray[np.intp]
    """[E]: which episodes those are."""
    failures: tuple[Episode, ...] = ()

    @classmethod
    def of_played(cls, played: EpisodeBatch) -> RolloutStats:
        """Returns the rollouts of a batched world."""
        first = played.reward[..., :1]
        shared = played.reward.shape[-1] > 1 and bool((played.reward == first).all())
        cut = np.zeros(len(played.reward), np.bool_) if played.cut is None else played.cut
        return cls(played.returns, played.last + 1, cut, shared, played, np.arange(len(played.reward)))

    @classmethod
    def of_episodes(cls, episodes: Sequence[Episode], agents: int) -> RolloutStats:
        """Returns the rollouts of episodes that were played one by one, in whatever order."""
        ordered = sorted(episodes, key=lambda each: each.number)
        good = [each for each in ordered if not each.failure]
        return cls(
            returns=np.array([each.returns for each in good], np.float64).reshape(len(good), agents),
            lengths=np.array([each.length for each in good], np.intp),
            cut=np.array([each.cut for each in good], np.bool_),
            shared=agents > 1 and bool(good) and all(each.shared for each in good),
            steps=None,
            numbers=np.array([each.number for each in good], np.intp),
            failures=tuple(each for each in ordered if each.failure),
        )


def play_episodes(
    world: World,
    team: Actor,
    episodes: int,
    seed: int,
    progress: Callable[[int], object],
    *,
    max_steps: int = 0,
    tick: Callable[[], object] = lambda: None,
    goes_on: Callable[[int], bool] = lambda _: True,
) -> EpisodeBatch:
    """Plays `episodes` episodes; episode e starts from `reset(seed=seed + e)`.

    progress: called with the number of episodes done. max_steps: cuts an episode off; 0 = as the world ends it.
    tick: called before each step. goes_on: asked between batches, with the episodes done, whether to play another.
    """
    batches = []
    for first in range(0, episodes, world.copies):
        if first and not goes_on(first):
            break
        count = min(world.copies, episodes - first)
        seeds = range(seed + first, seed + first + world.copies)
        batches.append(_play_batch(world, team, seeds, count, max_steps=max_steps, tick=tick))
        progress(first + count)
    longest = max(batch.played.shape[1] for batch in batches)
    padded = [_padded(batch, longest) for batch in batches]
    return EpisodeBatch(
        reward=np.concatenate([batch.reward for batch in padded]),
        played=np.concatenate([batch.played for batch in padded]),
        metrics={name: np.concatenate([batch.metrics[name] for batch in padded]) for name in padded[0].metrics},
        cut=np.concatenate([batch.cut for batch in padded if batch.cut is not None]),
    )


def _play_batch(
    world: World, team: Actor, seeds: range, count: int, *, max_steps: int, tick: Callable[[], object]
) -> EpisodeBatch:
    """Plays one episode in every copy; returns the first `count` of them."""
    obs = world.reset(seeds)
    running = np.ones(world.copies, bool)
    rewards: list[npt.NDArray[np.float32]] = []
    metrics: list[Mapping[str, Float64s]] = []
    played: list[Bools] = []
    while running[:count].any() and not 0 < max_steps <= len(played):
        tick()
        step = world.step(team.act(obs))
        rewards.append(step.reward)
        metrics.append(step.metrics)
        played.append(running)
        running = running & ~step.episode_over
        obs = step.obs
    mask = np.stack(played, axis=1)[:count]

    def over_time(rows: list[npt.NDArray[np.float32]] | list[Float64s]) -> Float64s:
        return np.where(mask[..., None], np.stack(rows, axis=1, dtype=np.float64)[:count], 0.0)

    return EpisodeBatch(
        reward=over_time(rewards),
        played=mask,
        metrics={name: over_time([each[name] for each in metrics]) for name in metrics[0]},
        cut=running[:count].copy(),
    )


def _padded(batch: EpisodeBatch, steps: int) -> EpisodeBatch:
    """Returns a batch as long as the longest."""
    missing = steps - batch.played.shape[1]
    longer = ((0, 0), (0, missing), (0, 0))
    return EpisodeBatch(
        reward=np.pad(batch.reward, longer),
        played=np.pad(batch.played, longer[:2]),
        metrics={name: np.pad(rows, longer) for name, rows in batch.metrics.items()},
        cut=batch.cut,
    )
