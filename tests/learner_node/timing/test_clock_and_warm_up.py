"""What time a run is charged, and what is said of a warm-up."""

from __future__ import annotations

import pytest

from common.run.run import RunSpec, make_run_spec
from learner_node.run_checks.warm_up import InsertRate, beyond_budget, ended_too_early, forecast, steps_within_warm_up
from learner_node.timing.clocks import BudgetClock


def charged(clock: BudgetClock, now: float, *, env_steps: int = 0, trained: bool = False, absent: str = "") -> float:
    return clock.charge(now, env_steps=env_steps, trained=trained, absent=absent)


def test_time_counts_from_the_first_transition_on_whoever_is_waited_for() -> None:
    clock = BudgetClock(0, 100.0)
    assert charged(clock, 130.0) == 0.0, "nothing has come yet"
    assert charged(clock, 130.1, env_steps=256) == pytest.approx(0.1)
    assert charged(clock, 140.1, env_steps=256) == pytest.approx(10.0), "slow actors, no batch"
    assert charged(clock, 140.3, env_steps=256, trained=True) == pytest.approx(0.2)


def test_a_resumed_run_is_charged_again_once_transitions_or_batches_come() -> None:
    waiting = BudgetClock(5_000, 0.0)
    assert charged(waiting, 9.0, env_steps=5_000) == 0.0, "these were known before"
    assert charged(waiting, 10.0, env_steps=5_001) == 1.0
    training = BudgetClock(5_000, 0.0)
    assert charged(training, 9.0, env_steps=5_000, trained=True) == 9.0


def test_waiting_for_a_peer_that_is_gone_is_not_charged_and_named() -> None:
    clock = BudgetClock(0, 0.0)
    gone = "actors: none is connected"
    charged(clock, 1.0, env_steps=1, absent=gone)
    assert clock.paused == gone
    assert charged(clock, 61.0, env_steps=1, absent=gone) == 0.0
    assert charged(clock, 62.0, env_steps=1, trained=True, absent=gone) == 1.0, "batches still come"
    assert clock.paused == ""
    assert BudgetClock(0, 0.0).paused == ""


def test_a_peer_that_never_came_does_not_pause_what_has_not_begun() -> None:
    clock = BudgetClock(0, 0.0)
    assert charged(clock, 10.0, absent="the replay server at tcp://replay:5555") == 0.0
    assert clock.paused == ""


def rate_of(*seen: tuple[int, float]) -> float | None:
    rate = InsertRate()
    for inserts, now in seen:
        rate.observe(inserts, now)
    return rate.value


def test_the_rate_is_that_since_the_first_transitions() -> None:
    assert rate_of() is None
    assert rate_of((0, 0.0), (0, 60.0)) is None, "worlds are being made"
    assert rate_of((0, 0.0), (256, 60.0), (256, 61.0)) is None, "too short a look"
    assert rate_of((0, 0.0), (256, 60.0), (256, 64.0)) == pytest.approx(256 / 60), "the first ones took a minute"
    assert rate_of((0, 0.0), (256, 3.0), (256, 9.0)) == pytest.approx(256 / 6), "the next ones take longer"
    assert rate_of((0, 0.0), (256, 60.0), (512, 110.0), (512, 115.0)) == pytest.approx(5.12)
    assert rate_of((7_000, 0.0), (7_100, 1.0), (7_200, 11.0)) == pytest.approx(10.0), "of a resumed run"


def test_making_copies_does_not_count_as_collecting() -> None:
    rate = InsertRate()
    rate.observe(0, 0.0, collecting=False)
    rate.observe(0, 50.0, collecting=True)
    rate.observe(256, 60.0)
    rate.observe(256, 64.0)
    assert rate.value == pytest.approx(25.6)


def spec_of(seconds: float, **settings: dict[str, object]) -> RunSpec:
    return make_run_spec({"scenario": "simple_spread", "budget": {"seconds": seconds}}, settings)


def test_a_warm_up_says_how_far_it_is_and_how_long_it_still_takes() -> None:
    spec = spec_of(600.0)
    assert forecast(spec, 1_536, None) == "warming up: 1,536 of 5,000 transitions"
    assert forecast(spec, 1_500, 50.0) == "warming up: 1,500 of 5,000 transitions, about 1:10 left"
    assert forecast(spec, 5_000, 50.0) == ""


