"""Cross-play: one side of one team against the other sides of another, every team against every team.

Returns of teams that were trained together say little: both sides grow, and what is seen is only who grew faster. Here
everybody meets the same opponents, on the same episodes: episode e of every pairing starts from `reset(seed=seed + e)`.

A side's return is the mean over its agents: what one of them earned. On simple_tag, where every predator is paid for
every catch, the sum would count each catch three times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np

from actor_node.evaluation.batched_rollouts import Actor, Float64s, Reporting, RolloutStats, Watcher
from actor_node.evaluation.copy_rollouts import StochasticTeam
from actor_node.evaluation.evaluate import Figure, figure
from actor_node.evaluation.rollouts import PlayOptions, RolloutTask, run_rollouts
from actor_node.evaluation.task import EvalGame, EvalTask, is_foreign, short_name
from actor_node.evaluation.task_metrics import measure
from actor_node.evaluation.teams import Team
from common.errors import ConfigError
from common.policy.heads import Floats
from common.spec import AgentsSpec


class Pairing(msgspec.Struct, frozen=True):
    """What came of one side of a team against all other sides of another."""

    side: str
    """Who plays `side`."""
    others: str
    """Who plays all other sides."""
    returns: dict[str, Figure]
    """By side: mean over its agents of the episode return."""
    metrics: dict[str, Figure]


class Standing(msgspec.Struct, frozen=True):
    """A team's means over the opponents it is judged by."""

    name: str
    algorithm: str
    updates: int
    weights_hash: str
    return_by_side: dict[str, Figure]
    """By side that it played: its own return. Of each episode the mean over its opponents, for all of them met it."""


class Tournament(msgspec.Struct, frozen=True):
    """All pairings, row by row: who plays `side`, then who plays the others."""

    scenario: str
    world: str
    dynamics: str
    episodes: int
    seed: int
    side: str
    """The side that rows play; columns play all others."""
    sides: tuple[str, ...]
    judged_by: tuple[str, ...]
    """The opponents over which standings are means."""
    standings: list[Standing]
    pairings: list[Pairing]
    failed_episodes: int = 0
    """Episodes, over all pairings, that the environment failed in; they are in no figure."""
    first_failure: str = ""
    """What the first of them failed with."""
    truncated_episodes: int = 0
    """Episodes, over all pairings, that the limit on steps cut off."""


class PairingResult(NamedTuple):
    """One pairing with what its interval was made of."""

    pairing: Pairing
    returns: dict[str, Float64s]
    """By side, [episodes played]."""
    rollouts: RolloutStats


class CrossPlay:
    """One team made of two: the numbers of one side's actions come from the first, all others from the second."""

    def __init__(self, joint: AgentsSpec, side: str, first: Actor, second: Actor) -> None:
        self._first, self._second = first, second
        own = [np.full(agent.action_dim, agent.team == side) for agent in joint.agents]
        self._columns = np.flatnonzero(np.concatenate(own))

    def begin(self, row: int, seed: int) -> None:
        """Starts the generators of one row, where a team has some."""
        for team in (self._first, self._second):
            if isinstance(team, StochasticTeam):
                team.begin(row, seed)

    def act(self, obs: Floats) -> Floats:
        """Returns joint actions `[copies, sum action]`."""
        actions = self._second.act(obs).copy()
        actions[:, self._columns] = self._first.act(obs)[:, self._columns]
        return actions


