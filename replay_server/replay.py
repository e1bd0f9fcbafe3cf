"""The replay: messages in, replies out. Pure: no socket, no clock, no Redis.

    handle(peer, message, payload, now)   applies one message and returns its immediate replies
    advance(now)                          returns batches, credit and acknowledgements; called once in each iteration of
                                          the server's loop, after its messages
    journal.take_writes()                 returns the writes that the log must make durable, in order
    journal.mark_durable(number)          reports that the log contains every chunk up to that number

A chunk is in the ring, and may be sampled, as soon as it arrives; it is acknowledged when it is durable. Sampling a
chunk that is later lost with the machine does no harm; acknowledging it would. durability/__init__.py lists the states
of a chunk's life.
"""

from __future__ import annotations

import logging
import math

import numpy as np

from common.errors import ConfigError, ProtocolError
from common.run.run import ReplaySpec, Run
from common.wire.codec import Buffer, checksum
from common.wire.messages import (
    ActorReport,
    Busy,
    Bye,
    Chunk,
    FromPeer,
    Hello,
    LearnerReport,
    NotReady,
    Open,
    Opened,
    Priorities,
    PutWeights,
    Refused,
    SampleRequest,
    Status,
    StatusRequest,
    Unknown,
    Welcome,
)
from common.wire.sample_info import SAMPLE_INFO
from replay_server.config import ReplayConfig
from replay_server.durability.chunk_log import ForgetActor, ReleaseChunks, StoreFinished, StoreRun, StoreWeights
from replay_server.durability.journal import Journal
from replay_server.recent_stats import RecentStats
from replay_server.rejections import RejectionReason, Rejections, check_chunk, check_priorities
from replay_server.sessions.actors import Actors, SeqPosition, request_resend, seq_position
from replay_server.sessions.credit import grant
from replay_server.sessions.latest_weights import LatestWeights
from replay_server.sessions.learners import Learners, LearnerSession
from replay_server.sessions.run_end import ServedRun, is_release_due, why_not_replaced
from replay_server.sessions.session import ASSUMED_CHUNK_ROWS, ActorSession, Reply
from replay_server.sessions.waits import NO_WAIT, Reason, Wait, why_no_batch, why_no_credit
from replay_server.status import make_status
from replay_server.table.rate_limiter import RateLimiter
from replay_server.table.table import Table

HOUSEKEEPING_PERIOD_S = 1.0
"""Time between two rounds of forgetting silent peers and logging waits [s]."""
FromLearner = SampleRequest | Priorities | PutWeights | LearnerReport

_log = logging.getLogger(__name__)


