"""Rollouts in copies of an environment that is not batched, all in this process: an exception costs one episode only.

    next_number() -> a free copy starts that episode -> one forward pass a copy -> every busy copy steps
                  -> on_episode(result) -> ...

`rollout.py` uses this in its own process; `play_process.py` uses it in each process of a pool. The policies are
computed for each copy separately: in a matrix product of several rows, the bits of a row depend on the number of rows
and, on some processors, on the row's position. So an episode's bits depend neither on the number of copies nor on the
copy that plays it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from actor_node.evaluation.episode_metrics import EpisodeMetrics
from actor_node.evaluation.rollouts.episodes import Actor, Episode, Float64s, start_episodes
from common.errors import ShoalError, WorldError
from common.policy.heads import Floats
from common.spec import AgentsSpec
from common.worlds import Step, World, global_state


@runtime_checkable
class StochasticTeam(Protocol):
    """A team with random actions; the episode's seed determines the random numbers of an episode."""

    def start_episode(self, row: int, seed: int) -> None:
        """Seeds the generator of one row of the observations that `act` receives."""
        ...


class CopySet:
    """Worlds of one copy each as one world: a copy that fails is absent until it starts its next episode.

    Like a `World`, it has `reset` and `step`; in them a copy that failed neither acts nor earns rewards.

    Example:
        copies = CopySet(lambda: make_world("pettingzoo:my_env", 1, restart_ended=False), 8)
        obs = copies.start_episode(0, seed=5)  # None if the environment failed
        step = copies.step_copy(0, action)
    """

    def __init__(self, make: Callable[[], World], copies: int) -> None:
        """Makes the copies. An exception of the first is raised; if a later one fails, the set has fewer copies."""
        self._make = make
        self._worlds: list[World | None] = [make()]
        self.note = ""
        """Why there are fewer copies than requested; empty if there are as many."""
        while len(self._worlds) < copies:
            try:
                self._worlds.append(make())
            except Exception as e:  # noqa: BLE001  (a constructor of the user's)
                made = len(self._worlds)
                self.note = (
                    f"copy {made + 1} of {copies} could not be made in the same process ({exception_text(e)}); "
                    f"continuing with {made}"
                )
                break
        first = self._worlds[0]
        if first is None:  # impossible; tells mypy that the first copy exists
            raise WorldError("no world")
        self.name, self.spec = first.name, first.spec
        self.copies = len(self._worlds)
        self.failures: dict[int, str] = {}
        """Index of each copy that failed -> its exception, until the copy starts its next episode."""
        self._obs = np.zeros((self.copies, self.spec.obs_dim), np.float32)

    def start_episode(self, copy: int, seed: int) -> Floats | None:
        """Starts an episode in one copy and returns its first joint observation `[sum obs]`; None if it fails."""
        self.failures.pop(copy, None)
        try:
            world = self._worlds[copy]
            if world is None:
                world = self._worlds[copy] = self._make()
            first: Floats = world.reset([seed])[0]
        except Exception as e:  # noqa: BLE001  (the user's code)
            self._fail(copy, e)
            return None
        return first

    def step_copy(self, copy: int, action: Floats) -> Step | None:
        """Steps one copy by its joint action; returns None if it fails."""
        world = self._worlds[copy]
        if world is None:
            return None
        try:
            return world.step(action[None])
        except Exception as e:  # noqa: BLE001  (the user's code)
            self._fail(copy, e)
            return None

    def reset(self, seeds: Sequence[int] | None = None) -> Floats:
        """Starts an episode in every copy; returns joint observations `[copies, sum obs]`, zeros for failed copies."""
        for copy in range(self.copies):
            first = self.start_episode(copy, copy if seeds is None else int(seeds[copy]))
            self._obs[copy] = 0.0 if first is None else first
        return self._obs.copy()

    def step(self, actions: Floats) -> Step:
        """Steps every copy that has not failed."""
        agents = len(self.spec.agents)
        obs, next_obs = np.zeros_like(self._obs), np.zeros_like(self._obs)
        reward, discount, present = (np.zeros((self.copies, agents), np.float32) for _ in range(3))
        over = np.ones(self.copies, np.bool_)
        for copy in range(self.copies):
            step = None if copy in self.failures else self.step_copy(copy, actions[copy])
            if step is not None:
                obs[copy], next_obs[copy], over[copy] = step.obs[0], step.next_obs[0], step.episode_over[0]
                reward[copy], discount[copy], present[copy] = step.reward[0], step.discount[0], step.present[0]
        return Step(obs, reward, discount, present, next_obs, over)

    def global_state(self) -> Floats:
        """Returns the global states for the next actions `[copies, state]`; zeros for failed copies."""
        states = np.zeros((self.copies, self.spec.state_dim), np.float32)
        for copy, world in enumerate(self._worlds):
            if world is not None and (state := global_state(world)) is not None:
                states[copy] = state[0]
        return states

    def close(self) -> None:
        """Closes every copy and ignores its exceptions."""
        for world in self._worlds:
            if world is not None:
                with contextlib.suppress(Exception):
                    world.close()

    def _fail(self, copy: int, error: Exception) -> None:
        """Stores a copy's exception and gives the copy up, because its state is unknown."""
        self.failures[copy] = exception_text(error)
        world, self._worlds[copy] = self._worlds[copy], None
        if world is not None:
            with contextlib.suppress(Exception):
                world.close()


