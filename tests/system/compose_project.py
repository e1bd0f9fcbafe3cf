"""One Compose project of deploy/compose on a test's engine: started, looked into, broken and ended by a test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from common.messages import Status
from tests.system.conftest import until
from tests.system.engine import Engine, run
from tests.system.standins import ROOT

FOLDER = ROOT / "deploy" / "compose"
SHOAL_NETWORK = "shoal"
_STATUS = """
import msgspec, sys, zmq
from common.messages import Status, StatusRequest
from common.wire import Client
context = zmq.Context()
client = Client(context, "tcp://127.0.0.1:5555")
sys.stdout.buffer.write(msgspec.json.encode(client.ask(StatusRequest(), Status, timeout_s=3.0)))
"""


class Project:
    """The services of compose.yaml under a name of their own, with settings of a test's own."""

    def __init__(self, engine: Engine, name: str, directory: Path, settings: dict[str, str]) -> None:
        self.engine, self.name = engine, name
        # What `prepare` makes beside itself belongs to who uses the folder: a test has its own.
        self.folder = directory / "compose"
        shutil.copytree(FOLDER, self.folder, ignore=shutil.ignore_patterns(".env", "secrets"))
        subprocess.run([self.folder / "prepare"], check=True, capture_output=True)
        self.settings = {
            "SHOAL_SECRETS": str(self.folder / "secrets"),
            "SHOAL_PROMETHEUS_PORT": "0",
            "COMPOSE_PROFILES": "",
            # Side by side, the builds would each make the same layers.
            "COMPOSE_PARALLEL_LIMIT": "1",
            **settings,
        }

    def compose(self, *arguments: object, timeout_s: float = 120.0, **settings: str) -> str:
        """Runs `docker compose ...` with the project's settings; those given here hold for this once."""
        files = ["--project-name", self.name, "--env-file", self.folder / ".env", "--file", FOLDER / "compose.yaml"]
        environment = {**self.engine.environment, **self.settings, **settings}
        command = [*self.engine.compose_command, *map(str, files), *map(str, arguments)]
        return run(command, environment, timeout_s)

    def up(self, *arguments: object, timeout_s: float = 120.0, **settings: str) -> None:
        """Starts, or brings to what the settings now say; nothing is built or fetched."""
        self.compose("up", "--detach", "--no-build", *arguments, timeout_s=timeout_s, **settings)

    def containers(self, service: str, *, running: bool = True) -> list[str]:
        """Returns the ids of a service's containers."""
        every = () if running else ("--all",)
        return self.compose("ps", "--quiet", *every, service).split()

    def one(self, service: str) -> str:
        """Returns the id of a service's only container, ended or not."""
        (container,) = self.containers(service, running=False)
        return container

    def inspect(self, container: str) -> dict[str, Any]:
        """Returns what the engine knows of a container."""
        found: list[dict[str, Any]] = json.loads(self.engine.docker("inspect", container))
        return found[0]

    def health(self, container: str) -> str:
        """Returns what a container's health check says of it: starting, healthy, unhealthy."""
        return str(self.inspect(container)["State"]["Health"]["Status"])

    def python(self, container: str, code: str) -> str:
        """Runs Python inside a container of ours and returns what it prints."""
        return self.engine.docker("exec", container, "python", "-c", code)

    def sh(self, container: str, command: str) -> str:
        """Runs a shell's command inside a container and returns what it prints."""
        return self.engine.docker("exec", container, "sh", "-c", command)

    def logs(self, container: str) -> str:
        """Returns what a container has logged, over all its starts."""
        command = ["docker", "logs", container]
        done = subprocess.run(command, env=self.engine.environment, capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    def status(self) -> Status | None:
        """Returns the run's status, asked for inside the replay server's container; None when it cannot be had."""
        try:
            return msgspec.json.decode(self.python(self.one("replay"), _STATUS), type=Status)
        except (RuntimeError, ValueError):
            return None

    def updates(self) -> int:
        """Returns the updates the learner has reported; 0 when nobody can tell."""
        status = self.status()
        return status.learner.updates if status and status.learner else 0

    def trains_on(self, timeout_s: float = 90.0) -> Status:
        """Waits until the learner has done a hundred updates more with the actors' help, and returns the status."""
        before = until(self.status, timeout_s, "a status")
        updates = before.learner.updates if before.learner else 0

        def further() -> Status | None:
            status = self.status()
            more = status and status.learner and status.learner.updates >= updates + 100
            return status if more and status and status.inserts > before.inserts else None

        return until(further, timeout_s, "training to go on")

    def kill(self, container: str) -> None:
        """Kills a container's first process with SIGKILL, as the kernel would: `docker kill` counts as a wish to stop."""
        pid = self.inspect(container)["State"]["Pid"]
        helper = ["--rm", "--pid", "host", "--user", "0", "--network", "none", "--entrypoint", "kill"]
        self.engine.docker("run", *helper, f"shoal-replay:{self.settings['SHOAL_TAG']}", "-9", pid)

    def end(self) -> None:
        """Removes the project with its volumes."""
        self.compose("--profile", "*", "down", "--volumes", "--timeout", 1, "--remove-orphans")


class Farewell:
    """Follows containers to their end, which the engine removes with all they said."""

    def __init__(self, engine: Engine, containers: list[str], directory: Path) -> None:
        self._logs, self._processes = [], []
        self._waits: list[subprocess.Popen[str]] = []
        for container in containers:
            log = directory / f"{container[:12]}.log"
            with log.open("wb") as output:
                command = ["docker", "logs", "--follow", container]
                follow = subprocess.Popen(command, env=engine.environment, stdout=output, stderr=output)
            wait = ["docker", "wait", container]
            self._waits.append(
                subprocess.Popen(wait, env=engine.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            self._logs.append(log)
            self._processes.append(follow)

    def ended(self) -> dict[str, tuple[str, int]]:
        """Returns log and exit code of those that have ended, by container, and stops following the others."""
        gone = {}
        for log, follow, wait in zip(self._logs, self._processes, self._waits, strict=True):
            if wait.poll() is None:
                wait.kill()
                follow.kill()
            else:
                follow.wait(10)
                gone[log.stem] = (log.read_text(), int(wait.communicate()[0]))
            wait.wait()
            follow.wait()
        return gone


def within(seconds: float, what: str, predicate: Callable[[], object]) -> None:
    """Fails the test when a predicate does not come true in time."""
    until(lambda: predicate() or None, seconds, what)


def root_of(path: Path) -> str:
    """Names the directory a path lies in, for messages."""
    return os.fspath(path.parent)
