from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from common.restarts import FIRST_DELAY_S, LONGEST_DELAY_S, MOST_FAILURES, STEADY_S, Restarts


def test_the_delay_doubles_up_to_its_longest_then_the_process_is_given_up():
    restarts = Restarts()
    delays = [restarts.delay_after(0.1) for _ in range(MOST_FAILURES + 1)]
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, None]
    assert restarts.total == MOST_FAILURES


def test_a_steady_run_begins_anew():
    restarts = Restarts()
    assert [restarts.delay_after(ran) for ran in (1.0, 1.0, 1.0, STEADY_S, 1.0)] == [0.5, 1.0, 2.0, 0.5, 1.0]
    assert restarts.total == 5


@given(st.lists(st.floats(0.0, 1e5), max_size=60))
def test_over_any_history(runs):
    restarts = Restarts()
    delays = [restarts.delay_after(ran) for ran in runs]
    in_a_row = list(accumulate(runs, lambda n, ran: 1 if ran >= STEADY_S else n + 1, initial=0))[1:]
    assert [delay is None for delay in delays] == [n > MOST_FAILURES for n in in_a_row]
    assert all(FIRST_DELAY_S <= delay <= LONGEST_DELAY_S for delay in delays if delay is not None)
    assert restarts.total == sum(delay is not None for delay in delays)
