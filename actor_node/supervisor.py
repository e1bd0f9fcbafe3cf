"""The supervisor of an actor node: it keeps n workers alive and serves one HTTP port for all of them.

    supervisor --spawn--> worker 0..n-1        a worker that ends is restarted, or ends the node (`restart_policy`)
    supervisor <--failure-- worker             logged, and left for the process that started the node (`failure_note`)
    supervisor <--shared metrics-- workers     summed on /metrics
    supervisor <--shared calls-- workers       a call that does not return is logged, and reported to the replay server
                                               in the worker's place
    supervisor --stop time, SIGTERM--> worker  at the end; a second SIGTERM interrupts a call of the user's code

The supervisor waits only for the end of a worker, at most POLL_S at a time; a signal is handled within that time.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import secrets
import signal
import socket
import time
from contextlib import suppress
from multiprocessing.context import SpawnContext, SpawnProcess

from actor_node.config import ActorConfig
from actor_node.metrics import make_registry
from actor_node.monitoring.busy_reporter import BusyReporter
from actor_node.monitoring.environment_calls import (
    LONG_CALL_S,
    Call,
    CallTable,
    describe_activity,
    describe_call,
    describe_long_call,
)
from actor_node.monitoring.failure_pipe import receive_failure
from actor_node.monitoring.shared_metrics import NodeMemory, WorkerMetrics, allocate_node_memory
from actor_node.monitoring.worker_exits import MAX_LINE_CHARACTERS, worker_exit
from actor_node.worker import WorkerConfig
from actor_node.worker_process import run_worker
from common.process.children.failure_note import FailureNote
from common.process.children.restart_policy import GiveUp, RestartPolicy
from common.process.monitoring.health import Health, HttpPort
from common.process.stop import Stop
from common.wire.keys import load_keys
from common.wire.messages import Busy

POLL_S = 0.1
CALL_CHECK_PERIOD_S = 1.0
REPORT_OVERDUE_S = 2.0
"""The supervisor reports in a worker's place if the worker runs a call of the user's code and has not reported for this
time [s]."""
KILL_AFTER_DRAIN_S = 2.0
"""A worker that still runs this long after the drain time is killed."""
CLOSE_TIMEOUT_S = 5.0
"""A worker that takes longer to close its environments is killed."""
_log = logging.getLogger(__name__)


class SupervisedWorker:
    """One of the node's n workers: its process, if it runs, and its history over all restarts."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: SpawnProcess | None = None
        self.failure_pipe: multiprocessing.connection.Connection | None = None
        self.start_at = 0.0
        """Monotonic time of the next start, while no process runs."""
        self.chunks_before = 0.0
        """Chunks that the earlier processes of this worker collected."""
        self.restart_policy = RestartPolicy(f"worker {index}")
        self.last_fault = ""
        self.logged_details = ""
        """Details of the last failure that was logged with details."""
        self.next_call_warning_s = 0.0
        """The current call is logged when it has run this long; doubles with each log line."""


