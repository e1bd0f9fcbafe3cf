"""Real processes for tests of the actor node: the replay server, nodes, and a learner that only sends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import zmq

from common.errors import PeerError
from common.run.run import Run
from common.transitions import transition_dtype
from common.wire.client import Client
from common.wire.messages import Batch, Open, Opened, PutWeights, SampleRequest, Status, StatusRequest
from common.wire.sockets import bind
from common.wire.weights import MAGIC
from tests.common.examples import make_frame
from tests.conftest import PATIENCE_S, wait_until

ROOT = Path(__file__).parents[2]


class Started:
    """One command with its log; killed with everything it started when the test is over."""

    def __init__(self, module: str, arguments: list[object], log: Path) -> None:
        self.log_file = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=log.parent,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        self.known = psutil.Process(self.process.pid)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def logged(self, pattern: str, *, within_s: float = PATIENCE_S) -> re.Match[str]:
        """Waits for a line in the log."""
        return wait_until(lambda: re.search(pattern, self.log), f"/{pattern}/ in its log", within_s=within_s)

    def workers(self) -> list[psutil.Process]:
        """Returns the worker processes, in the order of their start."""
        with contextlib.suppress(psutil.NoSuchProcess):
            children = self.known.children()
            return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        return []

    def end(self, number: int = signal.SIGTERM, *, within_s: float = PATIENCE_S) -> int:
        """Sends a signal and returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(within_s)

    def destroy(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in self.known.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        self.process.kill()
        self.process.wait()


class Node(Started):
    """`actor`, and its metrics."""

    def __init__(self, arguments: list[object], log: Path) -> None:
        super().__init__("actor_node", ["--metrics-port", 0, *arguments], log)

    def get(self, path: str) -> str:
        """Returns what the HTTP port answers."""
        url = self.logged(r"metrics=(http://\S+)/metrics")[1]
        with urllib.request.urlopen(url + path, timeout=30) as answer:
            return answer.read().decode()

    def metrics(self) -> dict[str, float]:
        """Returns every sample of /metrics."""
        lines = [line.rsplit(" ", 1) for line in self.get("/metrics").splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    def metric(self, name: str) -> float:
        return self.metrics()[f"shoal_actor_{name}"]


class MinimalLearner:
    """Opens a run, broadcasts weights, and draws batches when told to."""

    def __init__(self, context: zmq.Context, run: Run, replay: str, weights: str) -> None:
        self.run = run
        self.client = Client(context, replay)
        self.broadcast = context.socket(zmq.XPUB)
        bind(self.broadcast, weights, "--bind")
        self.requests = 0

    def open(self) -> None:
        """Tells the replay which run this is."""
        self.client.ask(Open("learner", self.run), Opened, timeout_s=10.0)

    def await_subscriber(self) -> None:
        """Waits for the next worker that listens to broadcasts: what was sent before never reaches it."""
        assert self.broadcast.poll(10_000), "nobody listens"
        assert self.broadcast.recv() == b"\x01" + MAGIC

    def publish(self, version: int = 1, **fields: object) -> None:
        """Broadcasts weights and leaves a copy with the replay."""
        frame = make_frame(self.run, version, **fields)
        self.broadcast.send(frame)
        self.client.send(PutWeights(version), frame)

    def draw(self, count: int) -> np.ndarray:
        """Returns a batch of `count` records."""
        self.requests += 1
        self.client.send(SampleRequest(self.requests, count))

        def batch():
            received = self.client.receive(timeout_s=0.01)
            return received if received and isinstance(received[0], Batch) else None

        message, payload = wait_until(batch, "a batch")
        assert (message.request, message.count) == (self.requests, count)
        return np.frombuffer(payload, transition_dtype(self.run.joint)).copy()


class Processes:
    """All of a test's processes and where they meet."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.context = zmq.Context()
        self.replay_url, self.weights_url = (f"ipc://{directory}/{name}" for name in ("replay", "weights"))
        self.started: list[Started] = []
        self.learners: list[MinimalLearner] = []

    def start_replay(self, **options: object) -> Started:
        """Starts the replay server, with RAM only, and waits until it serves."""
        arguments = ["--redis", "none", "--bind", self.replay_url, "--metrics-port", 0]
        for name, value in options.items():
            arguments += [f"--{name.replace('_', '-')}", value]
        replay = Started("replay_server", arguments, self._log("replay"))
        self.started.append(replay)
        replay.logged("serving endpoint")
        return replay

    def start_node(self, *arguments: object) -> Node:
        """Starts a node of small workers; arguments come on top."""
        peers = [] if "--replay" in arguments else ["--replay", self.replay_url]
        sizes = ["--weights", self.weights_url, "--copies", 4, "--chunk-rows", 16]
        node = Node([*peers, *sizes, *arguments], self._log("actor"))
        self.started.append(node)
        return node

    def start_learner(self, run: Run) -> MinimalLearner:
        """Returns a learner whose run is open."""
        learner = MinimalLearner(self.context, run, self.replay_url, self.weights_url)
        # A socket that nobody holds is closed, and what it was given a moment ago is not sent.
        self.learners.append(learner)
        learner.open()
        return learner

    def status(self) -> Status:
        """Asks the replay server."""
        client = Client(self.context, self.replay_url)
        try:
            return client.ask(StatusRequest(), Status, timeout_s=30.0)
        finally:
            client.close()

    def answers(self) -> bool:
        """Says whether the replay server does."""
        with contextlib.suppress(PeerError):
            return bool(self.status())
        return False

    def close(self) -> None:
        """Ends all; pytest shows their logs with a test that fails."""
        for one in reversed(self.started):
            one.destroy()
            sys.stdout.write(f"---- {one.log_file.name}\n{one.log}\n")
        self.context.destroy(linger=0)

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}-{len(self.started)}.log"
