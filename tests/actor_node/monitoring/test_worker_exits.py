"""How a worker's end is classified, from its exit code and the failure it reported."""

import signal

import pytest

from actor_node.monitoring.worker_exits import WorkerFailure, failure_of, worker_exit
from common.errors import ConfigError, LastingError, PeerError, ShoalError, WorldError
from common.process.children.restart_policy import GiveUp, ProcessExit, Restart, RestartPolicy

CALL = "step() of copy 4 of 4"


def exit_of(code, failure=None, *, collected=False):
    return worker_exit(code, failure, collected=collected, call=CALL)


@pytest.mark.parametrize(("error", "cause"), [(ConfigError("--copies 0"), "usage"), (PeerError("gone"), "peer")])
def test_a_usage_error_and_a_refusing_peer_keep_their_text(error, cause):
    assert exit_of(error.exit_code, failure_of(error)) == ProcessExit(cause, str(error), progressed=False)


def test_a_fault_before_the_first_chunk_ends_the_node_and_one_after_it_does_not():
    fault = WorldError("x: step 1 of copy 3: RuntimeError: no licence\n  user.py:3, step: raise")
    first = RestartPolicy("worker 7").decide(exit_of(1, failure_of(fault)))
    assert isinstance(first, GiveUp)
    assert isinstance(first.error, LastingError)
    assert str(first.error).startswith(str(fault)), "the reason comes first, with its lines"
    later = RestartPolicy("worker 7").decide(exit_of(1, failure_of(fault), collected=True))
    assert later == Restart(0.5, str(fault))


def test_an_exception_that_is_not_shoals_has_its_message_first_and_then_its_frames():
    with pytest.raises(ZeroDivisionError) as raised:
        _ = 1 / 0
    failure = failure_of(raised.value)
    assert failure.cause == "fault"
    assert failure.line == "ZeroDivisionError: division by zero"
    assert "test_worker_exits.py" in failure.text


@pytest.mark.parametrize("code", [0, 1, 2, 3, 77])
def test_a_process_that_ends_without_a_report_was_ended_by_its_environment_whatever_the_code(code):
    end = exit_of(code)
    assert end.cause == "fault"
    assert f"exit code {code} (os._exit?) in {CALL}" in end.reason


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE])
def test_a_crash_is_a_fault(number):
    end = exit_of(-number)
    assert end.cause == "fault"
    assert number.name in end.reason


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_kill_from_outside_is_not_a_fault(number):
    assert exit_of(-number) == ProcessExit("other", f"killed by signal {int(number)}", progressed=False)


@pytest.mark.parametrize("code", [0, 1])
def test_a_worker_that_asks_for_a_successor_gets_one_whatever_its_exit_code(code):
    failure = failure_of(ShoalError("serves another run now"))
    assert exit_of(code, failure) == ProcessExit("other", failure.text, progressed=False)


def test_texts_are_cut_to_what_a_pipe_holds():
    assert len(failure_of(WorldError("x" * 100_000)).text) == 8_000
    assert len(WorkerFailure("fault", "y" * 900).line) == 200


def test_a_reported_failure_is_the_reason_also_where_the_worker_was_killed_because_it_could_not_end():
    fault = WorldError("x: step 1 of copy 3: RuntimeError: no licence")
    assert exit_of(-signal.SIGKILL, failure_of(fault)) == ProcessExit("fault", str(fault), progressed=False)
