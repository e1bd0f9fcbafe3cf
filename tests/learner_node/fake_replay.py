"""A replay server made of a thread and a real ROUTER, whose moods a test sets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import zmq

from common.run.run import Run, make_run_spec
from common.spec import AgentsSpec
from common.wire.codec import Buffer, decode_from_peer, encode
from common.wire.messages import (
    Batch,
    FromPeer,
    Held,
    LearnerReport,
    Message,
    Open,
    Opened,
    Priorities,
    PutWeights,
    Refused,
    SampleRequest,
    Status,
    StatusRequest,
    Unknown,
)
from common.wire.sample_info import SAMPLE_INFO, SampleInfo

from .teams import TEAMS, random_records

Answers = list[tuple[Message, bytes | None]]


def small_run(joint: AgentsSpec = TEAMS["tag"], **settings: object) -> Run:
    """Returns a run of small networks and batches; `settings` are sections on top."""
    layers = {
        "scenario": "tiny",
        "network": {"policy_hidden": [8, 8], "critic_hidden": [8, 8]},
        "replay": {"batch": 16, "min_size": 32, "capacity": 1_000},
        "evaluation": {"times": 0},  # there is no such world
    }
    return Run("run-1", make_run_spec(layers, settings), joint)


class FakeReplay:
    """Answers Open, SampleRequest and StatusRequest; notes everything it hears."""

    def __init__(
        self,
        run: Run,
        endpoint: str = "tcp://127.0.0.1:*",
        *,
        inserts: int = 100,
        version: int = 0,
        size: int = 512,
    ) -> None:
        self.run, self.inserts, self.version, self.size = run, inserts, version, size
        self.heard: list[FromPeer] = []
        self.weights: list[bytes] = []
        self.told: list[SampleInfo] = []
        """Places that came back with TD errors."""
        self.holding = ""
        """Answer requests with Held and this reason."""
        self.inserts_per_batch = 1
        self.generation = 7
        self.refusing = ""
        self.absent = ""
        """The peer that its status says is gone."""
        self.silent = False
        self.payload: Callable[[int], bytes] = self.sample
        self._opened: set[bytes] = set()
        self._held: list[tuple[bytes, SampleRequest]] = []
        self._release = threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind(endpoint)
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._closing = False
        self._records = random_records(run.joint, 512, 0)
        self._rng = np.random.default_rng(0)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def sample(self, count: int) -> bytes:
        rows = self._rng.integers(len(self._records), size=count)
        return self._records[rows].tobytes() + self._places(rows)

    def _places(self, rows: np.ndarray) -> bytes:
        if not self.run.spec.replay.priority_exponent:
            return b""
        places = np.zeros(len(rows), SAMPLE_INFO)
        places["slot"], places["generation"], places["value"] = rows, self.generation, rows / 256
        return places.tobytes()

    def of(self, kind: type[Message]) -> list[FromPeer]:
        """Returns what was heard of a kind."""
        return [message for message in self.heard if isinstance(message, kind)]

    def forget(self) -> None:
        """Knows no peer any more, as after a restart."""
        self._opened.clear()

    def answer_held(self) -> None:
        """Has the requests answered that were held."""
        self._release.set()

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        while not self._closing:
            if self._release.is_set():
                self._release.clear()
                while self._held:
                    self._send(*self._held.pop(0))
            if not self._socket.poll(5):
                continue
            peer, *frames = self._socket.recv_multipart()
            message, payload = decode_from_peer(frames)
            self.heard.append(message)
            if not self.silent:
                self._send(peer, message, payload)

    def _send(self, peer: bytes, message: FromPeer, payload: Buffer | None = None) -> None:
        for answer, data in self._answer(peer, message, payload):
            self._socket.send_multipart([peer, *encode(answer, data)])

    def _answer(self, peer: bytes, message: FromPeer, payload: Buffer | None) -> Answers:
        if isinstance(message, Open):
            if self.refusing:
                return [(Refused(self.refusing), None)]
            self._opened.add(peer)
            return [(Opened(self.inserts, 0, self.size, self.version), None)]
        if peer not in self._opened:
            return [(Unknown(), None)]
        match message:
            case SampleRequest() if self.holding:
                self._held.append((peer, message))
                return [(Held(message.request, self.inserts, self.holding), None)]
            case SampleRequest():
                self.inserts += self.inserts_per_batch
                batch = Batch(message.request, message.count, self.inserts, self.size)
                return [(batch, self.payload(message.count))]
            case PutWeights():
                assert payload is not None
                self.weights.append(bytes(payload))
            case Priorities():
                assert payload is not None
                assert len(payload) == message.count * SAMPLE_INFO.itemsize
                self.told.append(np.frombuffer(payload, SAMPLE_INFO).copy())
            case StatusRequest():
                return [(self.make_status(), None)]
            case _:
                assert isinstance(message, LearnerReport)
        return []

    def make_status(self) -> Status:
        """Returns the status of a replay without actors."""
        reports = [message for message in self.heard if isinstance(message, LearnerReport)]
        means: Sequence[float] = [-1.0] * len(self.run.joint.agents)
        return Status(
            run=None,
            uptime_s=1.0,
            durability="ram",
            size=self.size,
            capacity=1_000,
            inserts=self.inserts,
            samples=0,
            target_samples_per_insert=16.0,
            samples_per_insert=16.0,
            inserts_per_s=100.0,
            samples_per_s=1_600.0,
            episodes=10,
            return_mean=sum(means),
            return_means=tuple(means),
            policy_lag=1.0,
            actors=(),
            actor_count=0,
            learner=reports[-1] if reports else None,
            learner_seconds_since_seen=0.0,
            waiting=(),
            duplicate_chunks=0,
            rejected={},
            unacknowledged_chunks=0,
            last_error="",
            metrics_url="",
            absent=self.absent,
        )
