"""The node: n workers kept alive, one HTTP port for all of them.

    supervisor --spawn--> worker 0..n-1        a worker that ends is started again after a growing delay
    supervisor <--traceback-- worker           shown when it failed
    supervisor <--shared figures-- workers     summed on /metrics

Waits only for its workers' ends, a tenth of a second at a time: what a signal waits for at most.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import secrets
import socket
import time
from collections.abc import Callable
from multiprocessing.context import SpawnContext, SpawnProcess

from actor_node.config import ActorConfig
from actor_node.counters import Counters, shared_figures
from actor_node.metrics import make_registry
from actor_node.worker import WorkerConfig, work
from common.errors import ConfigError, PeerError, ShoalError
from common.process import BAD_USAGE, NO_PEER, Health, HttpPort, Stop
from common.restarts import Restarts

POLL_S = 0.1
_log = logging.getLogger(__name__)


class Slot:
    """One worker's place: its process, if it runs, and when it is due to start."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: SpawnProcess | None = None
        self.failure: multiprocessing.connection.Connection | None = None
        self.started_at = 0.0
        self.due_at: float | None = 0.0
        """None = given up."""
        self.restarts = Restarts()


def run_node(config: ActorConfig, stop: Stop) -> None:
    """Runs a node's workers until asked to stop; ShoalError when a worker's mistake is the user's to mend."""
    context = multiprocessing.get_context("spawn")
    figures = shared_figures(context, config.n)
    slots = [Slot(index) for index in range(config.n)]
    health = Health()
    counters = Counters(figures)
    registry = make_registry(
        counters,
        pids=lambda: _pids(slots),
        restarts=lambda: sum(slot.restarts.total for slot in slots),
    )
    port = HttpPort(config.metrics_host, config.metrics_port, registry, health)
    name = config.name or f"{socket.gethostname()[:80]}-{secrets.token_hex(3)}"
    _log.info("node %s: %d workers of %d copies, metrics at %s", name, config.n, config.copies, port.url)

    def start(slot: Slot) -> None:
        counters.forget_levels(slot.index)
        _start(slot, context, _worker_config(config, slot.index, name, port.url), figures)

    try:
        _keep_alive(slots, stop, health, start)
    finally:
        _end(slots, config.drain)
        port.close()


def _worker_config(config: ActorConfig, index: int, node: str, metrics_url: str) -> WorkerConfig:
    return WorkerConfig(
        index=index,
        workers=config.n,
        name=f"{node}-{index}",
        copies=config.copies,
        chunk_steps=config.chunk_steps,
        replay=config.replay[index % len(config.replay)],
        weights=config.weights,
        keys=config.keys,
        drain_s=config.drain,
        peer_timeout_s=config.peer_timeout,
        metrics_url=metrics_url,
        supervisor=os.getpid(),
        audit=config.audit,
    )


def _start(slot: Slot, context: SpawnContext, config: WorkerConfig, figures: object) -> None:
    slot.failure, child_end = context.Pipe(duplex=False)
    slot.process = context.Process(target=work, args=(config, figures, child_end), name=config.name, daemon=True)
    slot.process.start()
    child_end.close()
    slot.started_at, slot.due_at = time.monotonic(), None


def _keep_alive(slots: list[Slot], stop: Stop, health: Health, start: Callable[[Slot], None]) -> None:
    while not stop.requested:
        now = time.monotonic()
        health.beat()
        for slot in slots:
            if slot.process is not None and not slot.process.is_alive():
                _note_end(slot, now)
            if slot.process is None and slot.due_at is not None and slot.due_at <= now:
                start(slot)
        alive = sum(_is_alive(slot) for slot in slots)
        health.not_ready = "" if alive == len(slots) else f"{alive} of {len(slots)} workers run"
        sentinels = [slot.process.sentinel for slot in slots if slot.process is not None]
        multiprocessing.connection.wait(sentinels, timeout=POLL_S) if sentinels else stop.wait(POLL_S)


def _note_end(slot: Slot, now: float) -> None:
    """Decides what follows a worker's end; raises when starting it again cannot help."""
    if slot.process is None or slot.failure is None:
        return
    code = slot.process.exitcode or 0
    slot.process.join()
    last_words = _last_words(slot.failure)
    slot.process = None
    if code in (BAD_USAGE, NO_PEER):
        raise ConfigError(last_words) if code == BAD_USAGE else PeerError(last_words)
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    why = f"{how}: {last_words}" if last_words else how
    delay = slot.restarts.delay_after(now - slot.started_at)
    if delay is None:
        raise ShoalError(f"worker {slot.index} failed {slot.restarts.failures} times in a row; the last time it {why}")
    _log.warning("worker %d %s; starts again in %.1f s", slot.index, why, delay)
    slot.due_at = now + delay


def _last_words(failure: multiprocessing.connection.Connection) -> str:
    """Returns the error a worker sent before it ended; empty when it could not."""
    try:
        return failure.recv_bytes().decode(errors="replace") if failure.poll() else ""
    except (EOFError, OSError):  # OSError: it was killed while it spoke
        return ""
    finally:
        failure.close()


def _end(slots: list[Slot], drain_s: float) -> None:
    running = [slot.process for slot in slots if slot.process is not None and slot.process.is_alive()]
    for process in running:
        process.terminate()
    give_up_at = time.monotonic() + drain_s + 2.0
    for process in running:
        process.join(max(0.0, give_up_at - time.monotonic()))
        if process.is_alive():
            _log.warning("%s did not end in time; killed", process.name)
            process.kill()
            process.join()


def _pids(slots: list[Slot]) -> list[int]:
    """Returns the ids of the workers that run."""
    # Asked from the HTTP port's thread: a slot's process may be gone from one line to the next.
    processes = [process for slot in slots if (process := slot.process) is not None and process.is_alive()]
    return [process.pid for process in processes if process.pid is not None]


def _is_alive(slot: Slot) -> bool:
    return slot.process is not None and slot.process.is_alive()
