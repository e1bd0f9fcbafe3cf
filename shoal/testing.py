"""Tests for worlds that users write: `check_world` plays a world and raises an error for what it does wrong.

    from shoal.testing import check_world

    def test_my_world():
        check_world("batched:my_package.my_world", options={"size": 5})

It needs no run and no other process, and takes about as long as 3,000 steps of the world.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actor_node.evaluation.teams import RandomTeam
from common.errors import WorldError
from common.worlds import Step, World, make_world

__all__ = ["WorldCheck", "check_world"]

_Arrays = npt.NDArray[Any]
_ARRAYS = ("obs", "reward", "discount", "present", "next_obs", "episode_over")


class WorldCheck(NamedTuple):
    """What `check_world` saw of a world that does nothing wrong."""

    name: str
    agents: tuple[str, ...]
    copies: int
    steps: int
    episodes: int
    """Episodes that ended in `steps` steps of all copies, with actions at random."""
    notes: tuple[str, ...]
    """What is allowed, and may not be what you intend."""


def check_world(
    world: str, *, options: Mapping[str, Any] | None = None, copies: int = 4, steps: int = 200, seed: int = 0
) -> WorldCheck:
    """Plays a world with random actions and checks all that Shoal relies on; returns what it saw.

    Checks the shapes, types and ranges of all arrays, that numbers are finite, that a seed determines an episode in
    whichever copy, that copies do not depend on each other's actions, that ends, absent agents and first observations
    are consistent, and that one copy works like several.

    world: a name as for `make_world`, for example "batched:my_package.my_world". options: of the world.
    copies: at least 2. steps: of all copies; choose more than an episode has.
    Raises WorldError for the first fault, with step, copy and agent, and ConfigError for a name or an option.

    Example:
        >>> check_world("batched:my_package.my_world", copies=8, steps=500).episodes
        160
    """
    if copies < 2:
        raise ValueError(f"check_world needs at least 2 copies to compare, not {copies}")
    check = _Check(world, dict(options or {}), copies, steps, seed)
    notes = check.starts()
    episodes, more_notes = check.play()
    check.determinism()
    check.independence()
    check.absence()
    check.one_copy()
    agents = tuple(agent.name for agent in check.spec.agents)
    return WorldCheck(world, agents, copies, steps, episodes, (*notes, *more_notes))


class _Check:
    """The checks of one world; each makes the copies that it plays."""

    def __init__(self, name: str, options: dict[str, Any], copies: int, steps: int, seed: int) -> None:
        self._name, self._options, self._copies, self._steps, self._seed = name, options, copies, steps, seed
        world = self._make()
        self.spec = world.spec
        world.close()

    def starts(self) -> list[str]:
        """Checks resets with and without seeds."""
        world, seeds = self._make(), [self._seed + copy for copy in range(self._copies)]
        obs = self._first_obs(world.reset(seeds))
        again = self._first_obs(world.reset(seeds))
        self._require_equal(obs, again, "reset(seeds) twice with the same seeds gave different first observations")
        swapped = self._first_obs(world.reset(seeds[::-1]))[::-1]
        fault = "a seed gave another start in another copy; the start of copy c must depend on seeds[c] only"
        self._require_equal(obs, swapped, fault)
        world.close()
        first, second = self._make(), self._make()
        self._require_equal(first.reset(), second.reset(), "two worlds made with the same seed gave different starts")
        first.close()
        second.close()
        return ["every seed gives the same first observation"] if (obs == obs[0]).all() else []

    def play(self) -> tuple[int, list[str]]:
        """Checks every step of several episodes; returns the number of episodes and notes."""
        world = self._make()
        obs, team = world.reset(), RandomTeam(self.spec, self._seed)
        departed = np.zeros((self._copies, len(self.spec.agents)), bool)
        episodes, restarted = 0, False
        for _ in range(self._steps):
            step = world.step(team.act(obs))
            self._check_types(step)
            here = step.present > 0
            self._check_absent(step, here)
            over = step.episode_over
            departed |= here & (step.discount == 0)
            everyone = departed.all(axis=1)
            self._require(~everyone | over, "all agents ended and episode_over is False")
            self._check_continues(step, over, here & ~departed)
            restarted |= bool((step.obs[over] != step.next_obs[over]).any())
            departed[over] = False
            episodes += int(over.sum())
            obs = step.obs
        world.close()
        if episodes and not restarted:
            raise WorldError(
                f"{self._name}: {episodes} episodes ended and obs was the last observation each time. Return the first "
                "observation of the next episode as obs, and the last one of the episode as next_obs."
            )
        unended = f"no episode ended in {self._steps} steps: pass more steps, or train with --max-episode-steps"
        return episodes, [] if episodes else [unended]

    def determinism(self) -> None:
        """Checks that seeds and actions determine what happens."""
        (first, obs), (second, _) = self._seeded(), self._seeded()
        team = RandomTeam(self.spec, self._seed)
        for number in range(self._steps):
            actions = team.act(obs)
            ours, theirs = first.step(actions), second.step(actions)
            obs = ours.obs
            if not all(np.array_equal(getattr(ours, field), getattr(theirs, field)) for field in _ARRAYS):
                raise WorldError(
                    f"{self._name}: step {number + 1}: two worlds with the same seeds and actions differ. Draw random "
                    "numbers only from generators of the world, made from its seed."
                )
        first.close()
        second.close()

    def independence(self) -> None:
        """Checks that the actions of the last copy change nothing in the others, up to their first end."""
        (first, obs), (second, other_obs) = self._seeded(), self._seeded()
        team, other_team = RandomTeam(self.spec, self._seed), RandomTeam(self.spec, self._seed + 1)
        running = np.ones(self._copies, bool)
        running[-1] = False
        for number in range(self._steps):
            actions = team.act(obs)
            others = actions.copy()
            others[-1] = other_team.act(other_obs)[-1]
            ours, theirs = first.step(actions), second.step(others)
            obs, other_obs = ours.obs, theirs.obs
            for field in ("next_obs", "reward", "discount", "present"):
                a, b = getattr(ours, field), getattr(theirs, field)
                different = running & (a != b).any(axis=1)
                if different.any():
                    copy = int(np.argmax(different))
                    raise WorldError(
                        f"{self._name}: step {number + 1} of copy {copy + 1} of {self._copies}: {field} depends on the "
                        f"actions of copy {self._copies}. Copies must be independent.",
                        copy,
                    )
            # Later starts come from one generator of the world, whose order an end in another copy changes.
            running &= ~(ours.episode_over | theirs.episode_over)
            if ours.episode_over[-1] or theirs.episode_over[-1] or not running.any():
                break
        first.close()
        second.close()

    def absence(self) -> None:
        """Checks that a copy whose episode ended is absent if it is not restarted, as evaluations need it."""
        world = self._make(restart_ended=False)
        obs, team = world.reset(), RandomTeam(self.spec, self._seed)
        ended = np.zeros(self._copies, bool)
        for _ in range(self._steps):
            step = world.step(team.act(obs))
            for what, wrong in (("present", step.present[ended]), ("reward", step.reward[ended])):
                if wrong.any():
                    raise WorldError(f"{self._name}: {what} is not 0 in a copy that waits for a reset")
            ended |= step.episode_over
            obs = step.obs
        world.close()

    def one_copy(self) -> None:
        """Checks a world of one copy, as evaluations and films make it."""
        world = make_world(self._name, 1, seed=self._seed, options=self._options)
        if world.spec != self.spec:
            raise WorldError(f"{self._name}: one copy has another spec than {self._copies} copies")
        obs = world.reset([self._seed])
        world.step(RandomTeam(self.spec, self._seed).act(obs))
        world.close()

    def _make(self, *, restart_ended: bool = True) -> World:
        return make_world(self._name, self._copies, seed=self._seed, options=self._options, restart_ended=restart_ended)

    def _seeded(self) -> tuple[World, _Arrays]:
        """Returns a world at the starts of the seeds, and its first observations."""
        world = self._make()
        return world, world.reset([self._seed + copy for copy in range(self._copies)])

    def _first_obs(self, obs: Any) -> _Arrays:
        shape = (self._copies, self.spec.obs_dim)
        if not isinstance(obs, np.ndarray) or obs.dtype != np.float32 or obs.shape != shape:
            raise WorldError(f"{self._name}: reset must return a float32 array [copies, sum obs] = {list(shape)}")
        return obs

    def _check_types(self, step: Step) -> None:
        """Raises WorldError for a step that is not made of the arrays that Step documents."""
        agents, obs = (self._copies, len(self.spec.agents)), (self._copies, self.spec.obs_dim)
        shapes = {"obs": obs, "reward": agents, "discount": agents, "present": agents, "next_obs": obs}
        for field, shape in shapes.items():
            array = getattr(step, field)
            if array.dtype != np.float32 or array.shape != shape:
                raise WorldError(
                    f"{self._name}: {field} is {array.dtype} {list(array.shape)}, not float32 {list(shape)}"
                )
            if not np.isfinite(array).all():
                raise WorldError(f"{self._name}: {field} contains a number that is not finite")
        if step.episode_over.dtype != bool or step.episode_over.shape != (self._copies,):
            raise WorldError(f"{self._name}: episode_over is not a bool array [copies] = [{self._copies}]")

    def _check_absent(self, step: Step, here: _Arrays) -> None:
        self._require(((step.reward == 0) | here).all(axis=1), "an absent agent was given a reward, not 0")
        self._require(here.any(axis=1), "no agent is present, and the episode was not over before")

    def _check_continues(self, step: Step, over: _Arrays, staying: _Arrays) -> None:
        """Raises WorldError if an agent that stays in its episode acts next on something else than it has reached."""
        for i, agent in enumerate(self.spec.agents):
            columns = agent.obs_slice
            same = (step.obs[:, columns] == step.next_obs[:, columns]).all(axis=1)
            self._require(
                over | ~staying[:, i] | same, f"obs and next_obs of agent {agent.name} differ within an episode"
            )

    def _require(self, right: Any, fault: str) -> None:
        if not right.all():
            copy = int(np.argmin(right))
            raise WorldError(f"{self._name}: copy {copy + 1} of {self._copies}: {fault}", copy)

    def _require_equal(self, a: _Arrays, b: _Arrays, fault: str) -> None:
        if not np.array_equal(a, b):
            raise WorldError(f"{self._name}: {fault}")
