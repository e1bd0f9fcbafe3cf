"""Real commands as real processes, started by a test and gone with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import zmq

from common.errors import PeerError
from common.wire.client import Client
from common.wire.keys import Keys
from common.wire.messages import Status, StatusRequest
from tests.conftest import wait_until
from tests.replay_server.conftest import make_valkey  # noqa: F401  (a fixture)

MODULES = {"shoal": "shoal", "replay": "replay_server", "learner": "learner_node", "actor": "actor_node"}


class Commands:
    """Starts commands in a directory of the test's own, with one log each, and kills what is left of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, command: str, *arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Starts `command` in a session of its own; its output goes to the file `log_of` names."""
        module = [sys.executable, "-m", MODULES[command]] if command in MODULES else [command]
        log = self.directory / f"{len(self.processes)}-{Path(command).name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*module, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **(env or {})},
                start_new_session=True,
            )
        process.log = log  # type: ignore[attr-defined]
        self.processes.append(process)
        return process

    def run(self, command: str, *arguments: object, timeout_s: float = 240.0) -> tuple[int, str, str]:
        """Runs a command to its end and returns exit code, stdout and stderr."""
        done = subprocess.run(
            [sys.executable, "-m", MODULES[command], *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=self.directory,
            timeout=timeout_s,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def kill_all(self) -> None:
        """Kills every process started, with its children."""
        for process in self.processes:
            try:
                family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
            for member in family:
                try:
                    member.kill()
                except psutil.NoSuchProcess:
                    continue
            process.wait()


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    started = Commands(tmp_path)
    yield started
    started.kill_all()


def log_of(process: subprocess.Popen[bytes]) -> str:
    text: str = process.log.read_text(errors="replace")  # type: ignore[attr-defined]
    return text


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Returns the living descendants of a process."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def one(process: subprocess.Popen[bytes], word: str) -> psutil.Process:
    """Returns a living descendant whose command line has the word."""

    def find() -> psutil.Process | None:
        for member in family(process):
            try:
                if word in " ".join(member.cmdline()) and member.status() != psutil.STATUS_ZOMBIE:
                    return member
            except psutil.NoSuchProcess:
                continue
        return None

    return wait_until(find, f"a process with {word!r} in its command line")


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def status_at(endpoint: str, keys: Keys | None = None) -> Status | None:
    """Returns the status of the replay server at an endpoint; None when it does not answer."""
    context = zmq.Context()
    client = Client(context, endpoint, keys=keys)
    try:
        return client.ask(StatusRequest(), Status, timeout_s=1.0)
    except PeerError:
        return None
    finally:
        client.close()
        context.term()


def metrics_of(run: Path) -> list[dict[str, object]]:
    """Returns the lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
