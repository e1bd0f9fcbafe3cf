"""The node: n workers kept alive, one HTTP port for all of them.

    supervisor --spawn--> worker 0..n-1        a worker that ends is started again, or ends the node (`endings`)
    supervisor <--last words-- worker          shown when it failed, and noted for the process that started the node
    supervisor <--shared figures-- workers     summed on /metrics
    supervisor <--shared doing-- workers       said to the replay server for a worker that cannot; long calls are named
    supervisor --stop time, SIGTERM--> worker  at the end; a second SIGTERM breaks off a call of the user's code

Waits only for its workers' ends, a tenth of a second at a time: what a signal waits for at most.
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

import msgspec

from actor_node.config import ActorConfig
from actor_node.environment_calls import LONG_CALL_S, Call, CallTable, call_in_words, in_words, long_call
from actor_node.metrics import make_registry
from actor_node.replay_session import Proxy
from actor_node.shared_metrics import Shared, WorkerMetrics, shared_figures
from actor_node.worker import WorkerConfig, work
from actor_node.worker_exits import MAX_LINE, WorkerFailure, worker_exit
from common.process.failure_note import FailureNote
from common.process.health import Health, HttpPort
from common.process.restart_policy import GiveUp, RestartPolicy
from common.process.stop import Stop
from common.wire.keys import load_keys
from common.wire.messages import Busy

POLL_S = 0.1
SPEAK_PERIOD_S = 1.0
SILENT_S = 2.0
"""A worker in a call of the user's code that has reported nothing for so long is spoken for."""
KILL_AFTER_DRAIN_S = 2.0
CLOSE_S = 5.0
"""A worker that has said its last words may take so long to close its environments; then it is killed."""
_log = logging.getLogger(__name__)


class Slot:
    """One worker's place: its process, if it runs, and when it is due to start."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: SpawnProcess | None = None
        self.failure: multiprocessing.connection.Connection | None = None
        self.due_at = 0.0
        self.chunks_before = 0.0
        """Chunks that this worker's earlier lives had collected when it started."""
        self.policy = RestartPolicy(f"worker {index}")
        self.last_fault = ""
        self.details = ""
        """Of the last fault that was shown with its frames."""
        self.named_at = 0.0
        """When a call that lasts is named next: seconds of its duration."""


