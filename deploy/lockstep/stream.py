"""The batches of a lockstep run: replay and actors in the learner's process, which advance when it asks for a batch.

    learner: next()   one actor collects one chunk, if the rate limiter allows it
                      Replay.handle(Chunk), Replay.handle(SampleRequest), Replay.advance() -> the batch, if allowed
    learner: publish  before each chunk, so that each chunk is collected with the newest weights

The replay is the one of the replay server: messages in, replies out; the same limiter, ring and samplers. The time
passed to it is constant, so that no lease ends and nothing depends on wall-clock time. Rates are measured here, for
display only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from actor_node.outbox import make_chunk
from common.errors import ShoalError
from common.policy.network import Policy
from common.run.run import Run
from common.wire.codec import Buffer
from common.wire.messages import (
    Ack,
    Batch,
    FromPeer,
    Hello,
    LearnerReport,
    Message,
    Open,
    PutWeights,
    Refused,
    SampleRequest,
    Status,
    StatusRequest,
    ToPeer,
    Welcome,
)
from common.wire.weights import WeightsHeader
from deploy.lockstep.actor import LockstepActor
from deploy.lockstep.snapshots import ActorSnapshot, LimiterCounters
from learner_node.replay.replay_client import ReplayClient
from learner_node.replay.replay_session import BatchChecker, SampledBatch, priority_update
from replay_server.config import ReplayConfig
from replay_server.recent_stats import SlidingRate
from replay_server.replay import Replay
from replay_server.table.table import Table

FIXED_TIME_S = 0.0
"""The constant time [s] passed to the replay."""
UPDATES_PER_STEP = 0.25
"""Updates per environment step under `replay.samples_per_insert = auto`. `auto` follows the faster side; in lockstep
there is none, so the ratio is fixed at this."""
_LEARNER = b"learner"
_BLOCK_RECORDS = 65_536
"""Number of records read from the ring at once."""


class LockstepStream:
    """A ReplayClient without a network: actors and replay run in this process, and only inside `next`."""

    def __init__(self, run: Run, actors: Sequence[LockstepActor], counters: tuple[int, int]) -> None:
        """Opens the run; ShoalError if the replay refuses it. counters: inserts and samples of the run so far."""
        self._run, self.actors = run, actors
        self.on_status: Callable[[Status], object] | None = None
        """Called with each new status."""
        self._by_peer = {actor.peer: actor for actor in actors}
        self._data_hash = run.data_hash
        self._checker = BatchChecker(run, pin=False)
        ratio = UPDATES_PER_STEP * run.spec.replay.batch if run.spec.replay.is_auto else 0.0
        self._replay = Replay(
            ReplayConfig(durability="ram", seed=run.spec.seed, samples_per_insert=ratio), FIXED_TIME_S
        )
        self._weights: tuple[WeightsHeader, Policy] | None = None
        self.published = False
        """Whether weights were published since the last chunk."""
        self._batch: SampledBatch | None = None
        self._request_number, self._request_waits = 0, False
        self._started_at = time.monotonic()
        self._inserts_rate, self._samples_rate = SlidingRate(), SlidingRate()
        self.status: Status | None = None
        self._handle(_LEARNER, Open("lockstep", run, *counters))

    def admit_actors(self) -> None:
        """Admits the actors of a new run."""
        for actor in self.actors:
            self._handle(actor.peer, Hello(actor.name, actor.incarnation, actor.seq, self._data_hash, self._run.id))

    # ---- the interface `ReplayClient` of the learner --------------------------------------------------------------

    opened = True
    weights_version = 0
    """Always 0: the replay stores no weights, because no actor joins later."""
    absent = ""
    """Always empty: no peer can be absent, because all parts are in this process."""

    def open(self, timeout_s: float) -> bool:  # noqa: ARG002  (nothing here waits)
        """Returns whether the replay has admitted the learner: always."""
        return self.opened

    @property
    def env_steps(self) -> int:
        """Transitions ever stored in the run."""
        return self.table.limiter.inserts

    @property
    def statuses(self) -> Sequence[Status]:
        """The newest status of the one replay, if the learner has asked for it."""
        return [self.status] if self.status else []

    @property
    def rejected(self) -> int:
        """Number of batches rejected because they contained non-finite numbers."""
        return self._checker.rejected

    @property
    def waiting_for(self) -> str:
        """Why no batch is available."""
        return self._replay.learner_wait.reason.text or "the actors' next chunk"

    def next(self, timeout_s: float) -> SampledBatch | None:  # noqa: ARG002  (nothing here waits)
        """Lets at most one actor collect a chunk, then returns a batch if the rate limiter allows one.

        Returns None once the budget of steps is used, and while an actor lacks weights to collect with.
        """
        if actor := self._next_actor():
            if self._weights is None:
                return None
            self._collect(actor, *self._weights)
        if self._steps_left <= 0:
            return None
        if not self._request_waits:
            self._request_number, self._request_waits = self._request_number + 1, True
            self._handle(_LEARNER, SampleRequest(self._request_number, self._run.spec.replay.batch))
        self.advance_replay()
        batch, self._batch = self._batch, None
        return batch

    def send(self, message: Message, payload: bytes | None = None) -> None:
        """Handles a message from the learner to the replay; a StatusRequest is answered immediately."""
        if isinstance(message, StatusRequest):
            version = self._weights[0].version if self._weights else 0
            for actor in self.actors:
                self._handle(actor.peer, actor.report(version))
        if not isinstance(message, PutWeights):
            self._handle(_LEARNER, message, payload)  # type: ignore[arg-type]

    def update_priorities(self, records: SampledBatch, errors: Any) -> None:
        """Sends the TD errors `[B]` of a batch's records to the replay, which makes them priorities."""
        self._handle(_LEARNER, *priority_update(records, errors))

    def report_finished(self, report: LearnerReport, timeout_s: float) -> bool:  # noqa: ARG002  (nothing here waits)
        """Handles the last report of the learner; returns True."""
        self.send(report)
        return True

    def close(self) -> None:
        """Closes the actors' worlds."""
        for actor in self.actors:
            actor.close()

    # ---- weights --------------------------------------------------------------------------------------------------

    @property
    def wants_weights(self) -> bool:
        """Whether a chunk is next and no weights were published for it."""
        return self._next_actor() is not None and (self._weights is None or not self.published)

    def take_weights(self, header: WeightsHeader, flat: npt.NDArray[np.float32]) -> None:
        """Sets the weights that the next chunk is collected with."""
        self._weights = header, Policy(self._run.players, self._run.spec.network, flat)
        self.published = True

    # ---- snapshots ------------------------------------------------------------------------------------------------

    @property
    def table(self) -> Table:
        """The replay's transitions, sampler and limiter."""
        table = self._replay.table
        if table is None:
            raise RuntimeError("the replay has no run")
        return table

    def limiter_counters(self) -> LimiterCounters:
        """Returns the limiter's counters."""
        limiter = self.table.limiter
        return LimiterCounters(limiter.inserts, limiter.samples, limiter.ratio_origin)

    def actor_snapshots(self) -> tuple[ActorSnapshot, ...]:
        """Returns the snapshot of each actor.

        A grant order is the number of an actor's last grant of credit: among equals, the smallest is served first. The
        snapshots keep only the order: the newest grant is 0 and earlier ones are -1, -2, ..., because a resumed replay
        numbers its grants from 1.
        """
        sessions = [self._replay.actors.sessions[actor.name] for actor in self.actors]
        grant_orders = sorted({session.grant_order for session in sessions})
        return tuple(
            actor.snapshot(
                grant_order=grant_orders.index(session.grant_order) - len(grant_orders) + 1,
                chunk_rows=session.chunk_rows,
                measured=session.measured,
            )
            for actor, session in zip(self.actors, sessions, strict=True)
        )

    def records_from(self, first: int) -> Iterator[npt.NDArray[Any]]:
        """Yields the ring's records from index `first` on, oldest first; indices count all records ever inserted."""
        ring, count = self.table.ring, self.table.limiter.inserts - first
        while count > 0:
            slots = (ring.next_slot - count + np.arange(min(count, _BLOCK_RECORDS))) % ring.capacity
            yield ring.gather(slots)
            count -= len(slots)

    def resume(self, limits: LimiterCounters, snapshots: Sequence[ActorSnapshot], *, published: bool) -> None:
        """Restores the counters of a run whose transitions and actors have been restored."""
        self.published = published
        limiter = self.table.limiter
        limiter.inserts, limiter.samples, limiter.ratio_origin = limits.inserts, limits.samples, limits.ratio_origin
        for actor, snapshot in zip(self.actors, snapshots, strict=True):
            session = self._replay.actors.restore(actor.name, actor.incarnation, actor.seq)
            session.peer, session.credit, session.grant_order = actor.peer, actor.credit, snapshot.grant_order
            session.chunk_rows, session.measured = snapshot.chunk_rows, snapshot.measured
        self.advance_replay()

    # ---- internals ------------------------------------------------------------------------------------------------

    @property
    def _steps_left(self) -> float:
        budget = self._run.spec.budget.steps
        return budget - self.env_steps if budget else math.inf

    def _next_actor(self) -> LockstepActor | None:
        """Returns the first actor with the fewest chunks among those with credit; None if no actor has credit."""
        return min((actor for actor in self.actors if actor.has_credit), key=lambda actor: actor.seq, default=None)

    def _collect(self, actor: LockstepActor, header: WeightsHeader, policy: Policy) -> None:
        records, episodes = actor.collect(policy, header, self._steps_left)
        self.published = False
        chunk, payload = make_chunk(
            records.view(np.uint8).data,
            actor=actor.name,
            incarnation=actor.incarnation,
            seq=actor.seq,
            count=len(records),
            policy_version=header.version,
            data_hash=self._data_hash,
            run=self._run.id,
            copies=episodes.copies,
            ends=episodes.ends,
        )
        self._handle(actor.peer, chunk, payload)

    def _handle(self, peer: bytes, message: FromPeer, payload: Buffer | None = None) -> None:
        for reply in self._replay.handle(peer, message, payload, FIXED_TIME_S):
            self._handle_reply(reply.peer, reply.message, reply.payload)

    def advance_replay(self) -> None:
        """Ends an iteration of the replay, which sends batches, credit and acknowledgements."""
        for reply in self._replay.advance(FIXED_TIME_S):
            self._handle_reply(reply.peer, reply.message, reply.payload)

    def _handle_reply(self, peer: bytes, message: ToPeer, payload: Buffer | None) -> None:
        match message:
            case Batch():
                self._request_waits = False
                self._batch = self._checker.open(payload, "the replay")
            case Welcome() | Ack():
                actor = self._by_peer[peer]
                actor.incarnation, actor.credit = message.incarnation, message.credit
            case Status():
                self._take_status(message)
            case Refused():
                raise ShoalError(message.reason)
            case _:
                pass

    def _take_status(self, status: Status) -> None:
        now = time.monotonic()
        self._inserts_rate.observe(status.inserts, now)
        self._samples_rate.observe(status.samples, now)
        self.status = msgspec.structs.replace(
            status,
            uptime_s=now - self._started_at,
            inserts_per_s=self._inserts_rate.per_second(status.inserts, now),
            samples_per_s=self._samples_rate.per_second(status.samples, now),
            waiting=(),  # no part waits for another
        )
        if self.on_status:
            self.on_status(self.status)


class LockstepBroadcast:
    """Publishes the learner's weights to the actors of its process: before each chunk, not by time."""

    def __init__(self) -> None:
        self.stream: LockstepStream | None = None

    def first_version(self, checkpoint: int, remembered: int, checkpoint_period_s: float) -> int:  # noqa: ARG002
        """Returns the version of the next weights, for a run that resumes from a checkpoint of version `checkpoint`.

        It is the checkpoint's own version if its weights were published and the next chunk still uses them, else the
        version after it. The other parameters are for weights that may be lost on a network.
        """
        still_in_use = self.stream is not None and self.stream.published
        return checkpoint if still_in_use else checkpoint + 1

    def is_due(self, updates: int, now: float) -> bool:  # noqa: ARG002
        """Returns whether a chunk is next."""
        return self.stream is not None and self.stream.wants_weights

    def send(self, header: WeightsHeader, flat: npt.NDArray[np.float32], replay: ReplayClient, now: float) -> None:  # noqa: ARG002
        """Publishes weights; ValueError for non-finite ones."""
        if not np.isfinite(flat).all():
            raise ValueError("weights are not finite")
        if self.stream is not None:
            self.stream.take_weights(header, flat)
