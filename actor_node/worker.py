"""The loop of one worker: it waits until it may collect, collects a chunk, and sends the chunk through its session.

The worker waits before it collects, not after, so that each chunk is collected with the newest weights.
`worker_process.py` is the process in which it runs.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from actor_node.collection.collector import FinishedEpisodes, Interrupted
from actor_node.collection.rollout_worker import RolloutWorker, check_chunk_size
from actor_node.monitoring.environment_calls import Call, CallTable, WatchedEnv, describe_activity
from actor_node.monitoring.failure_pipe import FailureReporter
from actor_node.monitoring.shared_metrics import AckTimes, NodeMemory, WorkerMetrics
from actor_node.monitoring.worker_exits import failure_of
from actor_node.replay_session import ReplaySession
from common.errors import PeerError, ShoalError
from common.policy.network import Policy
from common.process.exit import DONE
from common.process.monitoring.logs import WaitLog
from common.process.monitoring.metrics import run_labels, software_version
from common.process.stop import Stop
from common.run.run import Run
from common.wire.audit import AuditFile, ProcessStart
from common.wire.keys import load_keys
from common.worlds import World
from common.worlds.history_world import without_history
from common.worlds.world import HasEnvironments, HasInnerWorld

REPORT_PERIOD_S = 1.0
IDLE_POLL_S = 0.05
MAX_CHUNK_S = 1.0
"""A chunk ends with the first step after this time, even if it has fewer rows than requested."""
CALL_POLL_PERIOD_S = 0.25
"""Shortest time between two polls of the session from within the environments' calls."""
MAX_POLL_GAP_S = 1.0
"""A longer time without a poll is excluded from the session's time-outs."""

_log = logging.getLogger(__name__)


class WorkerConfig(msgspec.Struct, frozen=True):
    """Settings of one worker, from its supervisor."""

    index: int
    workers: int
    """Number of workers of its node."""
    name: str
    copies: int
    chunk_steps: int
    replay: str
    weights: str
    keys: str
    """Directory of the keys; empty = none."""
    drain_s: float
    peer_timeout_s: float
    metrics_url: str
    supervisor: int
    """Process id of the supervisor."""
    audit: str = ""
    """Directory of the audit; empty = none."""
    restarts: int = 0
    """How often this worker was restarted."""
    last_fault: str = ""
    """Why it was restarted last, in one line."""


class WorkerStop(Stop):
    """A worker's request to end; the second signal also interrupts the current call of the user's code.

    Without a supervisor the first signal interrupts the call, because no process is left to send a second.
    """

    def __init__(self, supervisor: int) -> None:
        super().__init__()
        self._supervisor = supervisor
        self.in_call = False
        """Whether the user's code runs in the main thread."""

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        interrupts = self.requested or os.getppid() != self._supervisor
        self.request(DONE)
        if interrupts and self.in_call:
            self.in_call = False
            raise Interrupted


