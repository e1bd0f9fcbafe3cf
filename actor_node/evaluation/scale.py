"""The scale that a team's return stands on: the returns of reference teams in the same episodes' world.

References: random actions, an untrained team, and where the scenario has one, a frozen or a scripted team. In a world
with one side, each plays alone. In a world with several sides, the return of a side depends on its opponents, so every
team plays each side against the same opponents: the frozen team if there is one, otherwise random actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from actor_node.evaluation.evaluate import (
    Estimate,
    Evaluation,
    Reference,
    SideScale,
    estimate,
    evaluate_team,
)
from actor_node.evaluation.rollouts.episodes import Watcher
from actor_node.evaluation.rollouts.rollout import PlayOptions, RolloutTask, run_rollouts
from actor_node.evaluation.task import EvalTask
from actor_node.evaluation.teams import FROZEN, RANDOM, SCRIPTED, UNTRAINED, Team, baseline_team
from actor_node.evaluation.tournament import cross_play, side_returns
from common.errors import ConfigError
from common.run.run import Run


def measure_scale(
    run: Run,
    team: Team,
    found: Evaluation,
    task: EvalTask,
    options: PlayOptions,
    *,
    watcher: Watcher | None = None,
    known: Mapping[str, Reference] | None = None,
) -> list[SideScale]:
    """Returns the scale of an evaluated team, one a side; the team and all references play in the world of `task`.

    found: the evaluation of the team. options: episodes or time of each reference. known: references of a world with
    one side that were measured before, by name. Raises the errors of `evaluate_team`.
    """
    teams = references(run, found.seed)
    if len(run.joint.sides) > 1:
        return _against_opponents(
            run, team, teams, seed=found.seed, task=task, options=options, watcher=watcher or Watcher()
        )
    measured = dict(known or {})
    for each in teams:
        if each.name not in measured:
            one = evaluate_team(run, each, options.episodes, found.seed, task, options=options, watcher=watcher)
            measured[each.name] = Reference(each.name, one.episodes, one.return_mean, one.return_ci95)
    measured_team = Estimate(found.return_mean, found.return_ci95)
    return [_scale("", "", measured_team, [measured[each.name] for each in teams])]


def references(run: Run, seed: int) -> list[Team]:
    """Returns the reference teams that a run's world has; seed: of random actions and untrained networks."""
    teams = []
    for name in (RANDOM, UNTRAINED, FROZEN, SCRIPTED):
        try:
            teams.append(baseline_team(name, run, seed))
        except ConfigError:
            continue  # the scenario, or its options, have no such team
    return teams


def _against_opponents(
    run: Run,
    team: Team,
    teams: list[Team],
    *,
    seed: int,
    task: EvalTask,
    options: PlayOptions,
    watcher: Watcher,
) -> list[SideScale]:
    by_name = {each.name: each for each in teams}
    opponents = by_name.get(FROZEN, by_name[RANDOM])
    found = []
    for side in run.joint.sides:
        rows = []
        for each in (team, *teams):
            make_actor = partial(cross_play, run.joint, side, each.make_actor, opponents.make_actor)
            rollout = RolloutTask(run, f"{each.name} against {opponents.name}", make_actor, seed, task)
            rollouts = run_rollouts(rollout, options, watcher).rollouts
            returns = estimate(side_returns(run.joint, rollouts)[side], seed)
            rows.append(Reference(each.name, len(rollouts.returns), returns.mean, returns.ci95))
        first, *others = rows
        found.append(_scale(side, opponents.name, Estimate(first.return_mean, first.return_ci95), others))
    return found


def _scale(side: str, opponents: str, team: Estimate, rows: list[Reference]) -> SideScale:
    """Returns the scale of one side, with the position between random actions and the best team if it is better."""
    by_name = {row.name: row for row in rows}
    low, top = by_name[RANDOM], by_name.get(SCRIPTED, by_name.get(FROZEN))
    fraction = None
    if top is not None and top.return_ci95[0] > low.return_ci95[1]:
        fraction = (team.mean - low.return_mean) / (top.return_mean - low.return_mean)
    return SideScale(
        side=side,
        opponents=opponents,
        return_mean=team.mean,
        return_ci95=team.ci95,
        references=rows,
        top=top.name if top is not None and fraction is not None else "",
        fraction=fraction,
    )
