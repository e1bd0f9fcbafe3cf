"""A load generator: many actors in one process, each a socket of its own, that replay recorded chunks.

    connect()      each says Hello and waits for its Welcome
    pump(seconds)  each sends what its credit allows, again and again, and takes its acknowledgements

What an actor sends was collected once, by the ordinary collecting loop: real transitions, without the cost of stepping
worlds. Deciding what may be sent is the ordinary Outbox's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import zmq

from actor_node.collector import Collector
from actor_node.outbox import Outbox, PendingChunk
from common.errors import PeerError
from common.policy.network import Policy, weight_count
from common.run.run import Run, make_run_spec
from common.wire.client import Client
from common.wire.codec import checksum
from common.wire.messages import Ack, Bye, Chunk, Gap, Hello, Welcome
from common.wire.weights import WeightsHeader
from common.worlds import make_world, world_spec

ROWS = 256
COPIES = 32
RECORDED = 8
HELLO_AGAIN_S = 0.5
POLL_MS = 20
SOCKETS_EACH, SOCKETS_SPARE = 4, 64
"""A connection's own socket, and those that watch it."""
FILLERS = 4


class RecordedChunk(NamedTuple):
    """A chunk's payload and what its header says of it."""

    rows: int
    payload: bytes
    crc32c: int
    copies: int
    ends: bytes


def make_run(**replay: object) -> Run:
    """Returns a run of simple_spread in which nobody waits for anybody, with these replay settings on top."""
    settings = {"limit": "off", "min_size": 1024, "batch": 1024, "capacity": 200_000, **replay}
    spec = make_run_spec({"scenario": "simple_spread", "replay": settings})
    return Run("bench", spec, world_spec("simple_spread"))