class Worker:
    """Plays one batch of world copies for one replay server."""

    def __init__(self, config: WorkerConfig, shared: NodeMemory, stop: WorkerStop, reporter: FailureReporter) -> None:
        self._config, self._metrics, self._stop, self._reporter = config, WorkerMetrics(shared), stop, reporter
        self._calls, self._stop_at = CallTable(shared.calls), shared.stop_at
        audit = AuditFile(Path(config.audit), ProcessStart("actor", config.name)) if config.audit else None
        self._session = ReplaySession(config.name, config.replay, config.weights, audit, load_keys(config.keys))
        self._rollouts = RolloutWorker(config.name, index=config.index, workers=config.workers, copies=config.copies)
        self._ack_times = AckTimes(self._metrics, config.index)
        self._wait = WaitLog(_log)
        self._policy: tuple[int, Policy] | None = None
        self._counted: dict[str, int] = {}
        """The part of the session's totals that the metrics already contain."""
        self._last_fault = config.last_fault
        self._session_error: ShoalError | None = None
        """An error of the session during a call of the environment; raised once the call has returned."""
        self._reported_at = self._polled_at = self._chunk_started_at = self._step_started_at = 0.0
        self._started_at = time.monotonic()

    def run(self) -> None:
        """Collects until asked to stop, then waits for acknowledgements."""
        try:
            while not self._stopping:
                self._iterate()
            self._drain()
        except Interrupted:
            self._drain()
        except (Exception, SystemExit) as e:
            self._stop.in_call = False
            self._last_fault = failure_of(e).line
            self._report(time.monotonic())
            raise

    def close(self) -> None:
        """Closes the session, then the environments; the supervisor limits the time of the latter, as of any call."""
        self._session.close()
        self._start_closing()
        try:
            self._rollouts.close()
        except (Exception, Interrupted) as e:  # noqa: BLE001  (the worker has done its work)
            _log.warning("closing the environments failed: error=%s", failure_of(e).text)
        finally:
            self._stop.in_call = False

    @property
    def _stopping(self) -> bool:
        """Whether a signal asked the worker to end, or its supervisor did through the shared memory.

        The memory is needed where the user's code has replaced the signal handlers.
        """
        # stop_at[0] is 0 until the supervisor asks the node to end.
        return self._stop.requested or self._stop_at[0] > 0.0

    def _iterate(self) -> None:
        now = time.monotonic()
        must_wait = self._session.waiting_for()[0] != ""
        self._poll(now, timeout_s=IDLE_POLL_S if must_wait else 0.0)
        kind, reason = self._session.waiting_for()
        if kind:
            self._wait.waiting(reason, now)
            if self._session.run is None and 0 < self._config.peer_timeout_s < now - self._started_at:
                raise PeerError(
                    f"waited {now - self._started_at:.0f} s for {reason}; check that it runs and that --replay is right"
                )
            self._add(f"waiting_for_{kind}_s", time.monotonic() - now)
            return
        self._wait.done(now)
        self._collect()
        self._add("collecting_s", time.monotonic() - now)

    def _poll(self, now: float, timeout_s: float = 0.0) -> None:
        """Polls the session, and reports once a second."""
        if self._polled_at and now - self._polled_at > MAX_POLL_GAP_S:
            self._session.exclude_pause(now - self._polled_at)
        self._session.poll(now, timeout_s)
        self._polled_at = now
        self._ack_times.acknowledged(self._session.outbox.acked, time.monotonic())
        if now - self._reported_at >= REPORT_PERIOD_S:
            self._report(now)

    # ---- collecting -----------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        weights, run = self._session.weights, self._session.run
        if weights is None or run is None:
            raise RuntimeError("asked to collect before weights and run were known")
        if not self._rollouts.started:
            self._make_world(run)
            return  # the weights may be outdated by now
        if self._policy is None or self._policy[0] != weights.header.version:
            self._policy = weights.header.version, Policy(run.players, run.spec.network, weights.flat)
        self._chunk_started_at = self._step_started_at = time.monotonic()
        self._calls.start_step(self._config.index, self._chunk_started_at)
        records, episodes = self._rollouts.collect(
            self._policy[1], weights.header, self._config.chunk_steps, self._should_continue
        )
        self._calls.end_chunk(self._config.index, time.monotonic() - self._step_started_at)
        if len(records):
            self._send_chunk(records, episodes, weights.header.version)
        self._raise_session_error()

    def _send_chunk(self, records: npt.NDArray[np.void], episodes: FinishedEpisodes, version: int) -> None:
        self._add("env_steps", len(records))
        self._add("episodes", episodes.ended)
        self._add("episode_return_sum", float(episodes.return_sums.sum()))
        self._add("chunks", 1)
        self._add("chunk_bytes", records.nbytes)
        self._ack_times.sent(self._session.outbox.next_seq, time.monotonic())
        payload = records.view(np.uint8).data
        self._session.add_chunk(len(records), version, payload, copies=episodes.copies, ends=episodes.ends)

    def _should_continue(self) -> bool:
        """Returns whether the chunk gets another step of all copies: not after a stop, and not after MAX_CHUNK_S."""
        now = time.monotonic()
        if self._stopping or self._session_error or now - self._chunk_started_at >= MAX_CHUNK_S:
            return False
        self._step_started_at = now
        self._calls.start_step(self._config.index, now)
        return True

    def _make_world(self, run: Run) -> None:
        config = self._config
        check_chunk_size(run, config.chunk_steps * config.copies)
        self._metrics.run = run_labels(run)
        self._report(time.monotonic())

        def made(copy: int) -> None:
            self._end_call()
            self._between_calls()
            if copy + 1 < config.copies:
                self._start_call(Call.MAKING, copy + 1)

        def watch(world: World) -> None:
            self._end_call()
            self._watch(world)

        self._start_call(Call.MAKING, 0)
        self._rollouts.start(
            run,
            seed=self._session.outbox.incarnation,
            on_made=made,
            on_fault=self._on_making_failed,
            before_reset=watch,
        )
        # No step was taken, so none is reported as slow.
        self._calls.end_chunk(config.index, last_step_s=0.0)
        self._raise_session_error()

    # ---- calls of the user's code ---------------------------------------------------------------------------------

    def _watch(self, world: World) -> None:
        """Makes every environment announce its calls, or the one world that steps all copies."""
        environments = without_history(world)
        copies = itertools.count()

        def watched(env: Any) -> WatchedEnv:
            copy = next(copies)

            def on_call(call: Call) -> None:
                self._between_calls()
                self._start_call(call, copy)

            return WatchedEnv(env, on_call, self._end_call)

        if isinstance(environments, HasEnvironments):
            environments.wrap(watched)
        elif isinstance(environments, HasInnerWorld):
            environments.wrap_inner(watched)

    def _start_call(self, call: Call, copy: int) -> None:
        self._calls.start_call(self._config.index, call, copy, self._config.copies, time.monotonic())
        self._stop.in_call = True

    def _end_call(self) -> None:
        self._stop.in_call = False
        self._calls.end_call(self._config.index)

    def _between_calls(self) -> None:
        """Polls the session between two calls of the user's code; Interrupted if the next call must not start."""
        if self._stopping:
            raise Interrupted
        now = time.monotonic()
        if now - self._polled_at < CALL_POLL_PERIOD_S:
            return
        try:
            self._poll(now)
        except ShoalError as e:
            # An error that is raised here would look like one of the environment.
            self._session_error = e
            raise Interrupted from e

    def _raise_session_error(self) -> None:
        if self._session_error is not None:
            raise self._session_error

    def _on_making_failed(self, error: BaseException) -> None:
        """Reports the failure before the copies made so far are closed, which may hang."""
        if not isinstance(error, Interrupted):
            self._reporter.send(failure_of(error))
        self._start_closing()

    def _start_closing(self) -> None:
        if self._calls.read(self._config.index).call is not Call.CLOSING:
            self._start_call(Call.CLOSING, 0)

    # ---- reports --------------------------------------------------------------------------------------------------

    def _report(self, now: float) -> None:
        self._reported_at = now
        session, weights = self._session, self._session.weights
        version = weights.header.version if weights else 0
        age_s = now - session.weights_at if weights else 0.0
        gauges = {"chunks_unacknowledged": session.outbox.unacked, "weights_version": version, "weights_age_s": age_s}
        for gauge, value in gauges.items():
            self._metrics.set(self._config.index, gauge, value)
        totals = {"chunks_resent": session.outbox.resent, "weights_rejected": session.weights_rejected}
        for counter, total in totals.items():
            self._add(counter, total - self._counted.get(counter, 0))
            self._counted[counter] = total
        session.report(
            msgspec.structs.replace(
                self._rollouts.report(session.outbox.incarnation, version),
                weights_age_s=age_s,
                waiting_for=self._wait.reason,
                waited_s=self._wait.total_s,
                metrics_url=self._config.metrics_url,
                software=software_version(),
                weights_refused=session.rejection_reason,
                doing=describe_activity(self._calls.read(self._config.index), now),
                restarts=self._config.restarts,
                last_fault=self._last_fault,
            )
        )
        self._calls.reported(self._config.index, session.outbox.incarnation, now)

    def _drain(self) -> None:
        """Waits a bounded time for acknowledgements of all chunks, and sends the last report."""
        self._stop.in_call = False
        orphaned = os.getppid() != self._config.supervisor
        asked_at = self._stop_at[0] or time.monotonic()
        deadline = asked_at + (0.0 if orphaned else self._config.drain_s)
        self._raise_session_error()
        while self._session.outbox.unacked and (now := time.monotonic()) < deadline:
            self._session.poll(now, timeout_s=IDLE_POLL_S)
        if self._session.outbox.unacked:
            _log.warning("ended with chunks that are not acknowledged: chunks=%d", self._session.outbox.unacked)
        self._report(time.monotonic())

    def _add(self, counter: str, amount: float) -> None:
        self._metrics.add(self._config.index, counter, amount)
