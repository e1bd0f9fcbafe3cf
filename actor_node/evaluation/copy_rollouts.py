"""Worlds of one copy each, side by side in one process: what one of them raises costs its own episode only.

    take() -> a free copy begins that episode -> one forward pass -> every busy copy steps -> give(episode) -> ...

The policies of each copy are computed by themselves. In a product of several rows, the bits of a row depend on how many
rows there are and, on some processors, on the row's position. So an episode's bits depend neither on the number of
copies nor on the copy that plays it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from actor_node.evaluation.batched_rollouts import Actor, Episode, Float64s
from common.errors import ShoalError, WorldError
from common.policy.heads import Floats
from common.spec import AgentsSpec
from common.worlds import Step, World


@runtime_checkable
class StochasticTeam(Protocol):
    """A team that chooses by chance: its draws of an episode follow from the episode's seed."""

    def begin(self, row: int, seed: int) -> None:
        """Starts the generator of one row of what `act` is given."""
        ...


class CopySet:
    """Worlds of one copy each, as one world: a copy that fails is over, and stays so until it begins anew.

    Has `reset` and `step` of a World, too; there a copy that failed acts no more and earns nothing.
    """

    def __init__(self, make: Callable[[], World], copies: int) -> None:
        """Makes the copies. What the first raises is raised; where a later one cannot be made there are fewer."""
        self._make = make
        self._worlds: list[World | None] = [make()]
        self.note = ""
        """Why there are fewer copies than were asked for; empty where there are as many."""
        while len(self._worlds) < copies:
            try:
                self._worlds.append(make())
            except Exception as e:  # noqa: BLE001  (a constructor of the user's)
                self.note = (
                    f"copy {len(self._worlds) + 1} could not be made in one process ({words_of(e)}); "
                    f"going on with {len(self._worlds)}"
                )
                break
        first = self._worlds[0]
        if first is None:  # not after the loop above
            raise WorldError("no world")
        self.name, self.spec = first.name, first.spec
        self.copies = len(self._worlds)
        self.failures: dict[int, str] = {}
        """What each copy that failed has raised, until it begins anew."""
        self._obs = np.zeros((self.copies, self.spec.obs_dim), np.float32)

    def begin(self, copy: int, seed: int) -> Floats | None:
        """Starts an episode in one copy and returns what it observes, [sum obs]; None where it fails."""
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
        """Steps one copy by its joint action; None where it fails."""
        world = self._worlds[copy]
        if world is None:
            return None
        try:
            return world.step(action[None])
        except Exception as e:  # noqa: BLE001  (the user's code)
            self._fail(copy, e)
            return None

    def reset(self, seeds: Sequence[int] | None = None) -> Floats:
        """Starts an episode in every copy."""
        for copy in range(self.copies):
            first = self.begin(copy, copy if seeds is None else int(seeds[copy]))
            self._obs[copy] = 0.0 if first is None else first
        return self._obs.copy()

    def step(self, actions: Floats) -> Step:
        """Steps every copy that has not failed."""
        agents = len(self.spec.agents)
        obs, following = np.zeros_like(self._obs), np.zeros_like(self._obs)
        reward, discount, present = (np.zeros((self.copies, agents), np.float32) for _ in range(3))
        over = np.ones(self.copies, np.bool_)
        for copy in range(self.copies):
            step = None if copy in self.failures else self.step_copy(copy, actions[copy])
            if step is not None:
                obs[copy], following[copy], over[copy] = step.obs[0], step.next_obs[0], step.episode_over[0]
                reward[copy], discount[copy], present[copy] = step.reward[0], step.discount[0], step.present[0]
        return Step(obs, reward, discount, present, following, over)

    def close(self) -> None:
        """Closes every copy; what one raises then is of no more interest."""
        for world in self._worlds:
            if world is not None:
                with contextlib.suppress(Exception):
                    world.close()

    def _fail(self, copy: int, error: Exception) -> None:
        """Notes what a copy raised and gives it up: what state it is in nobody knows."""
        self.failures[copy] = words_of(error)
        world, self._worlds[copy] = self._worlds[copy], None
        if world is not None:
            with contextlib.suppress(Exception):
                world.close()


