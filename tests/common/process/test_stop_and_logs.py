import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from common.process.exit import DONE, INTERRUPTED
from common.process.monitoring.logs import WaitLog
from common.process.stop import Stop
from tests.conftest import PATIENCE_S

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


@pytest.fixture
def start():
    """Starts a Python script whose first line of output tells that it is ready; kills it in the end."""
    with contextlib.ExitStack() as stack:

        def begin(script, *arguments):
            process = subprocess.Popen(
                [sys.executable, "-u", "-c", script, *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=ENVIRONMENT,
                # Whoever runs the tests may ignore hangups, as `nohup` does, and the script would inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin


def end_of(process):
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


# ---- Stop ---------------------------------------------------------------------------------------------------------


def test_the_first_request_decides_the_exit_code():
    stop = Stop()
    assert (stop.requested, stop.exit_code) == (False, DONE)
    stop.request(INTERRUPTED)
    stop.request(DONE)
    assert (stop.requested, stop.exit_code) == (True, INTERRUPTED)


def test_waiting_is_clock_and_exit():
    stop = Stop()
    began = time.monotonic()
    assert not stop.wait(0.05)
    assert 0.04 < time.monotonic() - began < 2.0
    assert not stop.wait(0.0)
    assert not stop.wait(-1.0)
    stop.request()
    assert stop.wait(60.0)
    assert stop.wait(60.0), "again and again"


def test_a_request_wakes_every_thread_that_waits(eventually):
    stop, woken = Stop(), []
    threads = [threading.Thread(target=lambda: woken.append(stop.wait(5.0)), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: {sys._current_frames()[thread.ident].f_code.co_name for thread in threads} == {"wait"})
    began = time.monotonic()
    stop.request()
    for thread in threads:
        thread.join()
    assert woken == [True] * 4
    assert time.monotonic() - began < 4.0, "none waited to the end of its time"


LOOP = """
from common.process.stop import Stop
stop = Stop()
stop.on_signals()
print("ready")
while not stop.wait(60):
    pass
print("draining")
{drain}
print("drained")
raise SystemExit(stop.exit_code)
"""
BRIEF = LOOP.format(drain="")
# Until it receives a line; `readline` is restarted after a signal.
LONG = LOOP.format(drain="import sys; sys.stdin.readline()")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_asks_for_a_clean_end(start, number, code):
    process = start(BRIEF)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert end_of(process)[:2] == (code, "draining\ndrained\n")


BRIEF_HINT = BRIEF.replace("stop.on_signals()", "stop.hint = 'resume with ...'; stop.on_signals(); stop.on_hangup()")
LONG_HINT = BRIEF_HINT.replace('print("draining")', 'print("draining")\nimport signal\nwhile True: signal.pause()')


def test_a_second_ctrl_c_leaves_the_hint(start):
    process = start(LONG_HINT)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "draining\n"
    process.send_signal(signal.SIGINT)
    assert end_of(process) == (INTERRUPTED, "", "\nresume with ...\n")


DURING_A_START = BRIEF_HINT.replace(
    'print("ready")', 'import signal\nwith stop.ending_at_once():\n    print("starting")\n    {start}\nprint("ready")'
)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, DONE), (signal.SIGINT, INTERRUPTED)])
def test_a_signal_during_a_start_ends_the_process_at_once_with_the_hint(start, number, code):
    process = start(DURING_A_START.replace("{start}", "while True: signal.pause()"))
    assert process.stdout.readline() == "starting\n"
    process.send_signal(number)
    assert end_of(process) == (code, "", "\nresume with ...\n")


def test_a_signal_after_the_start_asks_for_a_clean_end(start):
    process = start(DURING_A_START.replace("{start}", "pass"))
    assert [process.stdout.readline() for _ in range(2)] == ["starting\n", "ready\n"]
    process.send_signal(signal.SIGTERM)
    assert end_of(process) == (DONE, "draining\ndrained\n", "")


def test_the_end_of_the_terminal_leaves_the_hint_and_ends_cleanly(start):
    process = start(BRIEF_HINT)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert end_of(process) == (129, "draining\ndrained\n", "\nresume with ...\n")


def test_a_terminal_that_is_gone_does_not_disturb_a_clean_end(start, tmp_path):
    done = tmp_path / "done"
    process = start(BRIEF_HINT.replace("raise SystemExit", f"open({str(done)!r}, 'w')\nraise SystemExit"))
    assert process.stdout.readline() == "ready\n"
    process.stderr.close()
    process.stdout.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(PATIENCE_S) == 129
    assert done.exists()


def test_who_ignores_hangups_from_the_start_ignores_them_still(start):
    process = start(f"import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n{BRIEF_HINT}")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert end_of(process)[0] == DONE


GUEST = """
import signal
from common.process.stop import Stop
stop = Stop()
signal.signal(signal.SIGTERM, lambda *_: None)
before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
try:
    with stop.signals():
        print("ready", flush=True)
        while not stop.wait(60):
            pass
        print("draining", flush=True)
        while True:
            signal.pause()
except KeyboardInterrupt:
    print("interrupted", flush=True)
print([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before, int(stop.signal), flush=True)
"""