def test_a_warm_up_that_outlasts_the_budget_is_said_with_a_way_out() -> None:
    said = beyond_budget(spec_of(40.0), 300, 300, 2.0, 3.0)
    assert said.startswith("3 steps/s: the first 5,000 transitions take 28 min, longer than --time 40s; lower ")
    assert "--set replay.min_size=30 --set exploration.random_steps=30" in said
    assert said.endswith("or give more time")


@pytest.mark.parametrize(
    ("spec", "rate", "said"),
    [
        (spec_of(0.0), 3.0, ""),
        (spec_of(600.0), None, ""),
        (spec_of(600.0), 10.0, ""),
        (spec_of(3_600.0, replay={"min_size": 500}, exploration={"random_steps": 500}), 1.0, ""),
    ],
    ids=["no limit", "no rate", "enough", "a small warm-up"],
)
def test_nothing_is_said_where_the_budget_lasts(spec: RunSpec, rate: float | None, said: str) -> None:
    assert beyond_budget(spec, 0, 0, 0.0, rate) == said


def test_random_steps_alone_are_named_alone() -> None:
    spec = spec_of(120.0, replay={"min_size": 100})
    said = beyond_budget(spec, 100, 100, 0.0, 10.0)
    assert said.startswith("10 steps/s: the first 5,000 environment steps, which are random, take 8 min")
    assert "--time 2m" in said
    assert "min_size" not in said


def test_the_advice_fits_into_the_budget() -> None:
    spec = spec_of(40.0)
    advised = int(beyond_budget(spec, 0, 0, 0.0, 3.0).partition("replay.min_size=")[2].split()[0])
    smaller = {"replay": {"min_size": advised}, "exploration": {"random_steps": advised}}
    assert beyond_budget(spec_of(40.0, **smaller), 0, 0, 0.0, 3.0) == ""


def test_a_run_without_updates_is_told_what_it_lacks() -> None:
    assert "5,000 transitions: no update was done" in ended_too_early(spec_of(40.0))


def steps(count: int, *, min_size: int = 5_000, random_steps: int = 8_000) -> RunSpec:
    settings = {"replay": {"min_size": min_size}, "exploration": {"random_steps": random_steps}}
    return make_run_spec({"scenario": "simple_spread", "budget": {"steps": count}}, settings)


@pytest.mark.parametrize(
    ("spec", "env_steps", "stored", "late"),
    [
        (steps(3_000), 0, 0, ["replay.min_size", "exploration.random_steps"]),
        (steps(5_000), 0, 0, ["replay.min_size", "exploration.random_steps"]),
        (steps(5_001), 0, 0, ["exploration.random_steps"]),
        (steps(8_001), 0, 0, []),
        (steps(0), 0, 0, []),
        (steps(3_000, random_steps=0), 0, 0, ["replay.min_size"]),
        (steps(9_000), 8_500, 8_500, []),
        (steps(13_500), 8_500, 0, ["replay.min_size"]),
        (steps(13_501), 8_500, 0, []),
        (steps(3_000), 2_000, 2_000, ["replay.min_size", "exploration.random_steps"]),
    ],
)
def test_steps_that_end_within_the_warm_up_are_said_at_the_start(
    spec: RunSpec, env_steps: int, stored: int, late: list[str]
) -> None:
    said = steps_within_warm_up(spec, env_steps, stored)
    assert bool(said) == bool(late)
    assert [name for name in ("replay.min_size", "exploration.random_steps") if f"--set {name}=" in said] == late
    if said:
        assert said.startswith(f"--steps {spec.budget.steps} ends within the warm-up: ")
        assert ("collects again" in said) == (stored < env_steps)


def test_the_advice_of_steps_fits() -> None:
    said = steps_within_warm_up(steps(3_000))
    assert said.endswith("(--set replay.min_size=700 --set exploration.random_steps=700)")
    assert steps_within_warm_up(steps(3_000, min_size=700, random_steps=700)) == ""
