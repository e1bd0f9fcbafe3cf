"""A load generator: many simulated actors in one process, each with its own socket, that send recorded chunks.

    connect()      each actor sends Hello and waits for Welcome
    pump(seconds)  each actor sends the chunks that its credit allows and receives acknowledgements

The chunks are recorded once by the ordinary collection loop: real transitions, without the cost of stepping worlds. The
ordinary Outbox decides what an actor may send.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import zmq

from actor_node.collection.collector import Collector
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
RECORDED_CHUNKS = 8
HELLO_PERIOD_S = 0.5
POLL_MS = 20
SOCKETS_EACH, SOCKETS_SPARE = 4, 64
"""Sockets of each connection (its own and its monitors), and sockets for the rest of the process."""
FILL_ACTORS = 4


class RecordedChunk(NamedTuple):
    """The payload of a chunk and the matching fields of its header."""

    rows: int
    payload: bytes
    crc32c: int
    copies: int
    ends: bytes


def make_run(**replay: object) -> Run:
    """Returns a run of simple_spread without a rate limit, with the given replay settings applied last."""
    settings = {"limit": "off", "min_size": 1024, "batch": 1024, "capacity": 200_000, **replay}
    spec = make_run_spec({"scenario": "simple_spread", "replay": settings})
    return Run("bench", spec, world_spec("simple_spread"))


def record(run: Run, chunks: int = RECORDED_CHUNKS, rows: int = ROWS) -> list[RecordedChunk]:
    """Collects chunks of `rows` transitions (a multiple of COPIES) as a worker does, with untrained policies."""
    rng = np.random.default_rng(0)
    flat = rng.standard_normal(weight_count(run.players, run.spec.network)).astype(np.float32) * np.float32(0.1)
    policy = Policy(run.players, run.spec.network, flat)
    weights = WeightsHeader(run.id, run.data_hash, version=1, updates=0, exploration_scale=0.3, random_share=0.0)
    collector = Collector(run, make_world(run.spec.scenario, COPIES, seed=0, options=run.spec.world), rng)
    found = []
    for _ in range(chunks):
        records, episodes = collector.collect(policy, weights, rows // COPIES)
        payload = records.tobytes()
        found.append(RecordedChunk(rows, payload, checksum(payload), episodes.copies, episodes.ends))
    return found


class SimulatedActor:
    """One simulated actor: a client socket and an outbox."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, run: Run, name: str) -> None:
        self.client = Client(context, endpoint)
        self.name = name
        self.outbox = Outbox()
        self.acked_rows = 0
        self.latencies: list[float] = []
        """Seconds from sending each chunk to its acknowledgement."""
        self._run = run
        self._sent: deque[tuple[float, int]] = deque()
        """Time of sending and rows of each unacknowledged chunk."""
        self._hello_at = -HELLO_PERIOD_S

    @property
    def admitted(self) -> bool:
        """Whether the server has admitted the actor."""
        return self.outbox.incarnation > 0

    def hello(self, now: float) -> None:
        """Sends Hello, at most every HELLO_PERIOD_S seconds."""
        if now - self._hello_at >= HELLO_PERIOD_S and self.client.send(
            Hello(actor=self.name, incarnation=0, acked=0, data_hash="")
        ):
            self._hello_at = now

    def send(self, recorded: Sequence[RecordedChunk]) -> None:
        """Sends the chunks that the credit allows."""
        while self.outbox.has_credit:
            self._add(recorded)
        self._send_added()

    def send_one(self, recorded: Sequence[RecordedChunk]) -> None:
        """Sends one chunk, which needs credit."""
        self._add(recorded)
        self._send_added()

    def _add(self, recorded: Sequence[RecordedChunk]) -> None:
        """Adds the next chunk to the outbox."""
        seq = self.outbox.next_seq
        one = recorded[seq % len(recorded)]
        self.outbox.add(PendingChunk(self._chunk(seq, one), one.payload))

    def _send_added(self) -> None:
        while (pending := self.outbox.next_to_send()) and self.client.send(*pending):
            self.outbox.mark_sent()
            self._sent.append((time.monotonic(), pending.chunk.count))

    def receive(self) -> None:
        """Receives all pending answers."""
        while received := self.client.receive():
            match received[0]:
                case Welcome(incarnation=incarnation, stored=durable_seq, credit=credit):
                    self.outbox.on_welcome(incarnation, durable_seq, credit)
                case Ack(stored=durable_seq, credit=credit):
                    self._acknowledged(durable_seq, credit)
                case Gap(received=received_seq):
                    # A server that keeps up never sends a gap.
                    raise PeerError(
                        f"the replay server asked {self.name} to resend the chunks after {received_seq};"
                        " the measurement is void: repeat it on an idle machine"
                    )

    def _acknowledged(self, durable_seq: int, credit: int) -> None:
        now, acknowledged = time.monotonic(), durable_seq - self.outbox.acked
        self.outbox.on_ack(durable_seq, credit)
        for _ in range(acknowledged):
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
            run=self._run.id,
        )


