"""What needs one process runs where Python lacks the modules and calls of POSIX, as on Windows.

The test takes them away from a Python on Linux. It shows that no module needs them when it is imported, not that a
run on Windows succeeds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Libraries look at sys.platform and then use POSIX, so they are imported before it is taken away.
# msvcrt is what Windows has in place of fcntl. Shoal's own use of `msvcrt.locking` is recorded.
WITHOUT_POSIX = """
import asyncio, ctypes, multiprocessing.connection, multiprocessing.resource_tracker, os, signal, socket, subprocess
import importlib.abc, random, sys, tempfile, threading, types
import click, jinja2, mpe2, msgspec, numpy, pettingzoo, PIL, prometheus_client, rich.console, rich.live
import tensorboardX, torch, zmq

class Blocker(importlib.abc.MetaPathFinder):
    MISSING = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"}
    def find_spec(self, name, path=None, target=None):
        if name in self.MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}: POSIX only", name=name)

for name in Blocker.MISSING:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Blocker())
for name in (
    "SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "pthread_sigmask", "setitimer",
):
    delattr(signal, name)
for name in (
    "fork", "forkpty", "killpg", "getuid", "geteuid", "getgid", "getpgid", "setsid", "register_at_fork", "sysconf",
    "sched_getaffinity", "statvfs", "fchmod", "uname", "mkfifo", "getloadavg", "nice", "O_DIRECTORY", "O_NOFOLLOW",
    "O_CLOEXEC", "O_NONBLOCK",
):
    delattr(os, name)
del socket.AF_UNIX

locked = []
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=lambda *arguments: locked.append(arguments[1:]))
"""


def without_posix(code: str, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT_POSIX + code, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_lockstep_run_its_evaluation_and_its_team_need_no_posix(tmp_path: Path) -> None:
    output = without_posix(
        """
import json, shoal
settings = {"replay.min_size": 64, "replay.batch": 32, "exploration.random_steps": 64, "network.policy_hidden": [8]}
run = shoal.train(
    "simple_spread", steps=300, run="run", lockstep=True, copies=4, episodes=0, settings=settings, progress=False,
    film=False,
)
assert run.finished
evaluated = run.evaluate(episodes=20)
team = shoal.load("run")
world = shoal.make_world("simple_spread", copies=2, seed=0)
actions = team.act(world.reset())
print(json.dumps([evaluated.episodes, evaluated.return_mean, list(actions.shape), locked]))
""",
        cwd=tmp_path,
    )
    episodes, mean, shape, locked = json.loads(output)
    assert episodes == 20
    assert -1000.0 < mean < 0.0
    assert shape == [2, 15]  # three agents of five numbers
    assert locked
    assert set(map(tuple, locked)) == {(2, 1)}  # one byte, without waiting


@pytest.mark.slow
def test_every_command_can_be_imported_and_names_what_needs_posix(tmp_path: Path) -> None:
    output = without_posix(
        """
import click
from shoal.cli import shoal
context = click.Context(shoal)
for name in shoal.list_commands(context):
    print(shoal.get_command(context, name).name)
from common.errors import ConfigError
for arguments in (["train", "simple_spread"], ["train", "pettingzoo:my_env", "--lockstep"]):
    try:
        shoal.main(arguments, standalone_mode=False)
    except ConfigError as error:
        print(error)
""",
        cwd=tmp_path,
    )
    assert {"train", "check", "evaluate", "report", "render", "export"} <= set(output.split())
    assert "A run in several processes needs a POSIX system, and linux is not one. Pass --lockstep" in output
    assert "Code of a user's environment runs in a separate process, which needs a POSIX system" in output
