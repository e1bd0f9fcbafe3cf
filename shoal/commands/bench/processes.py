"""The real processes that a benchmark measures, in a temporary directory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq

from common.errors import PeerError, ShoalError
from common.process.stop import Stop
from common.run.run import Run
from common.wire.client import Client
from common.wire.messages import Open, Opened, Status, StatusRequest
from deploy.local.embedded_redis import EmbeddedRedis

START_TIMEOUT_S = 120.0
END_TIMEOUT_S = 20.0
_POLL_PERIOD_S = 0.02
_SERVING = re.compile(r"serving endpoint=(\S+)")
_SAMPLE = re.compile(r"^(\w+) (\S+)$", re.MULTILINE)


class StartedProcess:
    """A process and its log file."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name, self.process, self.log = name, process, log

    @property
    def log_text(self) -> str:
        """Text of the process's log."""
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: re.Pattern[str], timeout_s: float = START_TIMEOUT_S) -> re.Match[str]:
        """Waits until the log matches; raises ShoalError if the process ends or exceeds the time-out."""
        give_up_at = time.monotonic() + timeout_s
        while not (found := pattern.search(self.log_text)):
            if self.process.poll() is not None or time.monotonic() > give_up_at:
                raise ShoalError(f"{self.name} did not start: {self.log_text[-800:]}")
            time.sleep(_POLL_PERIOD_S)
        return found

    def wait_for_end(self, timeout_s: float) -> None:
        """Waits for the process to end; raises ShoalError with the end of the log if it fails or takes too long."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ShoalError(f"{self.name} did not end within {timeout_s:g} s: {self.log_text[-800:]}") from None
        if code:
            raise ShoalError(f"{self.name} failed with exit code {code}: {self.log_text[-800:]}")

    def kill(self) -> None:
        """Kills the process by SIGKILL and waits for its end."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Stops the process: SIGTERM, then SIGKILL."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class ReplayServer:
    """A replay server that listens on a TCP port of this machine."""

    def __init__(self, started: StartedProcess) -> None:
        self.started = started
        self.endpoint = started.wait_for(_SERVING)[1]
        self._context = zmq.Context()
        self._client = Client(self._context, self.endpoint)

    def open(self, run: Run) -> Opened:
        """Opens a run on the server, as a learner does."""
        return self._client.ask(Open("bench", run), Opened, START_TIMEOUT_S)

    def status(self) -> Status:
        """Requests the server's status."""
        return self._client.ask(StatusRequest(), Status, START_TIMEOUT_S)

    def metrics(self) -> dict[str, float]:
        """Returns the samples without labels from the server's /metrics."""
        with urllib.request.urlopen(self.status().metrics_url, timeout=START_TIMEOUT_S) as answer:  # noqa: S310  (our own server's address)
            return {name: float(value) for name, value in _SAMPLE.findall(answer.read().decode())}

    def end(self) -> None:
        """Stops the process and closes the client."""
        self._context.destroy(linger=0)
        self.started.end()


class Processes:
    """The processes of a benchmark; leaving the context stops them in reverse order.

    Example:
        with Processes() as processes:
            server = processes.replay()
            server.open(run)
    """

    def __enter__(self) -> Self:
        """Creates the temporary directory."""
        self._temporary = tempfile.TemporaryDirectory(prefix="shoal-bench-")
        self.directory = Path(self._temporary.name)
        self._started: list[StartedProcess] = []
        self._servers: list[ReplayServer] = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops all processes and removes the directory."""
        for server in self._servers:
            server.end()
        for started in reversed(self._started):
            started.end()
        self._temporary.cleanup()

    def command(self, module: str, *options: object) -> StartedProcess:
        """Starts a module of Shoal as a command."""
        return self.program(sys.executable, "-m", module, *options)

    def program(self, *arguments: object) -> StartedProcess:
        """Starts a program whose output goes to a log file."""
        log = self.directory / f"{len(self._started)}.log"
        line = [str(word) for word in arguments]
        with log.open("wb") as output:
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=output, stderr=output)  # noqa: S603  (our own argument list, no shell)
        started = StartedProcess(" ".join(line), process, log)
        self._started.append(started)
        return started

    def replay(self, redis_url: str = "none", *options: object) -> ReplayServer:
        """Starts a replay server on a free port and waits until it is serving."""
        private = ("--bind", "tcp://127.0.0.1:0", "--redis", redis_url, "--metrics-port", 0, "--parent", os.getpid())
        server = ReplayServer(self.command("replay_server", *private, *options))
        self._servers.append(server)
        return server

    @property
    def newest(self) -> StartedProcess:
        """The process that was started last."""
        return self._started[-1]

    def redis(self) -> str:
        """Starts a private Redis with an append-only file, as `shoal train` does, and returns its URL."""
        number = len(self._started)
        log = self.directory / f"redis-{number}.log"
        server = EmbeddedRedis(self.directory / f"redis-{number}", self.directory / f"redis-{number}.sock", log)
        process = server.start()
        self._started.append(StartedProcess("Redis", process, log))
        server.wait_ready(process, Stop())
        return server.url


def wait_until_steps(server: ReplayServer, workers: int, timeout_s: float = 120.0) -> None:
    """Waits until the given number of workers has stepped; raises PeerError after the time-out."""
    give_up_at = time.monotonic() + timeout_s
    while (stepping := sum(actor.env_steps > 0 for actor in server.status().actors)) < workers:
        if time.monotonic() > give_up_at:
            raise PeerError(f"only {stepping} of {workers} workers step after {timeout_s:g} s")
        time.sleep(_POLL_PERIOD_S)
