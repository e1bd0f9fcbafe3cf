"""When evaluations are due and may start: evenly over the budget, and within a fraction of the time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.run.run import EvaluationSpec
from learner_node.evaluation.schedule import MAX_FAILURES, MAX_LIMIT_S, EvaluationSchedule


def started(times: int = 4, share: float = 0.05, progress: float = 0.0, updates: int = 0) -> EvaluationSchedule:
    return EvaluationSchedule(EvaluationSpec(times=times, share_of_time=share), progress, updates)


def taken_at(schedule: EvaluationSchedule, steps: int, first: int = 0) -> list[int]:
    """Returns the percents at which weights are taken on a walk through the budget; one update a step."""
    found = []
    for step in range(first, steps + 1):
        if schedule.is_due(step / steps, step):
            schedule.note_taken(step / steps, step)
            found.append(step)
    return found


def test_weights_are_taken_before_the_first_update_and_evenly_over_the_budget() -> None:
    assert taken_at(started(times=4), 100) == [0, 25, 50, 75, 100]
    assert taken_at(started(times=20), 100) == list(range(0, 101, 5))
    assert taken_at(started(times=0), 100) == []


def test_a_resumed_run_takes_the_next_ones_only() -> None:
    assert taken_at(started(times=4, progress=0.5, updates=50), 100, first=50) == [75, 100]
    assert taken_at(started(times=4, progress=0.6, updates=60), 100, first=60) == [75, 100]


def test_weights_without_an_update_since_then_are_not_taken_again() -> None:
    schedule = started(times=4)
    schedule.note_taken(0.0, 0)
    assert not schedule.is_due(0.5, 0)
    assert schedule.is_due(0.5, 1)


def test_weights_that_are_taken_late_replace_the_next_ones_if_those_are_near() -> None:
    late = started(times=20)
    late.note_taken(0.12, 12)
    assert taken_at(late, 100, first=13) == list(range(15, 101, 5))
    late = started(times=20)
    late.note_taken(0.13, 13)
    assert taken_at(late, 100, first=14) == list(range(20, 101, 5))
    late = started(times=20)
    late.note_taken(0.98, 98)
    assert taken_at(late, 100, first=99) == [100], "the final weights"
    all_of_them = started(times=20, share=1.0)
    all_of_them.note_taken(0.13, 13)
    assert taken_at(all_of_them, 100, first=14) == list(range(15, 101, 5))


@given(st.integers(1, 50), st.floats(0.0, 1.0))
def test_no_two_weights_are_taken_within_half_an_interval_except_the_final_ones(times: int, late: float) -> None:
    """The first weights wait until the fraction `late` of the budget."""
    steps = 2_000
    schedule = started(times=times)
    schedule.note_taken(0.0, 0)
    first = max(round(late * steps), 1)
    found = taken_at(schedule, steps, first=first)
    assert found[-1:] == [steps]
    gaps = [after - before for before, after in itertools.pairwise(found[:-1])]
    assert all(gap >= steps / times / 2 - 1 for gap in gaps)


def test_an_evaluation_starts_once_its_time_and_that_of_the_last_one_fit_into_the_fraction() -> None:
    schedule = started(share=0.05)
    assert not schedule.may_start(5.9)
    assert schedule.may_start(6.0)  # twice the first guess of 0.15 s is 5 % of 6 s
    schedule.note_end(1.0)
    assert not schedule.may_start(59.0)
    assert schedule.may_start(60.0)  # 1 s spent, 1 s for this one, 1 s for the last one
    assert schedule.may_start(40.0, last=True)
    assert not schedule.may_start(39.0, last=True)


def test_the_time_limit_is_what_the_whole_run_has_left() -> None:
    schedule = started(share=0.05)
    assert schedule.limit_s(10.0, 0.1, budget_s=300.0) == pytest.approx(15.0)
    assert schedule.limit_s(10.0, 0.1) == pytest.approx(5.0)  # 100 s in all, by the progress so far
    assert schedule.limit_s(10.0, 0.0) == 1.0
    schedule.note_end(4.0)
    assert schedule.limit_s(10.0, 0.1, budget_s=300.0) == pytest.approx(12.0)  # three times the last one
    assert schedule.within_s(10.0, 0.1, budget_s=400.0) == pytest.approx(5.0)  # 20 s for four


def test_with_all_of_the_time_none_is_left_out() -> None:
    schedule = started(share=1.0)
    assert schedule.may_start(0.0)
    schedule.note_end(500.0)
    assert schedule.may_start(1.0)
    assert schedule.limit_s(1.0, 0.5, 10.0) == MAX_LIMIT_S


def test_failures_in_succession_end_the_evaluations() -> None:
    schedule = started()
    for _ in range(MAX_FAILURES - 1):
        schedule.note_end(0.1, failed=True)
    schedule.note_end(0.1)
    for _ in range(MAX_FAILURES - 1):
        schedule.note_end(0.1, failed=True)
    assert schedule.is_due(1.0, 1)
    schedule.note_end(0.1, failed=True)
    assert schedule.is_off
    assert not schedule.is_due(1.0, 1)


@given(
    cost_s=st.floats(0.01, 30.0),
    run_s=st.integers(20, 2_000),
    times=st.integers(1, 50),
    share=st.floats(0.01, 0.5),
)
def test_evaluations_of_any_cost_stay_within_the_fraction_of_the_time(
    cost_s: float, run_s: int, times: int, share: float
) -> None:
    """A whole run, second by second: an evaluation ends after its cost, or is killed at its limit."""
    schedule = started(times, share)
    spent, free_at, waits = 0.0, 0.0, False
    for second in range(run_s + 1):
        progress, is_last = second / run_s, second == run_s
        if schedule.is_due(progress, second):
            schedule.note_taken(progress, second)
            waits = True
        if waits and second >= free_at and schedule.may_start(second, last=is_last):
            seconds = min(cost_s, limit := schedule.limit_s(second, progress, run_s))
            schedule.note_end(seconds, failed=cost_s > limit)
            spent, free_at, waits = spent + seconds, second + seconds, False
    assert spent <= max(share * run_s, 1.0) + 1e-6
