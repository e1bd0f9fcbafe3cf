"""What follows a worker's end, from its exit code and its last words."""

import signal

import pytest

from actor_node.worker_exits import LastWords, RestartRequested, decide, last_words
from common.errors import ConfigError, LastingError, PeerError, ShoalError, WorldError
from common.process.restart_policy import MAX_FAILURES, RestartPolicy


def decided(code, words=None, restarts=None, *, collected=False):
    return decide(
        code, words, restarts or RestartPolicy(), collected=collected, doing="step() of copy 3 (of 4)", worker=7
    )


@pytest.mark.parametrize(("error", "kind"), [(ConfigError("--copies 0"), ConfigError), (PeerError("gone"), PeerError)])
def test_a_mistake_and_a_refusing_peer_end_the_node_with_their_own_code(error, kind):
    ending = decided(error.exit_code, last_words(error))
    assert type(ending) is kind
    assert str(ending) == str(error)


def test_a_fault_before_the_first_chunk_ends_the_node_and_one_after_it_does_not():
    fault = WorldError("x: step 1 of copy 3: RuntimeError: no licence\n  user.py:3, step: raise")
    first = decided(1, last_words(fault))
    assert isinstance(first, LastingError)
    assert str(first).startswith(str(fault)), "the words come first, with their lines"
    assert decided(1, last_words(fault), collected=True) == RestartRequested(0.5, str(fault))


def test_an_exception_that_is_none_of_ours_brings_its_words_first_and_then_its_frames():
    with pytest.raises(ZeroDivisionError) as raised:
        _ = 1 / 0
    words = last_words(raised.value)
    assert words.kind == "fault"
    assert words.line == "ZeroDivisionError: division by zero"
    assert "test_worker_exits.py" in words.text


@pytest.mark.parametrize("code", [0, 1, 2, 3, 77])
def test_a_process_that_ends_without_a_word_was_ended_by_its_environment_whatever_the_code(code):
    ending = decided(code)
    assert isinstance(ending, LastingError)
    assert f"exit code {code} (os._exit?) in step() of copy 3 (of 4)" in str(ending)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE])
def test_a_crash_is_a_fault(number):
    assert number.name in str(decided(-number))
    assert isinstance(decided(-number), LastingError)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_kill_from_outside_is_none(number):
    restarts = RestartPolicy()
    endings = [decided(-number, None, restarts) for _ in range(MAX_FAILURES + 1)]
    assert all(isinstance(ending, RestartRequested) for ending in endings[:-1])
    assert isinstance(endings[-1], LastingError)


def test_a_replay_server_that_wants_another_worker_gets_one():
    words = last_words(ShoalError("serves another run now; this worker begins anew"))
    assert decided(1, words) == RestartRequested(0.5, words.text)


def test_words_are_cut_to_what_a_pipe_holds():
    assert len(last_words(WorldError("x" * 100_000)).text) == 8_000
    assert len(LastWords("fault", "y" * 900).line) == 200


def test_a_worker_that_was_asked_to_end_by_another_than_its_node_starts_again():
    words = LastWords("again", "asked to end by a signal that is not its node's")
    assert decided(0, words) == RestartRequested(0.5, words.text)


def test_words_are_the_reason_also_where_the_worker_was_killed_since_it_could_not_end():
    fault = WorldError("x: step 1 of copy 3: RuntimeError: no licence")
    ending = decided(-signal.SIGKILL, last_words(fault))
    assert isinstance(ending, LastingError)
    assert str(ending).startswith(str(fault))