def run_tournament(
    game: EvalGame,
    entrants: Sequence[Team],
    episodes: int,
    seed: int,
    ground: EvalTask,
    *,
    side: str = "",
    judged_by: Sequence[str] = (),
    progress: Callable[[int], object] = int,
    options: PlayOptions = PlayOptions(),  # noqa: B008  (immutable)
    watcher: Watcher | None = None,
) -> Tournament:
    """Plays every pairing of the entrants, also with themselves.

    side: which one rows play; empty = the first of the world. judged_by: names of the opponents standings are means
    over; none = all others. episodes: of each pairing; 0 = as many as fit into the first one's share of the time.
    progress: called with the episodes done. ConfigError for a game of one side only, or none
    of that name.
    """
    side = _side_of(game, side)
    watcher = watcher or Reporting(progress)
    pairings = len(entrants) ** 2
    options = options._replace(episodes=episodes, within_s=options.within_s / pairings)
    met: list[PairingResult] = []
    done = 0
    for first in entrants:
        for second in entrants:
            make_team = partial(_cross, game.joint, side, first.team, second.team)
            task = RolloutTask(game, f"{first.name} against {second.name}", make_team, seed, ground)
            rolled = run_rollouts(task, options, _Part(watcher, done, pairings, options.episodes))
            played = rolled.rollouts
            options = options._replace(episodes=len(played.returns) + len(played.failures))
            done += options.episodes
            pairing = _pairing(game, ground, (first.name, second.name), played, seed)
            met.append(PairingResult(pairing, side_returns(game.joint, played), played))
            world = rolled.world
    judges = tuple(judged_by)
    return Tournament(
        scenario=short_name(game.spec.scenario),
        world=world,
        dynamics="own" if is_foreign(game.spec) else ground.dynamics,
        episodes=options.episodes,
        seed=seed,
        side=side,
        sides=game.joint.teams,
        judged_by=judges,
        standings=[_standing(entrant, side, met, judges, seed) for entrant in entrants],
        pairings=[one.pairing for one in met],
        failed_episodes=sum(len(one.rollouts.failures) for one in met),
        first_failure=next((each.failure for one in met for each in one.rollouts.failures), ""),
        truncated_episodes=sum(int(one.rollouts.cut.sum()) for one in met),
    )


def _cross(joint: AgentsSpec, side: str, first: Callable[[], Actor], second: Callable[[], Actor]) -> CrossPlay:
    return CrossPlay(joint, side, first(), second())


class _Part(Watcher):
    """Counts one pairing's episodes as part of all."""

    def __init__(self, watcher: Watcher, before: int, pairings: int, each: int) -> None:
        self._watcher, self._before, self._pairings, self._each = watcher, before, pairings, each

    def done(self, episodes: int, total: int) -> None:
        """Passes on how many are done of all pairings'."""
        self._watcher.done(self._before + episodes, (self._each or total) * self._pairings)

    def say(self, text: str) -> None:
        """Passes on what the first pairing says; the others would say the same."""
        if not self._before:
            self._watcher.say(text)

    def tick(self, playing: int = 0) -> None:
        """Passes on."""
        self._watcher.tick(playing)


def side_returns(joint: AgentsSpec, played: RolloutStats) -> dict[str, Float64s]:
    """Returns each side's return, the mean over its agents, [episodes]."""
    teams = np.array([agent.team for agent in joint.agents])
    return {side: played.returns[:, teams == side].mean(axis=1) for side in joint.teams}


def _side_of(game: EvalGame, side: str) -> str:
    sides = game.joint.teams
    if len(sides) < 2:
        raise ConfigError(
            f"{game.spec.scenario} has one side only, so nobody plays against anybody; compare its runs with: "
            "shoal evaluate RUN RUN untrained random"
        )
    if side and side not in sides:
        raise ConfigError(f"--side {side}: {game.spec.scenario} has the sides {', '.join(sides)}")
    return side or sides[0]


def _pairing(game: EvalGame, ground: EvalTask, names: tuple[str, str], played: RolloutStats, seed: int) -> Pairing:
    options = {**game.spec.world, "dynamics": ground.dynamics}
    measured = measure(short_name(game.spec.scenario), options, played.steps) if played.steps else {}
    return Pairing(
        side=names[0],
        others=names[1],
        returns={side: figure(values, seed) for side, values in side_returns(game.joint, played).items()},
        metrics={name: figure(values, seed) for name, values in measured.items()},
    )


def _standing(entrant: Team, side: str, met: Sequence[PairingResult], judges: tuple[str, ...], seed: int) -> Standing:
    """Returns the means over the judges; without any named, over all others."""

    def is_judge(name: str) -> bool:
        return name in judges if judges else name != entrant.name

    found: dict[str, Figure] = {}
    for own in met[0].returns:
        faced = [
            (rollouts.numbers, returns[own])
            for pairing, returns, rollouts in met
            for player, opponent in [(pairing.side, pairing.others) if own == side else (pairing.others, pairing.side)]
            if player == entrant.name and is_judge(opponent)
        ]
        # An episode that failed against one opponent is left out of the mean over all.
        common = set.intersection(*(set(numbers.tolist()) for numbers, _ in faced)) if faced else set()
        if common:
            kept = [values[np.isin(numbers, list(common))] for numbers, values in faced]
            found[own] = figure(np.mean(kept, axis=0), seed)
    return Standing(entrant.name, entrant.algorithm, entrant.updates, entrant.weights_hash, found)