class Replay:
    """One run's transitions, with the sessions of the actors and learners that insert and sample them.

    Example:
        replay = Replay(ReplayConfig(redis="none"), now)
        replies = replay.handle(peer, message, payload, now)
        replies += replay.advance(now)
    """

    def __init__(self, config: ReplayConfig, now: float, metrics_url: str = "") -> None:
        self.config = config
        self.metrics_url = metrics_url
        self.started_at = now
        self.table: Table | None = None
        self.actors = Actors()
        self.learners = Learners()
        self.weights = LatestWeights()
        self.journal = Journal(has_log=config.level != "ram")
        self.draining = False
        """Whether the server is about to exit: it grants no more credit and serves no more batches."""
        self.rejections = Rejections()
        self.recent = RecentStats()
        self.actors_wait, self.learner_wait = Wait("actors"), Wait("learner")
        self._max_batch = 0
        self._grant_order = 0
        """Number of the last grant of credit to any actor; an actor's number of its last grant breaks ties."""
        self._housekeeping_at = now
        self._finished_at: float | None = None
        """Monotonic time at which the run was reported as finished, or recovered as such; None if it is not."""

    # ---- messages -------------------------------------------------------------------------------------------------

    def handle(self, peer: bytes, message: FromPeer, payload: Buffer | None, now: float) -> list[Reply]:
        """Applies one message and returns its immediate replies; `advance` returns all other replies."""
        replies: list[Reply] = []
        match message:
            case Chunk():
                replies = self._handle_chunk(peer, message, payload, now)
            case SampleRequest() | Priorities() | PutWeights() | LearnerReport():
                replies = self._handle_learner_message(peer, message, payload, now)
            case ActorReport():
                replies = self._handle_actor_report(peer, message, now)
            case Busy():
                self.actors.renew_lease(message, now)
            case Hello():
                replies = self._handle_hello(peer, message, now)
            case Open():
                replies = self._handle_open(peer, message, now)
            case StatusRequest():
                replies = [Reply(peer, self.status(now))]
            case Bye():
                self.actors.leave(message)
        return replies

    def _handle_hello(self, peer: bytes, hello: Hello, now: float) -> list[Reply]:
        if self.table is None:
            return [Reply(peer, NotReady("a learner: none has opened a run yet"))]
        run = self.table.served_run  # with this server's replay settings
        if hello.data_hash not in ("", self.table.data_hash) or hello.run not in ("", run.id):
            # The run in this Welcome makes the actor restart; until then it has no session.
            return [Reply(peer, Welcome(run, hello.incarnation, hello.acked, hello.acked))]
        session, replies = self.actors.join(peer, hello, now)
        if session is None:
            return replies
        _log.info("actor joined actor=%s incarnation=%d stored=%d", hello.actor, session.incarnation, session.durable)
        if not session.measured:
            largest = self.table.limiter.max_chunk_rows(self._max_batch)
            session.chunk_rows = min(ASSUMED_CHUNK_ROWS, largest, self.table.max_chunk_rows)
        self._grant(self.table, now)
        session.owed_ack = False
        welcome = Welcome(run, session.incarnation, session.durable, session.credit)
        return [*replies, Reply(peer, welcome, self.weights.frame)]

    def _handle_chunk(self, peer: bytes, chunk: Chunk, payload: Buffer | None, now: float) -> list[Reply]:
        session = self.actors.find(peer, chunk, now)
        if self.table is None or isinstance(session, Reply):
            return [session if isinstance(session, Reply) else Reply(peer, Unknown())]
        position = seq_position(session, chunk.seq)
        if position is SeqPosition.GAP:
            return request_resend(session, now)
        session.owed_ack = True
        if position is SeqPosition.NEXT:
            return self._admit(self.table, session, chunk, payload or b"", now)
        if position is SeqPosition.DUPLICATE:
            self.rejections.duplicate_chunks += 1
        else:
            self.rejections.reject("credit", f"{chunk.actor} sent chunk {chunk.seq} with credit up to {session.credit}")
        return []

    def _admit(self, table: Table, session: ActorSession, chunk: Chunk, payload: Buffer, now: float) -> list[Reply]:
        if rejection := check_chunk(chunk, payload, table):
            return self._refuse(session.peer or b"", *rejection)
        if checksum(payload) != chunk.crc32c:
            self.rejections.reject("checksum", f"chunk {chunk.seq} of {chunk.actor} was damaged on its way")
            return request_resend(session, now)
        table.insert(table.records(payload), chunk)
        session.received, session.gap_sent_at = chunk.seq, -math.inf
        session.measure(chunk.count, len(payload))
        self.recent.lag.add(chunk.policy_version)
        self.journal.add(session, chunk, payload, table.limiter.inserts)
        return []

    def _handle_actor_report(self, peer: bytes, report: ActorReport, now: float) -> list[Reply]:
        session = self.actors.find(peer, report, now)
        if isinstance(session, Reply):
            return [session]
        self.recent.count_episodes(session.report, report, rejoined=session.rejoined)
        self.actors.take_report(session, report, now)
        return []

    def _handle_open(self, peer: bytes, message: Open, now: float) -> list[Reply]:
        if why := self._why_not_replaced(message, now):
            # A learner that has ended cannot be reached, which only a message to it reveals: then its session ends now
            # and not with its lease, and this learner's next Open succeeds.
            probes = [Reply(learner.peer, self.status(now)) for learner in self.learners.live(now)]
            return [*self._refuse(peer, "run", why), *probes]
        try:
            table = self.set_run(message.run)
        except ConfigError as e:
            return self._refuse(peer, "run", str(e))
        if refusal := self.learners.open(peer, message.learner, now):
            return refusal
        _log.info("learner opened learner=%s run=%s transitions=%d", message.learner, message.run.id, table.size)
        limiter = table.limiter
        if not limiter.inserts:
            limiter.catch_up(message.inserts, message.samples, table.size)
        return [Reply(peer, Opened(limiter.inserts, limiter.samples, table.size, self.weights.version))]

    def _why_not_replaced(self, message: Open, now: float) -> str:
        table, report = self.table, self.learners.report
        if table is None or table.run.id == message.run.id:
            return ""
        live = self.learners.live(now)
        served = ServedRun(
            id=table.run.id,
            size=table.size,
            inserts=table.limiter.inserts,
            progress=report.progress if report else None,
            finished=self.learners.finished,
            learner=live[0].name if live else "",
        )
        return why_not_replaced(served, message.run.id, fresh=message.fresh)

    def set_run(self, run: Run) -> Table:
        """Makes `run` the run of this replay, or applies its new settings; raises ConfigError if the run is refused.

        Discards the transitions of another run.
        """
        spec = self.config.applied_to(run.spec.replay)
        table = self.table
        if table is None or table.run.id != run.id:
            if table is not None:
                RateLimiter(spec)  # settings that are refused must not cost the other run its transitions
                self._release(table)  # first, because both runs may not fit into memory
            table = self._start_run(run, spec)
            self.journal.write(StoreRun(run, spec.capacity, replaces_run=True))
        elif table.data_hash != run.data_hash:
            raise ConfigError(f"the world of the run {run.id} has changed; start the run under another name.")
        elif table.run != run:
            self.table, self._max_batch = table.with_settings(run, spec), spec.batch
            self.journal.write(StoreRun(run, spec.capacity, replaces_run=False))
        if self.learners.finished:
            self._set_report(None, self.started_at)
        return self.table or table

    def restore(self, run: Run, weights: bytes | None, finished: LearnerReport | None = None) -> Table:
        """Restores the run of the server's previous process; returns the empty table. Raises ConfigError.

        weights: the newest weights frame. finished: the last report of the learner of a finished run.
        """
        table = self._start_run(run, self.config.applied_to(run.spec.replay))
        self.weights = LatestWeights(weights)
        if finished:
            self.learners.report, self._finished_at = finished, self.started_at
        return table

    def _start_run(self, run: Run, spec: ReplaySpec) -> Table:
        self.table = table = Table(run, spec, self.config.seed)
        self.actors, self.learners = Actors(), Learners()
        self.weights, self.recent, self._max_batch = LatestWeights(), RecentStats(), spec.batch
        self._finished_at = None
        return table

    def _set_report(self, report: LearnerReport | None, now: float) -> None:
        """Stores the learner's newest report; None: the run continues and its new learner has not reported yet."""
        was_finished = self.learners.finished
        self.learners.report = report
        if self.learners.finished == was_finished:
            return
        finished = self.learners.finished
        self._finished_at = now if finished else None
        self.journal.write(StoreFinished(report if finished else None))
        _log.info("the run is finished" if finished else "the finished run continues")

    def _release(self, table: Table) -> None:
        """Frees the transitions of the run, here and in the log. Its counters, sessions and status stay."""
        if table.size:
            _log.info("released transitions=%d run=%s", table.size, table.run.id)
        table.clear()
        self.journal.write(ReleaseChunks())

    def _handle_learner_message(
        self, peer: bytes, message: FromLearner, payload: Buffer | None, now: float
    ) -> list[Reply]:
        learner, table = self.learners.find(peer, now), self.table
        if learner is None or table is None:
            return [Reply(peer, Unknown())]
        match message:
            case SampleRequest():
                return self._enqueue_request(table, learner, message, now)
            case Priorities():
                self._update_priorities(table, message, payload or b"")
                return []
            case PutWeights():
                return self._store_weights(table, peer, message, payload or b"")
        self.recent.lag.note_published(message.weights_version)
        self._set_report(message, now)
        return []

    def _update_priorities(self, table: Table, message: Priorities, payload: Buffer) -> None:
        """Sets priorities from a learner's TD errors. Counts an invalid message and ignores it."""
        if rejection := check_priorities(message, payload):
            self.rejections.reject(*rejection)
        else:
            self.rejections.late_priorities += table.update_priorities(np.frombuffer(payload, SAMPLE_INFO))

    def _enqueue_request(
        self, table: Table, learner: LearnerSession, message: SampleRequest, now: float
    ) -> list[Reply]:
        if message.count > self._max_batch and table.limiter.max_chunk_rows(message.count) < 1:
            detail = f"a batch of {message.count} never fits into replay.error_buffer; raise it, or set it to 0"
            return self._refuse(learner.peer, "batch", detail)
        self._max_batch = max(self._max_batch, message.count)
        return self.learners.enqueue(learner, message, now)

    def _store_weights(self, table: Table, peer: bytes, message: PutWeights, frame: Buffer) -> list[Reply]:
        try:
            newer = self.weights.store_if_newer(frame, message.version, table)
        except ProtocolError as e:
            return self._refuse(peer, "weights", str(e))
        if newer and self.weights.frame:
            self.recent.lag.note_published(self.weights.version)
            self.journal.write(StoreWeights(self.weights.version, self.weights.frame))
        return []

    def _refuse(self, peer: bytes, reason: RejectionReason, detail: str) -> list[Reply]:
        self.rejections.reject(reason, detail)
        return [Reply(peer, Refused(detail))]

    # ---- iterations -----------------------------------------------------------------------------------------------

    def advance(self, now: float) -> list[Reply]:
        """Returns the batches, credit and acknowledgements that the last messages and commits allow."""
        table = self.table
        if table is None:
            return []
        replies = [] if self.draining else self.learners.serve(table)
        self._grant(table, now)
        no_credit, no_batch = self._why_no_credit(table, now), self._why_no_batch(table, now)
        self.actors_wait.update(no_credit, now, table.limiter.inserts)
        self.learner_wait.update(no_batch, now, table.limiter.samples)
        self.recent.inserts.observe(table.limiter.inserts, now)
        self.recent.samples.observe(table.limiter.samples, now)
        replies += self.learners.report_waits(table, no_batch.text, now)
        replies += self.actors.acknowledge(no_credit.text)
        if is_release_due(self._finished_at, table.size, now, self.config.release_after):
            self._release(table)
        if now - self._housekeeping_at >= HOUSEKEEPING_PERIOD_S:
            self._housekeeping_at = now
            self._do_housekeeping(table, now)
        return replies

    def status(self, now: float, *, not_ready: str = "") -> Status:
        """Returns the status at monotonic time `now`. not_ready: why the server does not serve yet."""
        return make_status(
            config=self.config,
            table=self.table,
            actors=self.actors,
            learners=self.learners,
            journal=self.journal,
            recent=self.recent,
            rejections=self.rejections,
            waits=(self.actors_wait, self.learner_wait),
            now=now,
            uptime_s=now - self.started_at,
            metrics_url=self.metrics_url,
            not_ready=not_ready,
        )

    def drain(self) -> None:
        """Stops granting and serving, and writes the counters to the log."""
        self.draining = True
        if self.table:
            self.journal.write_samples(self.table.limiter.samples)

    def drop_peer(self, peer: bytes) -> None:
        """Drops the requests of a peer that has disconnected. An actor keeps its credit until its lease ends."""
        self.learners.forget(peer)

    def _grant(self, table: Table, now: float) -> None:
        live = list(self.actors.live(now))
        limiter = table.limiter
        limiter.fit_band(self._max_batch, sum(session.chunk_rows for session in live))
        room = min(limiter.room(table.size), self.journal.room(table.ring.dtype.itemsize))
        if not (self.draining or self.learners.finished):
            largest = limiter.max_chunk_rows(self._max_batch)
            self._grant_order = grant(live, room, self._grant_order, max_rows=largest)

    def _why_no_credit(self, table: Table, now: float) -> Reason:
        waiting = [session for session in self.actors.live(now) if not session.outstanding]
        if not waiting:
            return NO_WAIT
        largest = max(waiting, key=lambda session: session.chunk_rows)
        if self.draining:
            return Reason("shutdown", "the replay server to return: it is shutting down")
        if self.learners.finished:
            # Not a wait of the run, which has ended: it must raise no alert.
            return Reason("", f"a learner to open a run: the run {table.run.id} is finished")
        return why_no_credit(
            table,
            storage_error=self.journal.error,
            log_behind=largest.window_full or self.journal.room(table.ring.dtype.itemsize) < largest.chunk_rows,
            batch=self._max_batch,
            chunk_rows=largest.chunk_rows,
            learner_alive=bool(self.learners.live(now)),
        )

    def _why_no_batch(self, table: Table, now: float) -> Reason:
        waiting = next(self.learners.waiting(), None)
        if waiting is None:
            return NO_WAIT
        actors = sum(1 for _ in self.actors.live(now))
        return why_no_batch(table, waiting[1].message.count, actors_alive=actors)

    def _do_housekeeping(self, table: Table, now: float) -> None:
        self.learners.forget_silent(now)
        self.journal.write_samples(table.limiter.samples)
        while self.actors.forgotten:
            self.journal.write(ForgetActor(self.actors.forgotten.pop()))
