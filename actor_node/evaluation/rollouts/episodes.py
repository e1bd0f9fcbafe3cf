"""Types that all rollouts share: actors, watchers of the progress, and the results of episodes.

Legend: E episodes, T steps of the longest, A agents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec
import numpy as np
import numpy.typing as npt

from common.policy.heads import Floats

Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Actor(Protocol):
    """Anything that chooses joint actions, such as a `Policy` or a random team. It is not an actor process."""

    def act(self, obs: Floats) -> Floats:
        """Returns joint actions `[copies, sum action]` for joint observations `[copies, sum obs]`."""
        ...


@runtime_checkable
class RemembersEpisodes(Protocol):
    """An actor whose actions depend on earlier steps of the episode, such as an `EpisodePolicy`."""

    def start_episodes(self) -> None:
        """Starts new episodes in all copies that it acts in."""
        ...


def start_episodes(actor: Actor) -> None:
    """Lets an actor forget all earlier steps, if it remembers any."""
    if isinstance(actor, RemembersEpisodes):
        actor.start_episodes()


class Watcher:
    """Receives the progress of rollouts; this base class ignores it.

    `poll` is called often and may raise an exception to end the rollouts.
    """

    def done(self, episodes: int, total: int) -> None:
        """Receives the number of finished episodes and the number that is expected."""

    def notify(self, text: str) -> None:
        """Receives a line for the user."""

    def poll(self, playing: int = 0) -> None:
        """Is called at least every few steps; playing: number of episodes in progress, where it is known."""


def ignore_progress(_episodes: int) -> None:
    """Ignores the number of finished episodes: the default of functions that report it."""


class ProgressCallback(Watcher):
    """Passes the number of finished episodes to a function."""

    def __init__(self, progress: Callable[[int], object]) -> None:
        self._progress = progress

    def done(self, episodes: int, total: int) -> None:  # noqa: ARG002  (the function takes the first only)
        """Calls the function with the number of finished episodes."""
        self._progress(episodes)


class Episode(msgspec.Struct, frozen=True):
    """The result of one episode."""

    number: int
    """The episode's seed is the first seed plus this number."""
    returns: tuple[float, ...] = ()
    """One return for each agent; empty if the episode failed."""
    length: int = 0
    cut: bool = False
    """Whether the limit on steps ended the episode."""
    shared: bool = False
    """Whether all present agents received equal rewards in every step."""
    failure: str = ""
    """The exception of the environment; empty if the episode succeeded."""
    metrics: dict[str, tuple[float, float | None]] = {}
    """Numbers in the infos by name: the mean over steps, and the value at the last step (episode_metrics.py)."""


class EpisodeBatch(NamedTuple):
    """The results of episodes in a batched world, step by step. Steps after an episode's end are zeros."""

    reward: Float64s
    """[E, T, A]."""
    played: Bools
    """[E, T]: whether the episode was still running in that step."""
    metrics: Mapping[str, Float64s]
    """name -> [E, T, A]: the world's benchmark data; empty if it has none."""
    cut: Bools | None = None
    """[E]: whether the limit on steps ended the episode; None if it ended no episode."""

    @property
    def returns(self) -> Float64s:
        """Rewards summed over each episode, [E, A]."""
        summed: Float64s = self.reward.sum(axis=1)
        return summed

    @property
    def last(self) -> npt.NDArray[np.intp]:
        """Index of each episode's last step, [E]."""
        steps: npt.NDArray[np.intp] = self.played.sum(axis=1) - 1
        return steps


class RolloutStats(NamedTuple):
    """The results of episodes in the order of their seeds. Failed episodes are in `failures` only."""

    returns: Float64s
    """[E, A]."""
    lengths: npt.NDArray[np.intp]
    """[E]."""
    cut: Bools
    """[E]: whether the limit on steps ended the episode."""
    shared: bool
    """Whether all agents received equal rewards in every step of every episode; False for one agent."""
    steps: EpisodeBatch | None
    """The episodes step by step, for the metrics of the world; None if the world has none."""
    numbers: npt.NDArray[np.intp]
    """[E]: number of each episode."""
    failures: tuple[Episode, ...] = ()
    info_metrics: Mapping[str, Float64s] = MappingProxyType({})
    """name -> [E]: metrics from the infos of the environment, NaN where an episode lacks them."""

    @classmethod
    def of_batch(cls, batch: EpisodeBatch) -> RolloutStats:
        """Returns the statistics of episodes in a batched world."""
        first = batch.reward[..., :1]
        shared = batch.reward.shape[-1] > 1 and bool((batch.reward == first).all())
        cut = np.zeros(len(batch.reward), np.bool_) if batch.cut is None else batch.cut
        return cls(batch.returns, batch.last + 1, cut, shared, batch, np.arange(len(batch.reward)))

    @classmethod
    def of_episodes(cls, episodes: Sequence[Episode], agents: int) -> RolloutStats:
        """Returns the statistics of episodes that were played one by one, in any order."""
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


class Trajectories(NamedTuple):
    """Episodes side by side as arrays with time first: what a diagnosis gives to critics.

    T steps, W the first of them with observations and actions, E episodes. Steps after an episode's end have
    `present` 0 and `reward` 0.
    """

    obs: Floats
    """[W, E, sum obs]."""
    action: Floats
    """[W, E, sum action]."""
    reward: Floats
    """[T, E, A]."""
    discount: Floats
    """[T, E, A]: 0.0 where the agent truly terminated."""
    present: Floats
    """[T, E, A]: 1.0 where the agent acted."""
    state: Floats | None = None
    """[W, E, state]: the global states; None if critics do not read them."""
