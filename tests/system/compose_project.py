"""One Compose project of deploy/compose on a test's engine: started, looked into, broken and ended by a test."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from common.wire.messages import Status
from tests.conftest import wait_until
from tests.system.engine import Engine, run
from tests.system.standins import ROOT

FOLDER = ROOT / "deploy" / "compose"
ROLES = ("replay", "learner", "actor")
SERVICES = ("redis", *ROLES, "prometheus")
_STATUS = """
import msgspec, sys, zmq
from common.wire.messages import Status, StatusRequest
from common.wire.client import Client
client = Client(zmq.Context(), "tcp://127.0.0.1:5555")
sys.stdout.buffer.write(msgspec.json.encode(client.ask(StatusRequest(), Status, timeout_s=5.0)))
sys.stdout.flush()
"""


class Project:
    """The services of compose.yaml under a name of their own, with settings of a test's own."""

    def __init__(self, engine: Engine, name: str, directory: Path, settings: dict[str, str]) -> None:
        self.engine, self.name = engine, name
        # What `prepare` makes beside itself belongs to whoever uses the folder: a test has its own.
        self.folder = directory / "compose"
        shutil.copytree(FOLDER, self.folder, ignore=shutil.ignore_patterns(".env", "secrets", "runs"))
        subprocess.run([self.folder / "prepare"], check=True, capture_output=True)
        self.settings = {
            "SHOAL_SECRETS": str(self.folder / "secrets"),
            "SHOAL_PROMETHEUS_PORT": "0",
            "COMPOSE_PROFILES": "",
            # Side by side the builds would each make the layers that they share.
            "COMPOSE_PARALLEL_LIMIT": "1",
            **settings,
        }

    def compose(self, *arguments: object, timeout_s: float = 180.0, **settings: str) -> str:
        """Runs `docker compose ...` with the project's settings; those given here hold for this once."""
        files = ["--project-name", self.name, "--env-file", self.folder / ".env", "--file", FOLDER / "compose.yaml"]
        environment = {**self.engine.environment, **self.settings, **settings}
        command = [*self.engine.compose_command, *map(str, files), *map(str, arguments)]
        return run(command, environment, timeout_s)

    def up(self, *arguments: object, **settings: str) -> None:
        """Starts the services, or brings them to what the settings now say; nothing is built."""
        self.compose("up", "--detach", "--no-build", *arguments, **settings)

    # ---- looking in ------------------------------------------------------------------------------------------------

    def containers(self, service: str) -> list[str]:
        """Returns the ids of a service's containers, the ended ones too."""
        return self.compose("ps", "--all", "--quiet", service).split()

    def one(self, service: str) -> str:
        """Returns the id of a service's only container."""
        (container,) = self.containers(service)
        return container

    def inspect(self, container: str) -> dict[str, Any]:
        """Returns what the engine knows of a container."""
        found: list[dict[str, Any]] = json.loads(self.engine.docker("inspect", container))
        return found[0]

    def state(self, container: str) -> dict[str, Any]:
        """Returns what a container does: Status, ExitCode, Pid, Health."""
        state: dict[str, Any] = self.inspect(container)["State"]
        return state

    def healthy(self, container: str) -> bool:
        """Says what a container's health check says of it."""
        return bool(self.state(container)["Health"]["Status"] == "healthy")

    def logs(self, container: str) -> str:
        """Returns what a container has logged."""
        command = ["docker", "logs", container]
        done = subprocess.run(command, env=self.engine.environment, capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    def python(self, container: str, code: str) -> str:
        """Runs Python inside a container of ours and returns what it prints; RuntimeError when it fails."""
        return self.engine.docker("exec", container, "python", "-c", code)

    def sh(self, container: str, command: str) -> str:
        """Runs a shell's command inside a container and returns what it prints; RuntimeError when it fails."""
        return self.engine.docker("exec", container, "sh", "-c", command)

    def status(self) -> Status | None:
        """Returns the run's status, asked for inside the replay server's container; None when it cannot be had."""
        try:
            return msgspec.json.decode(self.python(self.one("replay"), _STATUS), type=Status)
        except (RuntimeError, ValueError):
            return None

    def trains_on(self) -> Status:
        """Waits until learner and actors have got further, and returns the status."""
        before = wait_until(self.status, "a status")
        updates = before.learner.updates if before.learner else 0

        def further() -> Status | None:
            status = self.status()
            if status is None or status.learner is None or status.inserts <= before.inserts:
                return None
            # A learner that began anew since counts from its checkpoint.
            return status if status.learner.updates >= updates + 50 else None

        return wait_until(further, "training to go on")

    # ---- breaking --------------------------------------------------------------------------------------------------

    def kill(self, container: str) -> None:
        """Ends a container's first process with SIGKILL as the kernel would; `docker kill` counts as a wish to stop."""
        helper = ["--rm", "--pid", "host", "--user", "0", "--network", "none", "--entrypoint", "python"]
        image, code = f"shoal-replay:{self.settings['SHOAL_TAG']}", "import os, sys; os.kill(int(sys.argv[1]), 9)"
        self.engine.docker("run", *helper, image, "-c", code, self.state(container)["Pid"])

    def disconnect(self, service: str) -> None:
        """Takes a service's container out of the run's network."""
        self.engine.docker("network", "disconnect", f"{self.name}_shoal", self.one(service))

    def connect(self, service: str) -> None:
        """Puts it back, under its name."""
        self.engine.docker("network", "connect", "--alias", service, f"{self.name}_shoal", self.one(service))

    def end(self) -> None:
        """Removes the project with its volumes."""
        self.compose("--profile", "*", "down", "--volumes", "--timeout", 1, "--remove-orphans")


class Farewell:
    """Follows one container to its end: the engine removes it with all it said."""

    def __init__(self, engine: Engine, container: str, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            follow = ["docker", "logs", "--follow", container]
            self._follow = subprocess.Popen(follow, env=engine.environment, stdout=output, stderr=output)
        wait = ["docker", "wait", container]
        self._wait = subprocess.Popen(wait, env=engine.environment, stdout=subprocess.PIPE, text=True)

    @property
    def ended(self) -> bool:
        """Whether the container has ended."""
        return self._wait.poll() is not None

    def last_words(self) -> tuple[int, str]:
        """Returns exit code and log of a container that has ended."""
        self._follow.wait(20)
        return int(self._wait.communicate()[0]), self._log.read_text(errors="replace")

    def leave(self) -> None:
        """Follows no longer."""
        for process in (self._wait, self._follow):
            process.kill()
            process.wait()
