"""How a worker in a call of its environment is described, from the values of one moment."""

import pytest

from actor_node.monitoring.environment_calls import (
    Call,
    CurrentCall,
    describe_activity,
    describe_call,
    describe_long_call,
)

NOW = 1_000.0


def moment(call=Call.NONE, copy=0, duration_s=None, step_duration_s=None, step_s=0.0):
    started_at = 0.0 if duration_s is None else NOW - duration_s
    step_started_at = 0.0 if step_duration_s is None else NOW - step_duration_s
    return CurrentCall(call, copy, 32, started_at, step_started_at, step_s, 0.0, 1)


@pytest.mark.parametrize(
    ("current", "text"),
    [
        (moment(), ""),
        (moment(step_s=0.01), ""),
        (moment(step_s=16.0), "16.0 s a step of all copies"),
        (moment(Call.MAKING, 6, 2.0), "making copy 7 of 32"),
        (moment(Call.MAKING, 6, 25.0), "making copy 7 of 32 for 25 s"),
        (moment(Call.RESETTING, 2, 0.1), "resetting copy 3 of 32"),
        (moment(Call.STEPPING, 2, 0.001, 0.01, 0.02), ""),
        (moment(Call.RESETTING, 2, 0.001, 0.01, 0.02), ""),
        (moment(Call.STEPPING, 11, 0.5, 6.0), "stepping copy 12 of 32"),
        (moment(Call.STEPPING, 11, None, 6.0, 16.0), "stepping copy 12 of 32, 16.0 s a step of all copies"),
        (moment(Call.STEPPING, 11, 40.0, 46.0), "stepping copy 12 of 32 for 40 s"),
        (moment(Call.CLOSING, 0, 3.0, 46.0), "closing the environments"),
        (moment(Call.RESETTING, 11, 40.0, 46.0), "resetting copy 12 of 32 for 40 s"),
    ],
)
def test_an_activity_is_described_only_below_the_usual_pace(current, text):
    assert describe_activity(current, NOW) == text


def test_a_call_is_named_once_it_takes_long():
    assert describe_long_call(moment(Call.STEPPING, 3, 9.9, 9.9), NOW) == ""
    assert describe_long_call(moment(), NOW) == describe_call(moment()) == ""
    said = describe_long_call(moment(Call.RESETTING, 3, 12.0), NOW)
    assert said == "reset() of copy 4 of 32 has not returned for 12 s"