class Node:
    """The supervisor's view of one node: its workers, and the memory that it shares with them."""

    def __init__(self, config: ActorConfig, note: FailureNote) -> None:
        self._config, self._note = config, note
        self._context: SpawnContext = multiprocessing.get_context("spawn")
        self._shared: NodeMemory = allocate_node_memory(self._context, config.n)
        self.metrics, self._calls = WorkerMetrics(self._shared), CallTable(self._shared.calls)
        self.workers = [SupervisedWorker(index) for index in range(config.n)]
        self.name = config.name or f"{socket.gethostname()[:80]}-{secrets.token_hex(3)}"
        self.metrics_url = ""
        self._busy_reporter = BusyReporter(load_keys(config.keys))
        self._calls_checked_at = 0.0

    def keep_alive(self, stop: Stop, health: Health) -> None:
        """Restarts workers until asked to stop; raises the failure of a worker that a restart cannot help."""
        while not stop.requested:
            now = time.monotonic()
            health.beat()
            for worker in self.workers:
                if worker.process is not None and not worker.process.is_alive():
                    self._handle_exit(worker, now)
                if worker.process is None and worker.start_at <= now:
                    self._start(worker)
            alive = sum(_is_alive(worker) for worker in self.workers)
            health.not_ready = "" if alive == len(self.workers) else f"{alive} of {len(self.workers)} workers run"
            if now - self._calls_checked_at >= CALL_CHECK_PERIOD_S:
                self._calls_checked_at = now
                for worker in self.workers:
                    self._check_call(worker, now)
            sentinels = [worker.process.sentinel for worker in self.workers if worker.process is not None]
            multiprocessing.connection.wait(sentinels, timeout=POLL_S) if sentinels else stop.wait(POLL_S)

    def _start(self, worker: SupervisedWorker) -> None:
        self.metrics.reset_gauges(worker.index)
        self._calls.clear(worker.index)
        worker.chunks_before, worker.next_call_warning_s = self._chunks(worker), LONG_CALL_S
        worker.failure_pipe, child_end = self._context.Pipe(duplex=False)
        config = self._worker_config(worker)
        worker.process = self._context.Process(
            target=run_worker, args=(config, self._shared, child_end), name=config.name
        )
        worker.process.start()
        child_end.close()

    def _worker_config(self, worker: SupervisedWorker) -> WorkerConfig:
        config = self._config
        return WorkerConfig(
            index=worker.index,
            workers=config.n,
            name=self._worker_name(worker),
            copies=config.copies,
            chunk_steps=config.chunk_steps,
            replay=self._replay_of(worker),
            weights=config.weights,
            keys=config.keys,
            drain_s=config.drain,
            peer_timeout_s=config.peer_timeout,
            metrics_url=self.metrics_url,
            supervisor=os.getpid(),
            audit=config.audit,
            restarts=worker.restart_policy.restarts,
            last_fault=worker.last_fault,
        )

    def _worker_name(self, worker: SupervisedWorker) -> str:
        return f"{self.name}-{worker.index}"

    def _replay_of(self, worker: SupervisedWorker) -> str:
        return self._config.replay[worker.index % len(self._config.replay)]

    def _chunks(self, worker: SupervisedWorker) -> float:
        return float(self.metrics.column("chunks")[worker.index])

    def _handle_exit(self, worker: SupervisedWorker, now: float) -> None:
        """Schedules the restart of a worker that ended; raises its failure if a restart cannot help."""
        if worker.process is None or worker.failure_pipe is None:
            return
        code = worker.process.exitcode or 0
        worker.process.join()
        _kill_group(worker.process.pid)
        failure = receive_failure(worker.failure_pipe)
        worker.process = None
        collected = self._chunks(worker) > worker.chunks_before
        call = describe_call(self._calls.read(worker.index))
        outcome = worker.restart_policy.decide(worker_exit(code, failure, collected=collected, call=call))
        self._calls.clear(worker.index)
        if isinstance(outcome, GiveUp):
            raise outcome.error
        line, _, details = outcome.reason.partition("\n")
        if details == worker.logged_details:
            details = ""
        else:
            worker.logged_details = details
        worker.last_fault, worker.start_at = line[:MAX_LINE_CHARACTERS], now + outcome.delay_s
        restart = f"restarts in {outcome.delay_s:.1f} s (restart {worker.restart_policy.restarts})"
        summary = f"worker {worker.index}: {line}; {restart}"
        text = f"{summary}\n{details}" if details else summary
        _log.warning("%s", text)
        # Handled, by the restart: it is shown, but it is not a failure that ends this node.
        self._note.append(text, lasting=False, handled=True)

    def _check_call(self, worker: SupervisedWorker, now: float) -> None:
        """Reports for a worker whose current call keeps it from reporting, and logs or ends a call that lasts long."""
        current = self._calls.read(worker.index)
        if worker.process is None or not _is_alive(worker) or not current.started_at:
            return
        duration_s = current.duration_s(now)
        if current.call is Call.CLOSING:
            if duration_s >= CLOSE_TIMEOUT_S:
                call = describe_call(current)
                _log.warning("worker %d: %s did not return in %.0f s; killed", worker.index, call, CLOSE_TIMEOUT_S)
                worker.process.kill()
            return
        if current.reported_at and now - current.reported_at > REPORT_OVERDUE_S:
            busy = Busy(self._worker_name(worker), current.incarnation, describe_activity(current, now))
            self._busy_reporter.send(self._replay_of(worker), busy)
        if duration_s < LONG_CALL_S:
            worker.next_call_warning_s = LONG_CALL_S
        elif duration_s >= worker.next_call_warning_s:
            worker.next_call_warning_s *= 2.0
            _log.warning("worker %d: %s", worker.index, describe_long_call(current, now))

    def end(self) -> None:
        """Ends all workers: they finish their step and send what they collected, or are killed after the drain time."""
        asked_at = self._shared.stop_at[0] = time.monotonic()
        running = [worker for worker in self.workers if _is_alive(worker)]
        _terminate(running)
        half = asked_at + self._config.drain / 2.0
        self._join(running, half)
        # The second signal interrupts a call of the user's code that has not returned, so that the steps before it are
        # sent in the remaining half of the drain time.
        _terminate(running)
        self._join(running, asked_at + self._config.drain + KILL_AFTER_DRAIN_S)
        for worker in running:
            if worker.process is None:
                continue
            if worker.process.is_alive():
                call = describe_call(self._calls.read(worker.index))
                reason = f": {call} did not return" if call else ""
                _log.warning("worker %d did not end in time; killed%s", worker.index, reason)
                worker.process.kill()
                worker.process.join()
        for worker in self.workers:
            # This includes workers that ended at the same time as the one whose failure ends the node.
            if worker.process is not None:
                _kill_group(worker.process.pid)
        self._busy_reporter.close()

    def _join(self, workers: list[SupervisedWorker], deadline: float) -> None:
        for worker in workers:
            if worker.process is not None:
                worker.process.join(max(0.0, deadline - time.monotonic()))


