"""Commands whose user's own environment misbehaves in its first copy."""

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.system.conftest import Commands, log_of

pytestmark = pytest.mark.system

ENVIRONMENT = '''
import os, subprocess, time
from pathlib import Path

print("noise of the import", flush=True)


def parallel_env(way="fail"):
    started = subprocess.Popen(["sleep", "600"])
    Path(f"left-{os.getpid()}").write_text(str(started.pid))
    os.system("echo noise of a program")
    if way == "hang":
        time.sleep(600)
    if way == "exit":
        os._exit(3)
    raise RuntimeError("the licence server said no")
'''


LEARNER = ("learner", "--scenario", "pettingzoo:first_env", "--bind", "ipc://weights", "--metrics-port", "0")


@pytest.fixture(autouse=True)
def environment(tmp_path: Path) -> None:
    (tmp_path / "first_env.py").write_text(ENVIRONMENT)


def left(directory: Path) -> list[psutil.Process]:
    """Returns the processes of copies that still run."""
    found = []
    for path in directory.glob("left-*"):
        for pid in (path.name.removeprefix("left-"), path.read_text()):
            try:
                found.append(psutil.Process(int(pid)))
            except psutil.NoSuchProcess:
                continue
    return psutil.wait_procs(found, timeout=5)[1]


@pytest.mark.parametrize(
    ("way", "words"),
    [("fail", "making copy 0: RuntimeError: the licence server said no\n"), ("exit", "with exit code 3")],
)
def test_a_fault_is_shown_on_the_standard_error_with_nothing_on_the_standard_output(
    commands: Commands, way: str, words: str
) -> None:
    code, out, err = commands.run(
        "shoal", "train", "pettingzoo:first_env", "--set", f"world.way={way}", "--json", "--run", "run"
    )
    assert (code, out) == (1, "")
    assert words in err
    assert "Traceback" not in err
    assert "noise of a program" in err
    assert not (commands.directory / "run").exists()
    assert left(commands.directory) == []


@pytest.mark.parametrize(
    ("command", "number", "code"),
    [
        (("shoal", "train", "pettingzoo:first_env"), signal.SIGINT, 130),
        (LEARNER, signal.SIGINT, 130),
        (LEARNER, signal.SIGTERM, 0),
    ],
)
def test_a_constructor_that_hangs_is_named_and_does_not_keep_the_command_from_ending(
    commands: Commands, eventually: Callable[..., object], command: tuple[str, ...], number: signal.Signals, code: int
) -> None:
    process = commands.start(*command, "--set", "world.way=hang", "--run", "run")
    named = r"making one copy of the environment, .*: its constructor has not returned for"
    eventually(lambda: re.search(named, log_of(process)), "the constructor is named", within_s=40)
    asked_at = time.monotonic()
    process.send_signal(number)
    assert process.wait(10) == code
    assert time.monotonic() - asked_at < 5
    assert left(commands.directory) == []
    assert not (commands.directory / "run").exists()
