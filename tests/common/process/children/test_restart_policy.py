from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError, LastingError, PeerError
from common.process.children.restart_policy import (
    FIRST_DELAY_S,
    MAX_DELAY_S,
    MAX_FAILURES,
    GiveUp,
    ProcessExit,
    Restart,
    RestartPolicy,
)

STEP = "pettingzoo:x: step 40 of copy 3: RuntimeError: the licence server is gone"
OTHER_STEP = "pettingzoo:x: step 7 of copy 0: RuntimeError: the licence server is gone"


def history(*ends: tuple[bool, str]) -> list[Restart | GiveUp]:
    """Returns what each end leads to: (progressed, fault), where an empty fault is a kill."""
    policy = RestartPolicy("worker 7")
    return [policy.decide(ProcessExit("fault" if fault else "other", fault, progressed)) for progressed, fault in ends]


def delays(*ends: tuple[bool, str]) -> list[float | None]:
    """Returns the delay after each end; None where the process is given up."""
    return [outcome.delay_s if isinstance(outcome, Restart) else None for outcome in history(*ends)]


def test_the_delay_doubles_up_to_its_longest_then_the_process_is_given_up():
    ends = [(False, "")] * (MAX_FAILURES + 1)
    assert delays(*ends) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, None]
    last = history(*ends)[-1]
    assert isinstance(last, GiveUp)
    assert isinstance(last.error, LastingError)
    assert str(last.error) == "\n(worker 7 failed 9 times in a row; it is not restarted)"


def test_a_restart_carries_the_reason_of_the_end():
    assert history((True, STEP)) == [Restart(0.5, STEP)]


@pytest.mark.parametrize(("cause", "error"), [("usage", ConfigError), ("peer", PeerError), ("permanent", LastingError)])
def test_what_a_restart_cannot_help_ends_with_its_own_error_and_text(cause, error):
    policy = RestartPolicy("worker 7")
    outcome = policy.decide(ProcessExit(cause, "--copies 0", progressed=True))
    assert isinstance(outcome, GiveUp)
    assert type(outcome.error) is error
    assert str(outcome.error) == "--copies 0"
    assert (policy.failures, policy.restarts) == (0, 0)


def test_progress_resets_the_delay():
    assert delays((False, ""), (False, ""), (True, ""), (False, "")) == [0.5, 1.0, 0.5, 1.0]


def test_a_fault_before_any_progress_is_final():
    assert delays((False, STEP)) == [None]
    assert delays((False, ""), (False, STEP)) == [0.5, None]


def test_a_kill_before_any_progress_is_not_final():
    assert delays((False, "")) == [0.5]


@pytest.mark.parametrize("words", ["OSError: port 8813 is in use", "OSError: port 9.5e3 is in use\n  File a, line 3"])
def test_the_same_fault_three_times_with_nothing_in_between_is_final_whatever_its_numbers(words):
    ends = [(True, words.replace("8813", "1")), (False, words.replace("8813", "2")), (False, words)]
    assert delays(*ends) == [0.5, 1.0, None]


def test_different_faults_are_retried_as_long_as_any_failure():
    found = delays((True, "a"), *((False, word) for word in "babababa"))
    assert None not in found[:MAX_FAILURES]
    assert found[MAX_FAILURES] is None


def test_a_rare_fault_is_retried_for_ever():
    steps = [f"x: step {i} of copy {i % 5}: RuntimeError: lost" for i in range(200)]
    assert delays(*[(True, step) for step in steps]) == [0.5] * 200


def test_a_fault_that_always_comes_in_the_same_step_is_final_although_chunks_came_before_it():
    assert delays((True, STEP), (True, STEP), (True, STEP)) == [0.5, 0.5, None]
    assert delays((True, STEP), (True, OTHER_STEP), (True, STEP)) == [0.5, 0.5, 0.5]
    no_step = "ConnectionError: the simulator closed the connection"
    assert delays(*[(True, no_step)] * 9)[-1] == 0.5, "without a step nothing says that it is the same"


@given(st.lists(st.booleans(), max_size=60))
def test_over_any_history_of_kills(progress):
    found = delays(*((progressed, "") for progressed in progress))
    in_a_row = list(accumulate(progress, lambda n, progressed: 1 if progressed else n + 1, initial=0))[1:]
    assert [delay is None for delay in found] == [n > MAX_FAILURES for n in in_a_row]
    assert all(FIRST_DELAY_S <= delay <= MAX_DELAY_S for delay in found if delay is not None)


def test_restarts_are_counted():
    policy = RestartPolicy("worker 7")
    for _ in range(MAX_FAILURES + 1):
        policy.decide(ProcessExit("other", "killed", progressed=False))
    assert (policy.failures, policy.restarts) == (MAX_FAILURES + 1, MAX_FAILURES)
