from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.process.restart_policy import FIRST_DELAY_S, LONGEST_DELAY_S, MAX_FAILURES, GiveUp, RestartPolicy, Retry

STEP = "pettingzoo:x: step 40 of copy 3: RuntimeError: the licence server is gone"
OTHER_STEP = "pettingzoo:x: step 7 of copy 0: RuntimeError: the licence server is gone"


def history(*ends: tuple[bool, str]) -> list[Retry | GiveUp]:
    restarts = RestartPolicy()
    return [restarts.after(progressed=progressed, fault=fault) for progressed, fault in ends]


def test_the_delay_doubles_up_to_its_longest_then_the_process_is_given_up():
    decided = history(*[(False, "")] * (MAX_FAILURES + 1))
    assert decided[:-1] == [Retry(delay) for delay in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)]
    assert decided[-1] == GiveUp("9 times in a row")


def test_progress_starts_the_delay_anew():
    ends = [(False, ""), (False, ""), (True, ""), (False, "")]
    assert history(*ends) == [Retry(0.5), Retry(1.0), Retry(0.5), Retry(1.0)]


def test_a_fault_before_anything_was_ever_done_is_final():
    assert isinstance(history((False, STEP))[0], GiveUp)
    after_a_kill = history((False, ""), (False, STEP))
    assert isinstance(after_a_kill[0], Retry)
    assert isinstance(after_a_kill[1], GiveUp)


def test_a_kill_before_anything_was_done_is_not_final():
    assert history((False, "")) == [Retry(0.5)]


@pytest.mark.parametrize("words", ["OSError: port 8813 is in use", "OSError: port 9.5e3 is in use\n  File a, line 3"])
def test_the_same_fault_three_times_with_nothing_in_between_is_final_whatever_its_numbers(words):
    ends = [(True, words.replace("8813", "1")), (False, words.replace("8813", "2")), (False, words)]
    first, second, third = history(*ends)
    assert (first, second) == (Retry(0.5), Retry(1.0))
    assert isinstance(third, GiveUp)


def test_different_faults_are_retried_as_long_as_any_failure():
    ends = [(True, "a")] + [(False, word) for word in "babababa"]
    decided = history(*ends)
    assert all(isinstance(one, Retry) for one in decided[:MAX_FAILURES])
    assert isinstance(decided[MAX_FAILURES], GiveUp)


def test_a_rare_fault_is_retried_for_ever():
    steps = [f"x: step {i} of copy {i % 5}: RuntimeError: lost" for i in range(200)]
    assert history(*[(True, step) for step in steps]) == [Retry(0.5)] * 200


def test_a_fault_that_always_comes_in_the_same_step_is_final_although_chunks_came_before_it():
    decided = history((True, STEP), (True, STEP), (True, STEP))
    assert decided[:2] == [Retry(0.5)] * 2
    assert isinstance(decided[2], GiveUp)
    assert isinstance(history((True, STEP), (True, OTHER_STEP), (True, STEP))[2], Retry)
    no_step = "ConnectionError: the simulator closed the connection"
    assert isinstance(history(*[(True, no_step)] * 9)[-1], Retry), "without a step nothing says that it is the same"


@given(st.lists(st.booleans(), max_size=60))
def test_over_any_history_of_kills(progress):
    restarts = RestartPolicy()
    decided = [restarts.after(progressed=progressed) for progressed in progress]
    in_a_row = list(accumulate(progress, lambda n, progressed: 1 if progressed else n + 1, initial=0))[1:]
    assert [isinstance(one, GiveUp) for one in decided] == [n > MAX_FAILURES for n in in_a_row]
    delays = [one.delay_s for one in decided if isinstance(one, Retry)]
    assert all(FIRST_DELAY_S <= delay <= LONGEST_DELAY_S for delay in delays)
    assert restarts.total == len(delays)