class LoadGenerator:
    """Simulated actors that send at full speed."""

    def __init__(
        self, endpoint: str, run: Run, actors: int, recorded: Sequence[RecordedChunk], name: str = "load"
    ) -> None:
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, SOCKETS_EACH * actors + SOCKETS_SPARE)
        self._recorded = recorded
        self.actors = [SimulatedActor(self._context, endpoint, run, f"{name}-{i}") for i in range(actors)]
        self._poller = zmq.Poller()
        self._by_socket = {}
        for actor in self.actors:
            self._poller.register(actor.client.socket, zmq.POLLIN)
            self._by_socket[actor.client.socket] = actor

    def connect(self, timeout_s: float = 60.0) -> None:
        """Waits until the server has admitted all actors; raises PeerError after the time-out."""
        give_up_at = time.monotonic() + timeout_s
        while waiting := [actor for actor in self.actors if not actor.admitted]:
            if time.monotonic() > give_up_at:
                raise PeerError(f"{len(waiting)} of {len(self.actors)} actors were not admitted within {timeout_s:g} s")
            for actor in waiting:
                actor.hello(time.monotonic())
            self._receive()

    def pump(self, seconds: float) -> float:
        """Sends for the given time and returns the acknowledged transitions per second of all actors."""
        before, started_at = self.acked_rows, time.monotonic()
        for actor in self.actors:
            actor.send(self._recorded)
        while (elapsed := time.monotonic() - started_at) < seconds:
            for actor in self._receive():
                actor.send(self._recorded)
        return (self.acked_rows - before) / elapsed

    def confirmation_s(self) -> float:
        """Returns the seconds from sending one chunk, with none in flight, to its acknowledgement."""
        started_at = time.monotonic()
        self.actors[0].send_one(self._recorded)
        self.settle()
        return time.monotonic() - started_at

    def settle(self, timeout_s: float = 30.0) -> None:
        """Waits until all sent chunks are acknowledged; raises PeerError after the time-out."""
        give_up_at = time.monotonic() + timeout_s
        while left := sum(actor.outbox.in_flight for actor in self.actors):
            if time.monotonic() > give_up_at:
                raise PeerError(f"{left} chunks were not acknowledged within {timeout_s:g} s")
            self._receive()

    @property
    def acked_rows(self) -> int:
        """Acknowledged transitions."""
        return sum(actor.acked_rows for actor in self.actors)

    def take_latencies(self) -> list[float]:
        """Returns the acknowledgement latencies since the last call [s]."""
        found = [latency for actor in self.actors for latency in actor.latencies]
        for actor in self.actors:
            actor.latencies.clear()
        return found

    def close(self) -> None:
        """Sends Bye for all actors and closes their sockets."""
        for actor in self.actors:
            if actor.admitted:
                actor.client.send(Bye(actor.name, actor.outbox.incarnation))
        self._context.destroy(linger=200)

    def _receive(self) -> list[SimulatedActor]:
        ready = [self._by_socket[socket] for socket, _ in self._poller.poll(POLL_MS)]
        for actor in ready:
            actor.receive()
        return ready


def fill(endpoint: str, run: Run, recorded: Sequence[RecordedChunk], transitions: int) -> None:
    """Sends transitions to a replay server until `transitions` are acknowledged."""
    load = LoadGenerator(endpoint, run, FILL_ACTORS, recorded, "filler")
    try:
        load.connect()
        while load.acked_rows < transitions:
            load.pump(0.1)
        load.settle()
    finally:
        load.close()