class Node:
    """The workers of one node and what they share."""

    def __init__(self, config: ActorConfig, note: FailureNote) -> None:
        self._config, self._note = config, note
        self._context: SpawnContext = multiprocessing.get_context("spawn")
        self._shared: Shared = shared_figures(self._context, config.n)
        self.counters, self._doing = WorkerMetrics(self._shared), CallTable(self._shared.doing)
        self.slots = [Slot(index) for index in range(config.n)]
        self.name = config.name or f"{socket.gethostname()[:80]}-{secrets.token_hex(3)}"
        self.metrics_url = ""
        self._proxy = Proxy(load_keys(config.keys))
        self._spoke_at = 0.0

    def keep_alive(self, stop: Stop, health: Health) -> None:
        """Looks after the workers until asked to stop; raises what starting a worker again cannot mend."""
        while not stop.requested:
            now = time.monotonic()
            health.beat()
            for slot in self.slots:
                if slot.process is not None and not slot.process.is_alive():
                    self._note_end(slot, now)
                if slot.process is None and slot.due_at <= now:
                    self._start(slot)
            alive = sum(_is_alive(slot) for slot in self.slots)
            health.not_ready = "" if alive == len(self.slots) else f"{alive} of {len(self.slots)} workers run"
            if now - self._spoke_at >= SPEAK_PERIOD_S:
                self._spoke_at = now
                for slot in self.slots:
                    self._watch(slot, now)
            sentinels = [slot.process.sentinel for slot in self.slots if slot.process is not None]
            multiprocessing.connection.wait(sentinels, timeout=POLL_S) if sentinels else stop.wait(POLL_S)

    def _start(self, slot: Slot) -> None:
        self.counters.forget_levels(slot.index)
        self._doing.clear(slot.index)
        slot.chunks_before, slot.named_at = self._chunks(slot), LONG_CALL_S
        slot.failure, child_end = self._context.Pipe(duplex=False)
        config = self._worker_config(slot)
        slot.process = self._context.Process(target=work, args=(config, self._shared, child_end), name=config.name)
        slot.process.start()
        child_end.close()

    def _worker_config(self, slot: Slot) -> WorkerConfig:
        config = self._config
        return WorkerConfig(
            index=slot.index,
            workers=config.n,
            name=self._worker_name(slot),
            copies=config.copies,
            chunk_steps=config.chunk_steps,
            replay=self._replay_of(slot),
            weights=config.weights,
            keys=config.keys,
            drain_s=config.drain,
            peer_timeout_s=config.peer_timeout,
            metrics_url=self.metrics_url,
            supervisor=os.getpid(),
            audit=config.audit,
            restarts=slot.policy.restarts,
            last_fault=slot.last_fault,
        )

    def _worker_name(self, slot: Slot) -> str:
        return f"{self.name}-{slot.index}"

    def _replay_of(self, slot: Slot) -> str:
        return self._config.replay[slot.index % len(self._config.replay)]

    def _chunks(self, slot: Slot) -> float:
        return float(self.counters.column("chunks")[slot.index])

    def _note_end(self, slot: Slot, now: float) -> None:
        """Decides what follows a worker's end; raises when starting it again cannot help."""
        if slot.process is None or slot.failure is None:
            return
        code = slot.process.exitcode or 0
        slot.process.join()
        _kill_group(slot.process.pid)
        failure = _receive_failure(slot.failure)
        slot.process = None
        collected = self._chunks(slot) > slot.chunks_before
        doing = call_in_words(self._doing.read(slot.index))
        outcome = slot.policy.decide(worker_exit(code, failure, collected=collected, call=doing))
        self._doing.clear(slot.index)
        if isinstance(outcome, GiveUp):
            raise outcome.error
        line, _, details = outcome.reason.partition("\n")
        if details == slot.details:
            details = ""  # shown before
        else:
            slot.details = details
        slot.last_fault, slot.due_at = line[:MAX_LINE], now + outcome.delay_s
        restart = f"restarts in {outcome.delay_s:.1f} s (restart {slot.policy.restarts})"
        summary = f"worker {slot.index}: {line}; {restart}"
        text = f"{summary}\n{details}" if details else summary
        _log.warning("%s", text)
        self._note.append(text, lasting=False, mended=True)

    def _watch(self, slot: Slot, now: float) -> None:
        """Speaks for a worker whose environment keeps it from that, and names or ends a call that does not return."""
        doing = self._doing.read(slot.index)
        if slot.process is None or not _is_alive(slot) or not doing.since:
            return
        if doing.call is Call.CLOSING:
            if doing.lasts_s(now) >= CLOSE_S:
                _log.warning(
                    "worker %d: %s did not return in %.0f s; killed", slot.index, call_in_words(doing), CLOSE_S
                )
                slot.process.kill()
            return
        if doing.spoke_at and now - doing.spoke_at > SILENT_S:
            busy = Busy(self._worker_name(slot), doing.incarnation, in_words(doing, now))
            self._proxy.say(self._replay_of(slot), busy)
        if doing.lasts_s(now) < LONG_CALL_S:
            slot.named_at = LONG_CALL_S
        elif doing.lasts_s(now) >= slot.named_at:
            slot.named_at *= 2.0
            _log.warning("worker %d: %s", slot.index, long_call(doing, now))

    def end(self) -> None:
        """Ends all workers: they finish the step at hand, hand over what they collected, and are killed after that."""
        asked_at = self._shared.stop_at[0] = time.monotonic()
        running = [slot for slot in self.slots if _is_alive(slot)]
        _terminate(running)
        half = asked_at + self._config.drain / 2.0
        self._await(running, half)
        # A call of the user's code that still has not returned is broken off, so that the steps before it are handed
        # over in the half that is left.
        _terminate(running)
        self._await(running, asked_at + self._config.drain + KILL_AFTER_DRAIN_S)
        for slot in running:
            if slot.process is None:
                continue
            if slot.process.is_alive():
                in_call = call_in_words(self._doing.read(slot.index))
                why = f": {in_call} did not return" if in_call else ""
                _log.warning("worker %d did not end in time; killed%s", slot.index, why)
                slot.process.kill()
                slot.process.join()
        for slot in self.slots:
            # Also of workers that failed together with the one whose failure ends the node.
            if slot.process is not None:
                _kill_group(slot.process.pid)
        self._proxy.close()

    def _await(self, slots: list[Slot], give_up_at: float) -> None:
        for slot in slots:
            if slot.process is not None:
                slot.process.join(max(0.0, give_up_at - time.monotonic()))


def run_node(config: ActorConfig, stop: Stop, note: FailureNote | None = None) -> None:
    """Runs a node's workers until asked to stop; ShoalError when starting a worker again cannot mend its failure.

    note: where failures that are retried are left for the process that started this one.
    """
    health = Health()
    node = Node(config, note or FailureNote(None))
    registry = make_registry(
        node.counters,
        pids=lambda: _pids(node.slots),
        restarts=lambda: sum(slot.policy.restarts for slot in node.slots),
    )
    port = HttpPort(config.metrics_host, config.metrics_port, registry, health)
    node.metrics_url = port.url
    _log.info("node %s: %d workers of %d copies, metrics at %s", node.name, config.n, config.copies, port.url)
    try:
        node.keep_alive(stop, health)
    finally:
        node.end()
        port.close()


def _receive_failure(pipe: multiprocessing.connection.Connection) -> WorkerFailure | None:
    """Returns the failure that a worker reported before it ended; None if it reported none."""
    try:
        return msgspec.json.decode(pipe.recv_bytes(), type=WorkerFailure) if pipe.poll() else None
    except (EOFError, OSError, msgspec.MsgspecError):  # killed while it wrote the report
        return None
    finally:
        pipe.close()


def _terminate(slots: list[Slot]) -> None:
    for slot in slots:
        if slot.process is not None and slot.process.is_alive():
            slot.process.terminate()


def _kill_group(worker: int | None) -> None:
    """Ends what a worker that has ended left behind in its session: its environment's simulators."""
    if worker is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(worker, signal.SIGKILL)


def _pids(slots: list[Slot]) -> list[int]:
    """Returns the ids of the workers that run."""
    # Asked from the HTTP port's thread: a slot's process may be gone from one line to the next.
    processes = [process for slot in slots if (process := slot.process) is not None and process.is_alive()]
    return [process.pid for process in processes if process.pid is not None]


def _is_alive(slot: Slot) -> bool:
    return slot.process is not None and slot.process.is_alive()
