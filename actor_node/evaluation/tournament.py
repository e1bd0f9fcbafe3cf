"""Cross-play: one side of one team against the other sides of another, every team against every team.

Returns of teams that were trained together say little: both sides improve, so the return only shows which side improves
faster. Here all teams meet the same opponents in the same episodes: episode e of every pairing starts from
`reset(seed=seed + e)`.

A side's return is the mean over its agents. On simple_tag every predator is paid for every catch, so a sum would count
each catch three times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np

from actor_node.evaluation.evaluate import Estimate, estimate, metric_estimates
from actor_node.evaluation.rollouts.copies import StochasticTeam
from actor_node.evaluation.rollouts.episodes import (
    Actor,
    Float64s,
    ProgressCallback,
    RolloutStats,
    Watcher,
    ignore_progress,
    start_episodes,
)
from actor_node.evaluation.rollouts.rollout import PlayOptions, RolloutTask, run_rollouts
from actor_node.evaluation.task import FOREIGN_DYNAMICS, EvalTask, short_name
from actor_node.evaluation.teams import Team
from common.errors import ConfigError
from common.policy.heads import Floats
from common.run.run import Run
from common.spec import AgentsSpec
from common.worlds import is_foreign


class Pairing(msgspec.Struct, frozen=True):
    """The results of one team playing one side against another team playing all other sides."""

    side: str
    """Name of the team that plays the tournament's side."""
    others: str
    """Name of the team that plays all other sides."""
    returns: dict[str, Estimate]
    """Side -> mean over its agents of the episode return."""
    metrics: dict[str, Estimate]


class Standing(msgspec.Struct, frozen=True):
    """A team's mean returns over its opponents."""

    name: str
    algorithm: str
    updates: int
    weights_hash: str
    return_by_side: dict[str, Estimate]
    """Side that the team played -> its return: in each episode the mean over the opponents, who all met it there."""


class Tournament(msgspec.Struct, frozen=True):
    """The results of all pairings, ordered by the team that plays `side`, then by the team that plays the others."""

    scenario: str
    world: str
    dynamics: str
    episodes: int
    seed: int
    side: str
    """The side that the teams in rows play; the teams in columns play all others."""
    sides: tuple[str, ...]
    opponents: tuple[str, ...] = msgspec.field(name="judged_by")
    """Names of the opponents over which standings are means; empty: all others."""
    standings: list[Standing]
    pairings: list[Pairing]
    failed_episodes: int = 0
    """Episodes of all pairings in which the environment failed; no result contains them."""
    first_failure: str = ""
    """The exception of the first failed episode."""
    truncated_episodes: int = 0
    """Episodes of all pairings that the limit on steps cut off."""


class PairingResult(NamedTuple):
    """One pairing with the episodes behind it."""

    pairing: Pairing
    returns: dict[str, Float64s]
    """Side -> `[episodes]`."""
    rollouts: RolloutStats


class CrossPlay:
    """One team made of two: the first team's actions on one side, the second team's actions on all other sides."""

    def __init__(self, agents: AgentsSpec, side: str, first: Actor, second: Actor) -> None:
        self._first, self._second = first, second
        of_side = [np.full(agent.action_dim, agent.team == side) for agent in agents.agents]
        self._columns = np.flatnonzero(np.concatenate(of_side))

    def start_episode(self, row: int, seed: int) -> None:
        """Seeds the generators of one row in the teams that have generators."""
        for team in (self._first, self._second):
            if isinstance(team, StochasticTeam):
                team.start_episode(row, seed)

    def start_episodes(self) -> None:
        """Starts new episodes in all copies."""
        for team in (self._first, self._second):
            start_episodes(team)

    def act(self, obs: Floats) -> Floats:
        """Returns joint actions `[copies, sum action]`."""
        actions = self._second.act(obs).copy()
        actions[:, self._columns] = self._first.act(obs)[:, self._columns]
        return actions