def run_node(config: ActorConfig, stop: Stop, note: FailureNote | None = None) -> None:
    """Runs a node's workers until asked to stop; ShoalError for a failure of a worker that a restart cannot help.

    note: where failures that a restart may help are left for the process that started this one.
    """
    health = Health()
    node = Node(config, note or FailureNote(None))
    registry = make_registry(
        node.metrics,
        pids=lambda: _pids(node.workers),
        restarts=lambda: sum(worker.restart_policy.restarts for worker in node.workers),
    )
    port = HttpPort(config.metrics_host, config.metrics_port, registry, health)
    node.metrics_url = port.url
    _log.info("node started: name=%s workers=%d copies=%d metrics=%s", node.name, config.n, config.copies, port.url)
    try:
        node.keep_alive(stop, health)
    finally:
        node.end()
        port.close()


def _terminate(workers: list[SupervisedWorker]) -> None:
    for worker in workers:
        if worker.process is not None and worker.process.is_alive():
            worker.process.terminate()


def _kill_group(worker: int | None) -> None:
    """Kills what an ended worker left behind in its session, such as its environment's simulators."""
    if worker is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(worker, signal.SIGKILL)


def _pids(workers: list[SupervisedWorker]) -> list[int]:
    """Returns the process ids of the running workers."""
    # Called from the HTTP port's thread: a worker's process may disappear from one line to the next.
    processes = [process for worker in workers if (process := worker.process) is not None and process.is_alive()]
    return [process.pid for process in processes if process.pid is not None]


def _is_alive(worker: SupervisedWorker) -> bool:
    return worker.process is not None and worker.process.is_alive()
