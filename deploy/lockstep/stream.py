"""The batches of a run in lockstep: replay and actors in the learner's own process, moved by its asking.

    learner: next()   one actor collects one chunk, if the rate limiter has room for it
                      Replay.handle(Chunk), Replay.handle(SampleRequest), Replay.tick() -> the batch, if it may go
    learner: publish  when a chunk comes next: each is acted with the newest weights, as by an actor that has waited

The replay is the server's own, messages in and replies out: the same limiter, ring and samplers. Time stands still for
it, so no lease ends and nothing depends on a clock; rates, which are only shown, are measured here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from common.errors import ShoalError
from common.policy.network import Policy
from common.run.run import Run
from common.wire.codec import Buffer, checksum
from common.wire.messages import (
    Ack,
    Batch,
    Chunk,
    FromPeer,
    Hello,
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
from deploy.lockstep.snapshots import ActorSnapshot, Limits
from learner_node.batches import Batches
from learner_node.replay_session import BatchChecker, SampledBatch, priority_update
from replay_server.config import ReplayConfig
from replay_server.recent_stats import SlidingRate
from replay_server.replay import Replay
from replay_server.table.table import Table

STILL = 0.0
"""The time for the replay."""
_LEARNER = b"learner"
_BLOCK = 65_536
"""SampledBatch that are read from the ring at once."""


class LockstepStream:
    """Batches of actors and a replay that move only when the learner asks for the next one."""

    def __init__(self, run: Run, actors: Sequence[LockstepActor], clock: tuple[int, int]) -> None:
        """Opens the run; ShoalError when the replay refuses it. clock: inserts and samples of the run so far."""
        self._run, self.actors = run, actors
        self.show: Callable[[Status], object] | None = None
        """Takes each new status."""
        self._by_peer = {actor.peer: actor for actor in actors}
        self._data_hash = run.data_hash
        self._inspector = BatchChecker(run, pin=False)
        self._replay = Replay(ReplayConfig(durability="ram", seed=run.spec.seed), STILL)
        self._weights: tuple[WeightsHeader, Policy] | None = None
        self.published = False
        """Whether weights were handed over since the last chunk."""
        self._batch: SampledBatch | None = None
        self._requests, self._requested = 0, False
        self._born_at = time.monotonic()
        self._inserts_rate, self._samples_rate = SlidingRate(), SlidingRate()
        self.status: Status | None = None
        self._handle(_LEARNER, Open("lockstep", run, *clock))

    def admit_actors(self) -> None:
        """Lets the actors of a run begin."""
        for actor in self.actors:
            self._handle(actor.peer, Hello(actor.name, actor.incarnation, actor.seq, self._data_hash))

    # ---- what the learner sees ------------------------------------------------------------------------------------

    opened = True
    weights_version = 0
    """None are left with the replay: nobody joins later."""
    absent = ""
    """All parts are in this process."""

    def open(self, timeout_s: float) -> bool:  # noqa: ARG002  (nothing here waits)
        """Returns whether the replay has taken the learner in: from the start."""
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
        """Batches thrown away because they held non-finite numbers."""
        return self._inspector.rejected

    @property
    def waiting_for(self) -> str:
        """Why no batch has come, in words."""
        return self._replay.learner_wait.reason.text or "the actors' next chunk"

    def next(self, timeout_s: float) -> SampledBatch | None:  # noqa: ARG002  (nothing here waits)
        """Lets at most one actor collect a chunk; then returns a batch if the ratio allows one.

        Nothing once the budget of steps is used, nor before there are weights to collect with.
        """
        if actor := self._next_actor():
            if self._weights is None:
                return None
            self._collect(actor, *self._weights)
        if self._steps_left <= 0:
            return None
        if not self._requested:
            self._requests, self._requested = self._requests + 1, True
            self._handle(_LEARNER, SampleRequest(self._requests, self._run.spec.replay.batch))
        self.tick()
        batch, self._batch = self._batch, None
        return batch

    def send(self, message: Message, payload: bytes | None = None) -> None:
        """Takes what the learner tells the replay; a request for its status is answered at once."""
        if isinstance(message, StatusRequest):
            version = self._weights[0].version if self._weights else 0
            for actor in self.actors:
                self._handle(actor.peer, actor.report(version))
        if not isinstance(message, PutWeights):
            self._handle(_LEARNER, message, payload)  # type: ignore[arg-type]

    def prioritise(self, records: SampledBatch, errors: Any) -> None:
        """Tells the replay how large the TD errors `[B]` of a batch's records were."""
        self._handle(_LEARNER, *priority_update(records, errors))

    def close(self) -> None:
        """Closes the worlds."""
        for actor in self.actors:
            actor.close()

    # ---- weights --------------------------------------------------------------------------------------------------

    @property
    def wants_weights(self) -> bool:
        """Whether a chunk comes next and no weights were handed over for it."""
        return self._next_actor() is not None and (self._weights is None or not self.published)

    def take_weights(self, header: WeightsHeader, flat: npt.NDArray[np.float32]) -> None:
        """Takes the weights that the next chunk is acted with."""
        self._weights = header, Policy(self._run.players, self._run.spec.network, flat)
        self.published = True

    # ---- what is kept of it ---------------------------------------------------------------------------------------

    @property
    def table(self) -> Table:
        """The replay's transitions, sampler and limiter."""
        table = self._replay.table
        if table is None:
            raise RuntimeError("the replay has no run")
        return table

    def limits(self) -> Limits:
        """Returns the limiter's counters."""
        limiter = self.table.limiter
        return Limits(limiter.inserts, limiter.samples, limiter.forgotten)

    def sessions(self) -> tuple[ActorSnapshot, ...]:
        """Returns how each actor stands with the replay.

        Turns are only compared: counted from the newest backwards, those of a replay that begins at 0 come after.
        """
        found = [self._replay.actors.sessions[actor.name] for actor in self.actors]
        turns = sorted({session.grant_order for session in found})
        return tuple(
            actor.session(
                turn=turns.index(session.grant_order) - len(turns) + 1,
                chunk_rows=session.chunk_rows,
                measured=session.measured,
            )
            for actor, session in zip(self.actors, found, strict=True)
        )

    def records_from(self, place: int) -> Iterator[npt.NDArray[Any]]:
        """Yields the ring's records from a place on, counted over all that were ever inserted; oldest first."""
        ring, count = self.table.ring, self.table.limiter.inserts - place
        while count > 0:
            slots = (ring.next_slot - count + np.arange(min(count, _BLOCK))) % ring.capacity
            yield ring.gather(slots)
            count -= len(slots)

    def go_on(self, limits: Limits, sessions: Sequence[ActorSnapshot], *, published: bool) -> None:
        """Takes over the counters of a run whose transitions and actors have been put back."""
        self.published = published
        limiter = self.table.limiter
        limiter.inserts, limiter.samples, limiter.forgotten = limits.inserts, limits.samples, limits.forgotten
        for actor, kept in zip(self.actors, sessions, strict=True):
            session = self._replay.actors.restore(actor.name, actor.incarnation, actor.seq)
            session.peer, session.credit, session.grant_order = actor.peer, actor.credit, kept.turn
            session.chunk_rows, session.measured = kept.chunk_rows, kept.measured
        self.tick()

    # ---- inside ---------------------------------------------------------------------------------------------------

    @property
    def _steps_left(self) -> float:
        budget = self._run.spec.budget.steps
        return budget - self.env_steps if budget else math.inf

    def _next_actor(self) -> LockstepActor | None:
        """Returns who collects next: of those with credit the one with the fewest chunks, the first of them."""
        return min((actor for actor in self.actors if actor.may_collect), key=lambda actor: actor.seq, default=None)

    def _collect(self, actor: LockstepActor, header: WeightsHeader, policy: Policy) -> None:
        records, episodes = actor.collect(policy, header, self._steps_left)
        self.published = False
        payload = records.view(np.uint8).data
        chunk = Chunk(
            actor.name,
            actor.incarnation,
            actor.seq,
            len(records),
            header.version,
            checksum(payload),
            self._data_hash,
            episodes.copies,
            episodes.ends,
        )
        self._handle(actor.peer, chunk, payload)

    def _handle(self, peer: bytes, message: FromPeer, payload: Buffer | None = None) -> None:
        for reply in self._replay.handle(peer, message, payload, STILL):
            self._take(reply.peer, reply.message, reply.payload)

    def tick(self) -> None:
        """Ends the replay's turn: batches, credit, acknowledgements."""
        for reply in self._replay.tick(STILL):
            self._take(reply.peer, reply.message, reply.payload)

    def _take(self, peer: bytes, message: ToPeer, payload: Buffer | None) -> None:
        match message:
            case Batch():
                self._requested = False
                self._batch = self._inspector.open(payload, "the replay")
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
            uptime_s=now - self._born_at,
            inserts_per_s=self._inserts_rate.per_second(status.inserts, now),
            samples_per_s=self._samples_rate.per_second(status.samples, now),
            waiting=(),  # they take turns
        )
        if self.show:
            self.show(self.status)


class Handover:
    """Takes the learner's weights to the actors of its own process, by counts and not by time."""

    def __init__(self) -> None:
        self.stream: LockstepStream | None = None

    def first_version(self, checkpoint: int, remembered: int, checkpoint_period_s: float) -> int:  # noqa: ARG002
        """Returns the version after the checkpoint's, or that one when the next chunk still waits for it."""
        again = self.stream is not None and self.stream.published
        return checkpoint if again else checkpoint + 1

    def is_due(self, updates: int, now: float) -> bool:  # noqa: ARG002
        """Whether a chunk comes next."""
        return self.stream is not None and self.stream.wants_weights

    def send(self, header: WeightsHeader, flat: npt.NDArray[np.float32], stream: Batches, now: float) -> None:  # noqa: ARG002
        """Hands weights over; ValueError for non-finite ones."""
        if not np.isfinite(flat).all():
            raise ValueError("weights are not finite")
        if self.stream is not None:
            self.stream.take_weights(header, flat)