def make_copy_set(make: Callable[[int], World], copies: int) -> CopySet:
    """Makes a set of copies; `make` receives 1, 2, 3, ... to seed each copy differently.

    Raises WorldError if the first copy cannot be made, ConfigError if the world refuses its options.
    """
    count = itertools.count(1)
    try:
        return CopySet(lambda: make(next(count)), copies)
    except ShoalError:
        raise
    except Exception as e:
        raise WorldError(f"the environment could not be made: {exception_text(e)}") from e


class _EpisodeInProgress(NamedTuple):
    """The episode in progress of one copy: its results so far."""

    number: int
    returns: Float64s
    length: int
    shared: bool
    metrics: EpisodeMetrics


def play_in_copies(
    copies: CopySet,
    make_actor: Callable[[], Actor],
    seed: int,
    max_steps: int,
    *,
    next_number: Callable[[], int | None],
    on_episode: Callable[[Episode], object],
    poll: Callable[[], object] = lambda: None,
) -> None:
    """Plays the episodes that `next_number` returns until it returns None; episode e starts from `reset(seed + e)`.

    max_steps: limit on steps of an episode; 0 sets none. on_episode: called with each result, also of failed episodes.
    poll: called before each step.
    """
    episodes = _CopyPlayer(copies, make_actor, seed, max_steps, on_episode)
    while episodes.start_free_copies(next_number):
        poll()
        episodes.step()


def exception_text(error: BaseException) -> str:
    """Returns an exception as a text for the user: of Shoal's own errors the message, of others also the type."""
    return str(error) if isinstance(error, ShoalError) else f"{type(error).__name__}: {error}"


class _CopyPlayer:
    """Plays the episodes of all copies: a `_EpisodeInProgress` for each busy copy, and the policies that act in it."""

    def __init__(
        self,
        copies: CopySet,
        make_actor: Callable[[], Actor],
        seed: int,
        max_steps: int,
        on_episode: Callable[[Episode], object],
    ) -> None:
        self._copies, self._seed, self._max_steps, self._on_episode = copies, seed, max_steps, on_episode
        self._policies = _CopyPolicies(copies.spec, copies.copies, make_actor)
        self._running: list[_EpisodeInProgress | None] = [None] * copies.copies
        self._has_next = True

    def start_free_copies(self, next_number: Callable[[], int | None]) -> bool:
        """Starts an episode in every free copy while there is one; returns whether any copy is busy."""
        for copy in range(self._copies.copies):
            while self._has_next and self._running[copy] is None:
                number = next_number()
                self._has_next = number is not None
                if number is not None:
                    self._start(copy, number)
        return any(episode is not None for episode in self._running)

    def step(self) -> None:
        """Steps every busy copy."""
        actions = self._policies.act()
        for copy, episode in enumerate(self._running):
            if episode is not None:
                self._running[copy] = self._step(copy, episode, actions[copy])

    def _start(self, copy: int, number: int) -> None:
        first = self._copies.start_episode(copy, self._seed + number)
        if first is None:
            self._on_episode(Episode(number, failure=self._copies.failures[copy]))
            return
        self._policies.start_episode(copy, first, self._seed + number)
        agents = len(self._copies.spec.agents)
        self._running[copy] = _EpisodeInProgress(
            number, np.zeros(agents), 0, shared=True, metrics=EpisodeMetrics(agents)
        )

    def _step(self, copy: int, episode: _EpisodeInProgress, action: Floats) -> _EpisodeInProgress | None:
        """Steps one copy; returns None if its episode is over."""
        step = self._copies.step_copy(copy, action)
        if step is None:
            self._on_episode(Episode(episode.number, failure=self._copies.failures[copy]))
            return None
        episode = _with_step(episode, step)
        self._policies.obs[copy] = step.obs[0]
        is_over = bool(step.episode_over[0])
        if is_over or 0 < self._max_steps <= episode.length:
            returns, metrics = tuple(episode.returns.tolist()), episode.metrics.result()
            self._on_episode(
                Episode(
                    episode.number, returns, episode.length, cut=not is_over, shared=episode.shared, metrics=metrics
                )
            )
            return None
        return episode


def _with_step(episode: _EpisodeInProgress, step: Step) -> _EpisodeInProgress:
    """Returns the episode with one more step of its copy."""
    reward, present = step.reward[0], step.present[0] > 0
    rewards = reward[present]
    shared = episode.shared and bool((rewards == rewards[:1]).all())
    episode.metrics.add(step)
    return episode._replace(returns=episode.returns + reward, length=episode.length + 1, shared=shared)


class _CopyPolicies:
    """The forward passes of all copies, each by itself."""

    def __init__(self, agents: AgentsSpec, copies: int, make_actor: Callable[[], Actor]) -> None:
        self.obs = np.zeros((copies, agents.obs_dim), np.float32)
        self._teams = [make_actor() for _ in range(copies)]

    def start_episode(self, copy: int, obs: Floats, seed: int) -> None:
        """Stores a copy's first joint observation of an episode, and seeds the copy's team."""
        self.obs[copy] = obs
        team = self._teams[copy]
        start_episodes(team)
        if isinstance(team, StochasticTeam):
            team.start_episode(0, seed)

    def act(self) -> Floats:
        """Returns joint actions `[copies, sum action]`."""
        return np.concatenate([team.act(self.obs[i : i + 1]) for i, team in enumerate(self._teams)])
