"""A real server process, and actors and learners that talk to it over real sockets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import zmq

from common.errors import PeerError
from common.run.run import Run
from common.wire.client import Client
from common.wire.codec import Buffer
from common.wire.keys import Keys
from common.wire.messages import (
    Ack,
    Batch,
    Chunk,
    Gap,
    Hello,
    Open,
    Opened,
    SampleRequest,
    Status,
    StatusRequest,
    Unknown,
    Welcome,
)
from replay_server.durability.chunk_format import unpack_chunk
from tests.conftest import PATIENCE_S, wait_until
from tests.replay_server.conftest import Valkey
from tests.replay_server.runs import DTYPE, make_chunk, numbers

ROOT = Path(__file__).parents[2]


class Server:
    """The command `replay` as a process on an ipc address of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.endpoint = f"ipc://{directory / 'replay'}"
        self.log = directory / "replay.log"
        self._options = ("--bind", self.endpoint, "--metrics-port", "0", "--parent", str(os.getpid()), *options)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "replay_server", *self._options, *more], cwd=ROOT, stdout=log, stderr=log
            )

    def end(self, number: int = signal.SIGKILL) -> int:
        """Sends a signal and returns the exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        return self._process.wait(PATIENCE_S)

    def status(self) -> Status:
        context = zmq.Context()
        client = Client(context, self.endpoint)
        try:
            return client.ask(StatusRequest(), Status, timeout_s=30.0)
        finally:
            client.close()
            context.term()

    def get(self, path: str) -> tuple[int, str]:
        """Returns status and body of a page of the HTTP port."""
        try:
            with urllib.request.urlopen(self.status().metrics_url.removesuffix("/metrics") + path) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()


class Actor:
    """An actor that keeps to the protocol and remembers what was acknowledged; its chunks number their records."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        run: Run,
        name: str,
        *,
        rows: int,
        copies: int,
        keys: Keys | None = None,
    ) -> None:
        self.client = Client(context, endpoint, keys=keys)
        self.run, self.name, self.rows, self.copies = run, name, rows, copies
        self.incarnation = self.acked = self.credit = self.sent = self.collected = 0
        self.reason = ""
        self._heard = self._asked = 0.0

    def chunk(self, seq: int) -> tuple[Chunk, bytes]:
        first = (seq - 1) * self.rows
        return make_chunk(
            self.run, self.name, seq, self.rows, first=first, incarnation=self.incarnation, copies=self.copies
        )

    def turn(self, most: int) -> None:
        """Sends what it may, up to chunk `most`, and takes what comes within some milliseconds."""
        now = time.monotonic()
        admitted = self.incarnation and now - self._heard < 0.5
        if not admitted and now - self._asked > 0.1:
            self._asked = now
            self.client.send(Hello(self.name, self.incarnation, self.acked, ""))
        while admitted and self.sent < min(self.credit, most) and self.client.send(*self.chunk(self.sent + 1)):
            self.sent += 1
            self.collected = max(self.collected, self.sent)
        while answer := self.client.receive(0.002):
            self._heard = time.monotonic()
            self._take(answer[0])

    def _take(self, message: object) -> None:
        match message:
            case Welcome(_, incarnation, stored, credit):
                self.incarnation, self.credit = incarnation, credit
                self.acked = self.sent = stored
            case Ack(_, stored, credit, reason):
                self.acked, self.credit, self.reason = max(self.acked, stored), max(self.credit, credit), reason
                self.sent = max(self.sent, stored)
            case Gap(_, received):
                self.sent = received
            case Unknown():
                self._heard = 0.0

    def deliver(self, chunks: int) -> None:
        """Has chunks acknowledged up to the given one."""

        def done() -> bool:
            self.turn(chunks)
            return self.acked >= chunks

        wait_until(done, f"{chunks} chunks of {self.name}")


class Learner:
    """A learner that opens the run and draws batches."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, run: Run, keys: Keys | None = None
    ) -> None:
        self.client = Client(context, endpoint, keys=keys)
        self.run = run
        self.request = 0

    def open(self, timeout_s: float = PATIENCE_S) -> Opened:
        return self.client.ask(Open("learner", self.run), Opened, timeout_s)

    def draw(self, count: int, timeout_s: float = PATIENCE_S) -> Buffer:
        """Returns the records of one batch."""
        self.request += 1
        self.client.send(SampleRequest(self.request, count))
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            answer = self.client.receive(0.1)
            if answer and isinstance(answer[0], Batch) and answer[1] is not None:
                assert answer[0].request == self.request
                return answer[1]
        raise PeerError("no batch came")


class Peers:
    """Makes peers of one server, closed with the test."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._endpoint = endpoint

    def actor(self, run: Run, name: str = "a", rows: int = 10, copies: int = 0) -> Actor:
        return Actor(self._context, self._endpoint, run, name, rows=rows, copies=copies)

    def learner(self, run: Run) -> Learner:
        return Learner(self._context, self._endpoint, run)

    def raw(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        socket.connect(self._endpoint)
        return socket

    def close(self) -> None:
        self._context.destroy(linger=0)


def stored(valkey: Valkey) -> dict[str, list[int]]:
    """Returns the seqs of each actor's chunks in the order of the log, after checking their records."""
    client = valkey.client()
    prefix = "shoal:{default}:"
    state = client.hgetall(prefix + "state")
    seqs: dict[str, list[int]] = {}
    for number in range(int(state[b"tail"]) if b"tail" in state else 0, int(state[b"head"])):
        chunk, payload = unpack_chunk(client.get(f"{prefix}chunk:{number}"), number, DTYPE.itemsize)  # type: ignore[arg-type]
        assert numbers(payload) == list(range((chunk.seq - 1) * 10, chunk.seq * 10))
        seqs.setdefault(chunk.actor, []).append(chunk.seq)
    return seqs
