"""What one replay server does under 512 connections, and what those who do not keep up do to those who do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import zmq

from common.run.run import Run
from common.transitions import transition_dtype
from common.wire.codec import MAX_SERVER_FRAME_BYTES, encode
from common.wire.messages import LearnerReport, Message, Open, SampleRequest, StatusRequest
from common.wire.sockets import make_socket
from replay_server.sessions.session import MAX_WINDOW_CHUNKS
from shoal.commands.bench.data_plane.load_generator import (
    COPIES,
    ROWS,
    LoadGenerator,
    RecordedChunk,
    fill,
    make_run,
    record,
)
from shoal.commands.bench.processes import Processes, ReplayServer

pytestmark = [pytest.mark.system, pytest.mark.soak, pytest.mark.timeout(900)]

CONNECTIONS = 512
CAPACITY = 100_000
SECONDS = 1.0
CHUNKS_EACH, SMALL_ROWS = 20 * MAX_WINDOW_CHUNKS, COPIES
SLICE_S, LEAST_ROUNDS, MOST_ROUNDS, WIDTH = 0.2, 30, 300, 0.03
ACTORS, ASKED_AHEAD = 8, 16
LEARNS = LearnerReport("stalled", 0, 0.0, 0, 0.0, 0.0, 0.0, "", 0.0, 0.0, finished=False, metrics_url="")
"""Keeps its lease."""
CONNECTION_MIB, SETTLED_MIB = 0.05, 64
"""What the server may take for a connection and in all, beside what it takes when idle with its ring full, and twice
each actor's window of chunks: one thread frees what another has allocated, so as much again may wait for reuse."""


@pytest.fixture(scope="module")
def run() -> Run:
    return make_run(capacity=CAPACITY)


@pytest.fixture(scope="module")
def recorded(run: Run) -> list[RecordedChunk]:
    return record(run)


@pytest.fixture
def server(run: Run) -> Iterator[ReplayServer]:
    with Processes() as stage:
        server = stage.replay()
        server.open(run)
        yield server


@contextmanager
def crowd_of(server: ReplayServer, run: Run, recorded: list[RecordedChunk], members: int) -> Iterator[LoadGenerator]:
    crowd = LoadGenerator(server.endpoint, run, members, recorded)
    try:
        crowd.connect()
        crowd.pump(SECONDS)
        yield crowd
    finally:
        crowd.close()


def test_512_actors_get_their_turns_within_the_servers_memory(server: ReplayServer, run: Run) -> None:
    recorded = record(run, rows=SMALL_ROWS)
    fill(server.endpoint, run, recorded, CAPACITY)
    idle_mib = server.metrics()["shoal_memory_bytes"] / 2**20
    with crowd_of(server, run, recorded, CONNECTIONS) as crowd:
        # Many windows of each: what is on its way when the measuring begins and ends is a window either way.
        before = [member.acked_rows for member in crowd.actors]
        crowd.take_latencies()
        while (
            min(member.acked_rows - rows for member, rows in zip(crowd.actors, before, strict=True))
            < CHUNKS_EACH * SMALL_ROWS
        ):
            crowd.pump(SECONDS)
        done = [member.acked_rows - rows for member, rows in zip(crowd.actors, before, strict=True)]
        metrics, status = server.metrics(), server.status()
        latencies_ms = np.array(crowd.take_latencies()) * 1e3
    mean = statistics.fmean(done)
    window_mib = MAX_WINDOW_CHUNKS * SMALL_ROWS * transition_dtype(run.joint).itemsize / 2**20
    ceiling_mib = idle_mib + CONNECTIONS * (CONNECTION_MIB + 2 * window_mib) + SETTLED_MIB
    print(
        f"{CONNECTIONS} actors: {min(done) / mean:.3f} to {max(done) / mean:.3f} of the mean each; acknowledged in"
        f" {np.percentile(latencies_ms, 50):.0f} ms (median), {np.percentile(latencies_ms, 99):.0f} ms (p99);"
        f" {metrics['shoal_memory_bytes'] / 2**20:.0f} MiB, idle {idle_mib:.0f}, ceiling {ceiling_mib:.0f}"
    )
    assert status.actor_count == CONNECTIONS
    assert not status.rejected
    assert not status.duplicate_chunks
    assert max(abs(rows / mean - 1) for rows in done) <= 0.1
    assert metrics["shoal_memory_bytes"] / 2**20 <= ceiling_mib


def test_a_slow_reader_does_not_slow_the_others(run: Run, recorded: list[RecordedChunk]) -> None:
    """Someone who asks again and again how the run goes, and never reads an answer."""
    with Processes() as stage:
        rejected = assert_no_slower(stage, run, recorded, Deaf([StatusRequest()] * 10_000, again=[StatusRequest()] * 5))
    assert rejected["unread"] > 0


def test_a_stalled_learner_does_not_slow_the_actors(run: Run, recorded: list[RecordedChunk]) -> None:
    """A learner that has asked for batches ahead and takes none of them."""
    ahead = [Open("stalled", run), *(SampleRequest(i, 1024) for i in range(ASKED_AHEAD))]
    with Processes() as stage:
        assert_no_slower(stage, run, recorded, Deaf(ahead, again=[LEARNS]))


class Deaf:
    """A peer that speaks and never listens: what is sent to it fills its small buffers, and then the server's."""

    def __init__(self, messages: Sequence[Message], again: Sequence[Message]) -> None:
        """Takes what it says first, and what again and again."""
        self._messages, self._again = messages, again

    def connect(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = make_socket(self._context, zmq.DEALER, max_frame_bytes=MAX_SERVER_FRAME_BYTES)
        for option in (zmq.RCVHWM, zmq.RCVBUF):
            self._socket.setsockopt(option, 1)
        self._socket.connect(endpoint)
        self._speak(self._messages)

    def speak(self) -> None:
        self._speak(self._again)

    def close(self) -> None:
        self._context.destroy(linger=0)

    def _speak(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._socket.send_multipart(encode(message))


def assert_no_slower(stage: Processes, run: Run, recorded: list[RecordedChunk], deaf: Deaf) -> dict[str, int]:
    """Compares two servers in turn, one of them with the deaf peer; returns what that one has rejected.

    A slowdown fails when its interval lies wholly beyond 5 %: a loaded machine makes it wider, not another one.
    """
    servers = [stage.replay(), stage.replay()]
    for server in servers:
        server.open(run)
        fill(server.endpoint, run, recorded, CAPACITY)
    with crowd_of(servers[0], run, recorded, ACTORS) as alone, crowd_of(servers[1], run, recorded, ACTORS) as beside:
        deaf.connect(servers[1].endpoint)
        logs: list[float] = []
        width = math.inf
        while width > WIDTH and len(logs) < MOST_ROUNDS:
            by_itself = alone.pump(SLICE_S)
            deaf.speak()
            logs.append(math.log(max(beside.pump(SLICE_S), ROWS) / max(by_itself, ROWS)))
            if len(logs) >= LEAST_ROUNDS:
                width = 2 * statistics.stdev(logs) / math.sqrt(len(logs))
        deaf.close()
    ratio, rejected = math.exp(statistics.mean(logs)), servers[1].status().rejected
    print(f"{ratio:.3f} (+- {width:.3f}) of what they do without it, {len(logs)} rounds; rejected {rejected}")
    assert statistics.mean(logs) + width >= math.log(0.95)
    return rejected
