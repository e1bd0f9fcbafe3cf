"""The scale of a team: reference teams in the same world, and the position between them."""

from __future__ import annotations

from typing import Any

import pytest

from actor_node.evaluation.evaluate import Evaluation, Reference, SideScale, evaluate_team
from actor_node.evaluation.rollouts.rollout import PlayOptions
from actor_node.evaluation.scale import measure_scale, references
from actor_node.evaluation.task import EvalTask
from actor_node.evaluation.teams import Team, baseline_team
from actor_node.opponents import frozen_team
from common.run.run import Run, make_run_spec
from common.worlds import world_spec
from shoal.commands.evaluate.text import scale_lines, standing

FAST, OPTIONS = EvalTask(fast=True), PlayOptions(episodes=30)


def make_run(scenario: str, **options: Any) -> Run:
    spec = make_run_spec({"scenario": scenario, "world": options})
    return Run("run-1", spec, world_spec(scenario, **options))


def scale_of(run: Run, team: Team) -> list[SideScale]:
    found = evaluate_team(run, team, 30, 1_000, FAST)
    return measure_scale(run, team, found, FAST, OPTIONS)


@pytest.mark.parametrize(
    ("scenario", "options", "names"),
    [
        ("simple_spread", {}, ["random", "untrained", "scripted"]),
        ("simple_tag", {}, ["random", "untrained", "frozen"]),
        ("simple_tag", {"num_good": 2}, ["random", "untrained"]),  # the frozen team knows the defaults only
        ("simple_formation", {}, ["random", "untrained"]),
    ],
)
def test_a_world_has_the_references_that_know_it(scenario: str, options: dict[str, Any], names: list[str]) -> None:
    assert [team.name for team in references(make_run(scenario, **options), 0)] == names


def test_the_ends_of_the_scale_stand_at_its_ends() -> None:
    run = make_run("simple_spread")
    (top,) = scale_of(run, baseline_team("scripted", run, 1_000))
    (low,) = scale_of(run, baseline_team("random", run, 1_000))
    assert (top.side, top.opponents, top.top) == ("", "", "scripted")
    assert top.fraction == pytest.approx(1.0, abs=0.02)
    assert low.fraction == pytest.approx(0.0, abs=0.02)
    assert standing(top) == "100 % of the way from random actions to the scripted team"
    assert standing(low) == "not clearly better than random actions"
    assert top.reference("scripted").return_mean == top.return_mean  # type: ignore[union-attr]
    assert top.reference("frozen") is None


def test_sides_meet_the_same_opponents() -> None:
    run = make_run("simple_push")
    frozen = baseline_team("frozen", run, 1_000)
    assert frozen.weights_hash == frozen_team("simple_push").digest
    found = scale_of(run, frozen)
    assert [(one.side, one.opponents, one.top) for one in found] == [
        ("adversary", "frozen", "frozen"),
        ("agent", "frozen", "frozen"),
    ]
    # The frozen team of simple_push scores -1.95 as adversary, -6.30 as agent (actor_node/opponents/README.md).
    assert [one.return_mean for one in found] == pytest.approx([-1.95, -6.30], abs=1.5)
    assert [one.fraction for one in found] == [1.0, 1.0]
    text = scale_lines(evaluation_with(found))
    assert text[0].startswith("adversary against the frozen team: random -")
    assert text[0].endswith("100 % of the way from random actions to the frozen team")


def test_a_reference_that_was_measured_before_is_not_played_again() -> None:
    run = make_run("simple")
    team = baseline_team("untrained", run, 0)
    found = evaluate_team(run, team, 10, 1_000, FAST)
    known = Reference("random", 7, -1.0, (-2.0, -0.5))
    (scale,) = measure_scale(run, team, found, FAST, OPTIONS, known={"random": known})
    assert scale.references[0] is known


def evaluation_with(scale: list[SideScale]) -> Evaluation:
    return Evaluation("s", "s", 1, 0, 1, "", 0.0, (0.0, 0.0), 0.0, {}, {}, scale=scale)


def side_scale(mean: float, **others: float) -> SideScale:
    rows = [Reference(name, 20, value, (value - 1, value + 1)) for name, value in others.items()]
    return SideScale("", "", mean, (mean - 1, mean + 1), rows)


@pytest.mark.parametrize(
    ("mean", "others", "text"),
    [
        (5.0, {"random": 0.0, "untrained": 1.0}, "clearly better than random actions and an untrained 64-64 team"),
        (1.5, {"random": 0.0, "untrained": -3.0}, "not clearly better than random actions"),
        (5.0, {"random": 0.0, "untrained": 4.0}, "not clearly better than an untrained 64-64 team"),
    ],
)
def test_without_an_upper_end_the_intervals_decide(mean: float, others: dict[str, float], text: str) -> None:
    assert standing(side_scale(mean, **others)) == text