def run_tournament(
    run: Run,
    teams: Sequence[Team],
    episodes: int,
    seed: int,
    task: EvalTask,
    *,
    side: str = "",
    opponents: Sequence[str] = (),
    progress: Callable[[int], object] = ignore_progress,
    options: PlayOptions = PlayOptions(),  # noqa: B008  (immutable)
    watcher: Watcher | None = None,
) -> Tournament:
    """Plays every pairing of the teams, also each team against itself.

    side: the side that rows play; empty takes the world's first. opponents: names of the teams over which standings
    are means; empty takes all others. episodes: of each pairing; 0 plays as many as fit into the first pairing's
    fraction of the time. progress: called with the number of finished episodes. Raises ConfigError for a world with one
    side only, and for an unknown side.

    Example:
        run, teams = load_teams(["runs/a", "runs/b", "random"], FIRST_SEED)
        run_tournament(run, teams, 100, FIRST_SEED, EvalTask(fast=True)).standings
    """
    side = check_side(run, side)
    watcher = watcher or ProgressCallback(progress)
    pairings = len(teams) ** 2
    options = options._replace(episodes=episodes, within_s=options.within_s / pairings)
    results: list[PairingResult] = []
    done = 0
    for first in teams:
        for second in teams:
            make_actor = partial(cross_play, run.joint, side, first.make_actor, second.make_actor)
            rollout = RolloutTask(run, f"{first.name} against {second.name}", make_actor, seed, task)
            played = run_rollouts(rollout, options, _PairingWatcher(watcher, done, pairings, options.episodes))
            rollouts, world = played.rollouts, played.world
            options = options._replace(episodes=len(rollouts.returns) + len(rollouts.failures))
            done += options.episodes
            pairing = _pairing(run, task, (first.name, second.name), rollouts, seed)
            results.append(PairingResult(pairing, side_returns(run.joint, rollouts), rollouts))
    return Tournament(
        scenario=short_name(run.spec.scenario),
        world=world,
        dynamics=FOREIGN_DYNAMICS if is_foreign(run.spec.scenario) else task.dynamics,
        episodes=options.episodes,
        seed=seed,
        side=side,
        sides=run.joint.sides,
        opponents=tuple(opponents),
        standings=[_standing(team, side, results, tuple(opponents), seed) for team in teams],
        pairings=[one.pairing for one in results],
        failed_episodes=sum(len(one.rollouts.failures) for one in results),
        first_failure=next((each.failure for one in results for each in one.rollouts.failures), ""),
        truncated_episodes=sum(int(one.rollouts.cut.sum()) for one in results),
    )


def cross_play(agents: AgentsSpec, side: str, first: Callable[[], Actor], second: Callable[[], Actor]) -> CrossPlay:
    """Returns the actor of the first team on a side and the second team on all others; takes what makes each actor."""
    return CrossPlay(agents, side, first(), second())


class _PairingWatcher(Watcher):
    """Reports the progress of one pairing as progress of the whole tournament."""

    def __init__(self, watcher: Watcher, before: int, pairings: int, episodes_each: int) -> None:
        self._watcher, self._before, self._pairings = watcher, before, pairings
        self._episodes_each = episodes_each

    def done(self, episodes: int, total: int) -> None:
        """Reports the finished episodes of all pairings so far."""
        self._watcher.done(self._before + episodes, (self._episodes_each or total) * self._pairings)

    def notify(self, text: str) -> None:
        """Passes on the lines of the first pairing, which the other pairings would only repeat."""
        if not self._before:
            self._watcher.notify(text)

    def poll(self, playing: int = 0) -> None:
        """Passes the call on."""
        self._watcher.poll(playing)


def side_returns(agents: AgentsSpec, rollouts: RolloutStats) -> dict[str, Float64s]:
    """Returns each side's return `[episodes]`: the mean over its agents."""
    teams = np.array([agent.team for agent in agents.agents])
    return {side: rollouts.returns[:, teams == side].mean(axis=1) for side in agents.sides}


def check_side(run: Run, side: str) -> str:
    """Returns the side whose view a tournament takes, the first by default; ConfigError if there is no such side."""
    sides = run.joint.sides
    if len(sides) < 2:
        raise ConfigError(
            f"{run.spec.scenario} has one side only, so its teams cannot play against each other. Compare its runs "
            "with: shoal evaluate RUN RUN untrained random"
        )
    if side and side not in sides:
        raise ConfigError(f"--side {side}: {run.spec.scenario} has the sides {', '.join(sides)}.")
    return side or sides[0]


def _pairing(run: Run, task: EvalTask, names: tuple[str, str], rollouts: RolloutStats, seed: int) -> Pairing:
    return Pairing(
        side=names[0],
        others=names[1],
        returns={side: estimate(values, seed) for side, values in side_returns(run.joint, rollouts).items()},
        metrics=metric_estimates(run.spec, task, rollouts, seed),
    )


def _standing(
    team: Team, side: str, results: Sequence[PairingResult], opponents: tuple[str, ...], seed: int
) -> Standing:
    """Returns the means over the opponents; over all other teams if `opponents` is empty."""

    def is_opponent(name: str) -> bool:
        return name in opponents if opponents else name != team.name

    return_by_side: dict[str, Estimate] = {}
    for played_side in results[0].returns:
        faced = [
            (rollouts.numbers, returns[played_side])
            for pairing, returns, rollouts in results
            for player, opponent in [
                (pairing.side, pairing.others) if played_side == side else (pairing.others, pairing.side)
            ]
            if player == team.name and is_opponent(opponent)
        ]
        # An episode that failed against one opponent is left out of the mean over all.
        common = set.intersection(*(set(numbers.tolist()) for numbers, _ in faced)) if faced else set()
        if common:
            returns = [values[np.isin(numbers, list(common))] for numbers, values in faced]
            return_by_side[played_side] = estimate(np.mean(returns, axis=0), seed)
    return Standing(team.name, team.algorithm, team.updates, team.weights_hash, return_by_side)
