"""What is decided when a process ends, and that it is done with real processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.errors import ConfigError, LastingError, PeerError, ShoalError
from common.process.children.restart_policy import MAX_FAILURES, Finished, GiveUp, ProcessExit, Restart, RestartPolicy
from deploy.local.supervisor import SupervisedProcess, Supervisor, outcome


def _policy() -> RestartPolicy:
    return RestartPolicy("thing")


def test_exit_code_0_finishes_what_finishes_and_restarts_a_service() -> None:
    assert outcome(0, 5.0, _policy(), finishes=True, message="") == Finished()
    assert isinstance(outcome(0, 5.0, _policy(), finishes=False, message=""), Restart)


def test_a_killed_process_restarts_after_a_growing_delay_until_it_is_given_up() -> None:
    policy = _policy()
    delays = [outcome(-9, 1.0, policy, finishes=False, message="boom") for _ in range(MAX_FAILURES)]
    assert [delay.delay_s for delay in delays if isinstance(delay, Restart)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    last = outcome(-9, 1.0, policy, finishes=False, message="boom")
    assert isinstance(last, GiveUp)
    assert str(last.error) == "boom\n(thing failed 9 times in a row; it is not restarted)"


def test_a_long_run_resets_the_delay() -> None:
    policy = _policy()
    for _ in range(MAX_FAILURES):
        outcome(-9, 1.0, policy, finishes=False, message="")
    assert outcome(-9, 3_600.0, policy, finishes=False, message="") == Restart(0.5, "")


@pytest.mark.parametrize(("code", "kind"), [(2, ConfigError), (3, PeerError)])
def test_a_usage_error_is_not_retried(code: int, kind: type[ShoalError]) -> None:
    found = outcome(code, 1.0, _policy(), finishes=True, message="--gpu: no CUDA")
    assert isinstance(found, GiveUp)
    assert type(found.error) is kind
    assert str(found.error) == "--gpu: no CUDA"


def test_a_peer_that_was_there_once_is_waited_for() -> None:
    policy = _policy()
    assert outcome(-9, 1.0, policy, finishes=False, message="") == Restart(0.5, "")
    assert outcome(3, 1.0, policy, finishes=False, message="Redis is gone") == Restart(1.0, "Redis is gone")


def test_what_a_process_calls_permanent_is_final() -> None:
    found = outcome(1, 3_600.0, _policy(), finishes=False, message="no licence", permanent=True)
    assert isinstance(found, GiveUp)
    assert type(found.error) is LastingError
    assert str(found.error) == "no licence"


def _child(tmp_path: Path, code: str, *, finishes: bool = True) -> SupervisedProcess:
    log = tmp_path / "log"

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen([sys.executable, "-c", code], stdout=output, stderr=output)

    return SupervisedProcess("thing", start, log, lambda: finishes)


def _poll_until(supervisor: Supervisor, done: object) -> None:
    give_up_at = time.monotonic() + 20
    while not done():  # type: ignore[operator]
        assert time.monotonic() < give_up_at
        supervisor.poll()
        time.sleep(0.01)


@pytest.mark.slow
def test_a_role_that_dies_is_started_again_and_then_finishes(tmp_path: Path) -> None:
    mark = tmp_path / "second-time"
    code = (
        f"import os, pathlib; mark = pathlib.Path({str(mark)!r}); first = not mark.exists(); mark.touch();"
        "first and os.kill(os.getpid(), 9)"
    )
    supervisor = Supervisor()
    child = supervisor.add(_child(tmp_path, code))
    _poll_until(supervisor, lambda: child.problem)
    assert "killed by signal 9" in supervisor.problems[0]
    _poll_until(supervisor, lambda: child.finished)
    assert child.policy.restarts == 1
    assert supervisor.problems == []


@pytest.mark.slow
def test_the_last_line_of_the_log_is_what_the_user_reads(tmp_path: Path) -> None:
    supervisor = Supervisor()
    supervisor.add(_child(tmp_path, "import sys; print('learner: no CUDA', file=sys.stderr); sys.exit(2)"))
    with pytest.raises(ConfigError, match=r"thing ended with code 2.*no CUDA"):
        _poll_until(supervisor, lambda: False)


@pytest.mark.slow
def test_a_process_that_is_killed_is_not_given_the_words_of_a_worker_that_it_has_mended(tmp_path: Path) -> None:
    note, log = tmp_path / "note", tmp_path / "log"
    code = (
        "import os; from pathlib import Path; from common.process.children.failure_note import FailureNote;"
        f"FailureNote(Path({str(note)!r})).append('worker 3: no licence', lasting=False, handled=True);"
        "print('its own last line', flush=True); os.kill(os.getpid(), 9)"
    )

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen([sys.executable, "-c", code], stdout=output, stderr=output)

    supervisor = Supervisor()
    child = supervisor.add(SupervisedProcess("thing", start, log, note=note))
    _poll_until(supervisor, lambda: child.problem)
    assert supervisor.take_handled_failures() == ["thing worker 3: no licence"]
    for _ in range(MAX_FAILURES):
        child.policy.decide(ProcessExit("other", "", progressed=False))
    with pytest.raises(LastingError, match="its own last line"):
        _poll_until(supervisor, lambda: False)


@pytest.mark.slow
def test_ending_is_in_reverse_order_and_kills_what_does_not_end(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    supervisor = Supervisor()
    polite = supervisor.add(_child(tmp_path, "import time; time.sleep(60)", finishes=False))
    stubborn = supervisor.add(_child(tmp_path, deaf, finishes=False))
    _poll_until(supervisor, lambda: "deaf" in (tmp_path / "log").read_text())
    supervisor.end(timeout_s=0.5)
    assert polite.process is not None
    assert stubborn.process is not None
    assert (polite.process.returncode, stubborn.process.returncode) == (-15, -9)


@pytest.mark.slow
def test_an_interrupt_while_processes_end_kills_them_all(tmp_path: Path) -> None:
    """As a second Ctrl-C in a notebook does: it is an exception there, and nothing may be left behind."""
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    supervisor = Supervisor()
    processes = [supervisor.add(_child(tmp_path, deaf, finishes=False)) for _ in range(2)]
    _poll_until(supervisor, lambda: (tmp_path / "log").read_text().count("deaf") == 2)

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        supervisor.end(on_wait=interrupt)
    assert [child.process.returncode for child in processes if child.process is not None] == [-9, -9]