def record(run: Run, chunks: int = RECORDED, rows: int = ROWS) -> list[RecordedChunk]:
    """Collects chunks of so many rows, a multiple of COPIES, as a worker does, with untrained policies."""
    rng = np.random.default_rng(0)
    flat = rng.standard_normal(weight_count(run.players, run.spec.network)).astype(np.float32) * np.float32(0.1)
    policy = Policy(run.players, run.spec.network, flat)
    weights = WeightsHeader(run.id, run.data_hash, version=1, updates=0, exploration_scale=0.3, random_share=0.0)
    collector = Collector(run, make_world(run.spec.scenario, COPIES, seed=0), rng)
    found = []
    for _ in range(chunks):
        records, episodes = collector.collect(policy, weights, rows // COPIES)
        payload = records.tobytes()
        found.append(RecordedChunk(rows, payload, checksum(payload), episodes.copies, episodes.ends))
    return found


class SimulatedActor:
    """One actor of the crowd."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, run: Run, name: str) -> None:
        self.client = Client(context, endpoint)
        self.name = name
        self.outbox = Outbox()
        self.acked_rows = 0
        self.latencies: list[float] = []
        """Seconds from a chunk's sending to its acknowledgement."""
        self._run = run
        self._sent: deque[tuple[float, int]] = deque()
        """When each chunk under way was sent, and its rows."""
        self._hello_at = -HELLO_AGAIN_S

    @property
    def admitted(self) -> bool:
        """Whether the server has let it in."""
        return self.outbox.incarnation > 0

    def hello(self, now: float) -> None:
        """Introduces itself, now and again until it is let in."""
        if now - self._hello_at >= HELLO_AGAIN_S and self.client.send(Hello(self.name, 0, 0, "")):
            self._hello_at = now

    def send(self, recorded: Sequence[RecordedChunk]) -> None:
        """Sends what its credit allows."""
        while self.outbox.has_credit:
            seq = self.outbox.next_seq
            one = recorded[seq % len(recorded)]
            self.outbox.add(PendingChunk(self._chunk(seq, one), one.payload))
        while (parcel := self.outbox.next_to_send()) and self.client.send(parcel.chunk, parcel.payload):
            self.outbox.mark_sent()
            self._sent.append((time.monotonic(), parcel.chunk.count))

    def take(self) -> None:
        """Takes all answers that have come."""
        while received := self.client.receive():
            match received[0]:
                case Welcome(_, incarnation, stored, credit):
                    self.outbox.on_welcome(incarnation, stored, credit)
                case Ack(_, stored, credit, _):
                    self._acknowledged(stored, credit)
                case Gap(_, gap):
                    # Ends what is measured here: a server that keeps up never asks for it.
                    raise PeerError(f"the replay server asks {self.name} to go back to {gap}")

    def _acknowledged(self, stored: int, credit: int) -> None:
        now, news = time.monotonic(), stored - self.outbox.acked
        self.outbox.on_ack(stored, credit)
        for _ in range(news):
            sent_at, rows = self._sent.popleft()
            self.latencies.append(now - sent_at)
            self.acked_rows += rows

    def _chunk(self, seq: int, one: RecordedChunk) -> Chunk:
        return Chunk(
            actor=self.name,
            incarnation=self.outbox.incarnation,
            seq=seq,
            count=one.rows,
            policy_version=1,
            crc32c=one.crc32c,
            data_hash=self._run.data_hash,
            copies=one.copies,
            ends=one.ends,
        )


class LoadGenerator:
    """Actors that send as fast as they may."""

    def __init__(
        self, endpoint: str, run: Run, members: int, recorded: Sequence[RecordedChunk], name: str = "crowd"
    ) -> None:
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, SOCKETS_EACH * members + SOCKETS_SPARE)
        self._recorded = recorded
        self.members = [SimulatedActor(self._context, endpoint, run, f"{name}-{i}") for i in range(members)]
        self._poller = zmq.Poller()
        self._by_socket = {}
        for member in self.members:
            self._poller.register(member.client.socket, zmq.POLLIN)
            self._by_socket[member.client.socket] = member

    def connect(self, timeout_s: float = 60.0) -> None:
        """Has all of them let in; PeerError when they are not in time."""
        give_up_at = time.monotonic() + timeout_s
        while waiting := [member for member in self.members if not member.admitted]:
            if time.monotonic() > give_up_at:
                raise PeerError(f"{len(waiting)} of {len(self.members)} actors were not let in within {timeout_s:g} s")
            for member in waiting:
                member.hello(time.monotonic())
            self._take()

    def pump(self, seconds: float) -> float:
        """Sends for so long; returns transitions acknowledged a second, of all together."""
        before, started_at = self.acked_rows, time.monotonic()
        for member in self.members:
            member.send(self._recorded)
        while (elapsed := time.monotonic() - started_at) < seconds:
            for member in self._take():
                member.send(self._recorded)
        return (self.acked_rows - before) / elapsed

    def settle(self, timeout_s: float = 30.0) -> None:
        """Waits until all that was sent is acknowledged; PeerError when it is not in time."""
        give_up_at = time.monotonic() + timeout_s
        while left := sum(member.outbox.in_flight for member in self.members):
            if time.monotonic() > give_up_at:
                raise PeerError(f"{left} chunks were not acknowledged within {timeout_s:g} s")
            self._take()

    @property
    def acked_rows(self) -> int:
        """Transitions acknowledged."""
        return sum(member.acked_rows for member in self.members)

    def take_latencies(self) -> list[float]:
        """Returns the acknowledgements' latencies since the last call."""
        found = [latency for member in self.members for latency in member.latencies]
        for member in self.members:
            member.latencies.clear()
        return found

    def close(self) -> None:
        """Says good-bye for all and closes."""
        for member in self.members:
            if member.admitted:
                member.client.send(Bye(member.name, member.outbox.incarnation))
        self._context.destroy(linger=200)

    def _take(self) -> list[SimulatedActor]:
        ready = [self._by_socket[socket] for socket, _ in self._poller.poll(POLL_MS)]
        for member in ready:
            member.take()
        return ready


def fill(endpoint: str, run: Run, recorded: Sequence[RecordedChunk], transitions: int) -> None:
    """Has a replay server take in so many transitions."""
    crowd = LoadGenerator(endpoint, run, FILLERS, recorded, "filler")
    try:
        crowd.connect()
        while crowd.acked_rows < transitions:
            crowd.pump(0.1)
        crowd.settle()
    finally:
        crowd.close()