def test_in_a_program_of_another_a_second_ctrl_c_is_an_exception_and_handlers_come_back(start):
    process = start(GUEST)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "draining\n"
    process.send_signal(signal.SIGINT)
    assert end_of(process) == (0, f"interrupted\nTrue {int(signal.SIGINT)}\n", "")


@pytest.fixture
def draining():
    """Starts a process, sends it a first signal, and returns it while it drains."""
    processes = []

    def begin(first):
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", LONG],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        process.send_signal(first)
        assert process.stdout.readline() == "draining\n"
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def test_a_second_interrupt_ends_the_process_at_once(draining):
    process = draining(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    assert process.stdout.read() == "", "it has not drained"


@pytest.mark.parametrize(
    ("first", "then", "code"),
    [
        (signal.SIGTERM, [signal.SIGTERM, signal.SIGTERM], 0),
        (signal.SIGTERM, [signal.SIGINT], 0),
        (signal.SIGINT, [signal.SIGTERM], 130),
    ],
    ids=str,
)
def test_any_other_pair_of_signals_lets_it_drain(draining, first, then, code):
    process = draining(first)
    for number in then:
        process.send_signal(number)
    assert process.communicate("go on\n", timeout=PATIENCE_S)[0] == "drained\n"
    assert process.returncode == code


@pytest.mark.slow
def test_a_signal_at_any_moment_of_a_wait_is_taken(start):
    """A Stop over threading.Event hangs here within a second: its set() waits for a lock of the wait it interrupted."""
    process = start(
        """
import faulthandler, random, signal, time
from common.process.stop import Stop
faulthandler.dump_traceback_later(10, exit=True)
stop, rounds, end = Stop(), 0, time.monotonic() + 0.7
random.seed(0)
while time.monotonic() < end:
    stop = Stop()
    signal.signal(signal.SIGALRM, stop._on_signal)
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 60e-6))
    while not stop.wait(random.choice([0.0, 1e-5])):
        pass
    rounds += 1
print(rounds)
"""
    )
    code, out, err = end_of(process)
    assert code == 0, err
    assert int(out) > 100


# ---- dying with the parent ----------------------------------------------------------------------------------------

CHILD = """
import os, sys, time
from common.process.children import parent
parent._ON_LINUX = {on_linux} and parent._ON_LINUX
parent.die_with_parent(int(sys.argv[1]))
print(os.getpid(), flush=True)
time.sleep(600)
"""
PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], stdout=subprocess.PIPE, text=True)
print(child.stdout.readline(), end="", flush=True)
sys.stdin.readline()
"""


def is_gone(pid):
    """Whether a process has ended; one that nobody has buried yet counts."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("on_linux", "how"),
    [(True, "kill"), (True, "exit"), (False, "kill")],
    ids=["killed, the system tells", "ended, the system tells", "killed, a thread looks"],
)
def test_a_child_ends_with_its_parent_however_that_ends(eventually, on_linux, how):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD.format(on_linux=on_linux)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    child = int(parent.stdout.readline())
    try:
        assert not is_gone(child)
        if how == "kill":
            parent.kill()
        parent.communicate("\n", timeout=PATIENCE_S)
        eventually(lambda: is_gone(child), "the child is gone")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_a_child_whose_parent_is_gone_already_ends_at_once(start):
    process = start(CHILD.format(on_linux=True), os.getppid())
    assert end_of(process)[0] == -signal.SIGTERM


# ---- waiting aloud ------------------------------------------------------------------------------------------------


@pytest.fixture
def waits(caplog):
    caplog.set_level(logging.INFO)
    log = WaitLog(logging.getLogger("waiting"))
    return log, lambda: [record.getMessage() for record in caplog.records]


def test_a_short_wait_is_silent_and_counted(waits):
    log, lines = waits
    log.waiting("Godot", 100.0)
    log.waiting("Godot", 109.9)
    assert log.reason == "Godot"
    log.done(109.9)
    assert lines() == []
    assert (log.reason, log.total_s) == ("", pytest.approx(9.9))


def test_a_long_wait_says_every_ten_seconds_what_it_waits_for(waits):
    log, lines = waits
    for tenth in range(251):
        log.waiting("Godot" if tenth < 150 else "Lucky", 100.0 + tenth / 10)
    assert lines() == ["waiting for Godot: 10 s so far", "waiting for Lucky: 20 s so far"]
    log.done(125.5)
    assert lines()[-1] == "waited for Lucky: 25.5 s"


def test_a_wait_is_counted_while_it_goes_on(waits):
    log, _ = waits
    log.waiting("Godot", 10.0)
    log.waiting("Godot", 14.0)
    assert log.total_s == 4.0
    log.done(15.0)
    log.done(99.0)
    log.waiting("Pozzo", 100.0)
    log.waiting("Pozzo", 101.0)
    assert log.total_s == 6.0


def test_the_log_goes_to_stderr_one_line_an_event(start):
    process = start(
        "import logging; from common.process.monitoring.logs import start_logging; start_logging('replay')\n"
        "logging.getLogger('a.b').info('stored chunk=%d', 3); logging.getLogger('a.b').debug('not this')"
    )
    code, out, err = end_of(process)
    assert (code, out) == (0, "")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    replay a\.b: stored chunk=3\n", err)
