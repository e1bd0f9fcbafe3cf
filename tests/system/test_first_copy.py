"""Commands whose user's own environment misbehaves in its first copy."""

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import PATIENCE_S
from tests.system.conftest import Commands, log_of

pytestmark = pytest.mark.system

ENVIRONMENT = """
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
"""


LEARNER = ("learner", "--scenario", "pettingzoo:first_env", "--bind", "ipc://weights", "--metrics-port", "0")


@pytest.fixture(autouse=True)
def environment(tmp_path: Path) -> None:
    (tmp_path / "first_env.py").write_text(ENVIRONMENT)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def all_are_gone(directory: Path) -> bool:
    """Whether every copy's process has ended, and every program that one started."""
    found = list(directory.glob("left-*"))
    assert found
    return all(is_gone(int(path.name.removeprefix("left-"))) and is_gone(int(path.read_text())) for path in found)


@pytest.mark.parametrize(
    ("way", "words"),
    [("fail", "making copy 1 of 1: RuntimeError: the licence server said no\n"), ("exit", "with exit code 3")],
)
def test_a_fault_is_shown_on_the_standard_error_with_nothing_on_the_standard_output(
    commands: Commands, eventually: Callable[..., object], way: str, words: str
) -> None:
    code, out, err = commands.run(
        "shoal", "train", "pettingzoo:first_env", "--set", f"world.way={way}", "--json", "--run", "run"
    )
    assert (code, out) == (1, "")
    assert words in err
    assert "Traceback" not in err
    assert "noise of a program" in err
    assert not (commands.directory / "run").exists()
    eventually(lambda: all_are_gone(commands.directory), "nothing is left")


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
    eventually(lambda: re.search(named, log_of(process)), "the constructor is named")
    asked_at = time.monotonic()
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == code
    assert time.monotonic() - asked_at < 5
    eventually(lambda: all_are_gone(commands.directory), "nothing is left")
    assert not (commands.directory / "run").exists()