class _Row(NamedTuple):
    """An episode that is being played."""

    number: int
    returns: Float64s
    length: int
    shared: bool


def play_side_by_side(
    worlds: CopySet,
    make_team: Callable[[], Actor],
    seed: int,
    max_steps: int,
    *,
    take: Callable[[], int | None],
    give: Callable[[Episode], object],
    tick: Callable[[], object] = lambda: None,
) -> None:
    """Plays the episodes that `take` names until it names none; episode e starts from `reset(seed=seed + e)`.

    max_steps: cuts an episode off; 0 = as the world ends it. give: called with each episode, failed ones too.
    """
    table = _Table(worlds, make_team, seed, max_steps, give)
    while table.fill(take):
        tick()
        table.step()


def words_of(error: BaseException) -> str:
    """Returns what was raised, for people: of an error of ours its text, of others also their type."""
    return str(error) if isinstance(error, ShoalError) else f"{type(error).__name__}: {error}"


class _Table:
    """What every copy plays."""

    def __init__(
        self,
        worlds: CopySet,
        make_team: Callable[[], Actor],
        seed: int,
        max_steps: int,
        give: Callable[[Episode], object],
    ) -> None:
        self._worlds, self._seed, self._max_steps, self._give = worlds, seed, max_steps, give
        self._forward = _Rows(worlds.spec, worlds.copies, make_team)
        self._rows: list[_Row | None] = [None] * worlds.copies
        self._is_left = True

    def fill(self, take: Callable[[], int | None]) -> bool:
        """Begins an episode in every free copy while any is left; returns whether one is being played."""
        for copy in range(self._worlds.copies):
            while self._is_left and self._rows[copy] is None:
                number = take()
                self._is_left = number is not None
                if number is not None:
                    self._begin(copy, number)
        return any(row is not None for row in self._rows)

    def step(self) -> None:
        """Steps every copy that plays."""
        actions = self._forward.act()
        for copy, row in enumerate(self._rows):
            if row is not None:
                self._rows[copy] = self._step(copy, row, actions[copy])

    def _begin(self, copy: int, number: int) -> None:
        first = self._worlds.begin(copy, self._seed + number)
        if first is None:
            self._give(Episode(number, failure=self._worlds.failures[copy]))
            return
        self._forward.begin(copy, first, self._seed + number)
        self._rows[copy] = _Row(number, np.zeros(len(self._worlds.spec.agents)), 0, shared=True)

    def _step(self, copy: int, row: _Row, action: Floats) -> _Row | None:
        """Steps one copy; returns None where its episode is over."""
        step = self._worlds.step_copy(copy, action)
        if step is None:
            self._give(Episode(row.number, failure=self._worlds.failures[copy]))
            return None
        row = _after(row, step)
        self._forward.obs[copy] = step.obs[0]
        is_over = bool(step.episode_over[0])
        if is_over or 0 < self._max_steps <= row.length:
            self._give(Episode(row.number, tuple(row.returns.tolist()), row.length, not is_over, row.shared))
            return None
        return row


def _after(row: _Row, step: Step) -> _Row:
    reward, present = step.reward[0], step.present[0] > 0
    paid = reward[present]
    shared = row.shared and bool((paid == paid[:1]).all())
    return row._replace(returns=row.returns + reward, length=row.length + 1, shared=shared)


class _Rows:
    """The forward passes of all copies, one row each."""

    def __init__(self, joint: AgentsSpec, copies: int, make_team: Callable[[], Actor]) -> None:
        self.obs = np.zeros((copies, joint.obs_dim), np.float32)
        self._teams = [make_team() for _ in range(copies)]

    def begin(self, copy: int, obs: Floats, seed: int) -> None:
        """Takes a copy's first observations of an episode."""
        self.obs[copy] = obs
        team = self._teams[copy]
        if isinstance(team, StochasticTeam):
            team.begin(0, seed)

    def act(self) -> Floats:
        """Returns joint actions, a row a copy."""
        return np.concatenate([team.act(self.obs[i : i + 1]) for i, team in enumerate(self._teams)])
