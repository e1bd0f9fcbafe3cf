"""One worker process: waits until it may collect, collects a chunk, hands it to its link; and again.

Waits before collecting, not after, so that a chunk is acted with the newest weights there are.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from actor_node.collector import Collector, Episodes
from actor_node.counters import AckTimes, Counters, Shared
from actor_node.exploration import scale_share
from actor_node.link import Link
from common.audit import AuditFile, Life
from common.errors import ConfigError, PeerError, ShoalError
from common.keys import load_keys
from common.messages import ActorReport
from common.policy import Policy
from common.process import FAILED, Stop, WaitLog, die_with_parent, start_logging
from common.run import Run
from common.transitions import transition_dtype
from common.vitals import run_labels, software_version
from common.wire import MAX_PEER_FRAME_BYTES, checksum
from common.worlds import make_world

REPORT_PERIOD_S = 1.0
IDLE_POLL_S = 0.05
_LAST_WORDS = 8_000
"""Characters of a failure that reach the supervisor: more than a pipe holds would never be sent."""

_log = logging.getLogger(__name__)


class WorkerConfig(msgspec.Struct, frozen=True):
    """What a supervisor tells one worker."""

    index: int
    workers: int
    """Of its node."""
    name: str
    copies: int
    chunk_steps: int
    replay: str
    weights: str
    keys: str
    """Directory; empty = none."""
    drain_s: float
    peer_timeout_s: float
    metrics_url: str
    supervisor: int
    """Process id."""
    audit: str = ""
    """Directory of the audit; empty = none."""


def work(config: WorkerConfig, figures: Shared, failure: Connection) -> None:
    """Is the main function of a worker process; sends its last traceback through `failure` before it fails."""
    die_with_parent(config.supervisor)
    start_logging(f"actor/{config.index}")
    stop = Stop()
    stop.on_signals()
    try:
        worker = Worker(config, Counters(figures))
        worker.run(stop)
    except ShoalError as e:
        failure.send_bytes(str(e)[-_LAST_WORDS:].encode())
        sys.exit(e.exit_code)
    except Exception:  # noqa: BLE001  (the process ends here; its supervisor shows the traceback)
        failure.send_bytes(traceback.format_exc()[-_LAST_WORDS:].encode())
        sys.exit(FAILED)


class Worker:
    """Plays one batch of world copies against one replay server."""

    def __init__(self, config: WorkerConfig, counters: Counters) -> None:
        self._config, self._counters = config, counters
        audit = AuditFile(Path(config.audit), Life("actor", config.name)) if config.audit else None
        self._link = Link(config.name, config.replay, config.weights, audit, load_keys(config.keys))
        self._ack_times = AckTimes(counters, config.index)
        self._wait = WaitLog(_log)
        self._collector: Collector | None = None
        self._policy: tuple[int, Policy] | None = None
        self._env_steps = self._episodes = 0
        self._shared_reward = True
        self._return_sums: np.ndarray[Any, np.dtype[np.float64]] = np.zeros(0)
        self._told: dict[str, int] = {}
        """What of the link's totals has been counted."""
        self._reported_at = 0.0
        self._born_at = time.monotonic()

    def run(self, stop: Stop) -> None:
        """Collects until asked to stop, then drains."""
        try:
            while not stop.requested:
                self._turn()
            self._drain()
        finally:
            self._link.close()

    def _turn(self) -> None:
        now = time.monotonic()
        who, reason = self._link.waiting_for()
        self._link.pump(now, timeout_s=IDLE_POLL_S if who else 0.0)
        self._ack_times.acknowledged(self._link.outbox.acked, time.monotonic())
        if now - self._reported_at >= REPORT_PERIOD_S:
            self._report(now)
        still_waits_for, reason = self._link.waiting_for()
        if still_waits_for:
            self._wait.waiting(reason, now)
            if self._link.run is None and 0 < self._config.peer_timeout_s < now - self._born_at:
                raise PeerError(f"waited {now - self._born_at:.0f} s for {reason}; is it running, and --replay right?")
            self._count(f"waiting_for_{still_waits_for}_s", time.monotonic() - now)
            return
        self._wait.done(now)
        self._collect()
        self._count("collecting_s", time.monotonic() - now)

    def _collect(self) -> None:
        weights, run = self._link.weights, self._link.run
        if weights is None or run is None:
            raise RuntimeError("asked to collect before weights and run were known")
        if self._collector is None:
            self._collector = self._make_collector(run)
        if self._policy is None or self._policy[0] != weights.header.version:
            self._policy = weights.header.version, Policy(run.players, run.spec.network, weights.flat)
        records, episodes = self._collector.collect(self._policy[1], weights.header, self._config.chunk_steps)
        self._note(len(records), episodes)
        self._count("chunk_bytes", records.nbytes)
        self._ack_times.sent(self._link.outbox.next_seq, time.monotonic())
        payload, version = records.view(np.uint8).data, weights.header.version
        self._link.add_chunk(len(records), version, payload, copies=episodes.copies, ends=episodes.ends)

    def _make_collector(self, run: Run) -> Collector:
        refuse_large_chunks(run, self._config.chunk_steps * self._config.copies)
        self._counters.run = run_labels(run)
        # Name and incarnation are part of the seed: no two workers, and no restarted one, play the same episodes.
        rng = np.random.default_rng(
            [run.spec.seed, checksum(self._config.name.encode()), self._link.outbox.incarnation]
        )
        seed = int(rng.integers(2**32))
        world = make_world(
            run.spec.scenario,
            self._config.copies,
            seed=seed,
            options=run.spec.world,
            max_episode_steps=run.spec.episode.max_steps,
        )
        share = scale_share(run.spec.exploration.ladder, self._config.index, self._config.workers)
        return Collector(run, world, rng, share)

    def _note(self, env_steps: int, episodes: Episodes) -> None:
        self._env_steps += env_steps
        self._episodes += episodes.ended
        self._shared_reward = self._shared_reward and episodes.shared_reward
        self._return_sums = episodes.return_sums + (self._return_sums if self._return_sums.size else 0.0)
        self._count("env_steps", env_steps)
        self._count("episodes", episodes.ended)
        self._count("episode_return_sum", float(episodes.return_sums.sum()))
        self._count("chunks", 1)

    def _report(self, now: float) -> None:
        self._reported_at = now
        link, weights = self._link, self._link.weights
        version = weights.header.version if weights else 0
        age_s = now - link.weights_at if weights else 0.0
        levels = {"chunks_unacknowledged": link.outbox.unacked, "weights_version": version, "weights_age_s": age_s}
        for figure, value in levels.items():
            self._counters.set(self._config.index, figure, value)
        for figure, total in {"chunks_resent": link.outbox.resent, "weights_rejected": link.weights_rejected}.items():
            self._count(figure, total - self._told.get(figure, 0))
            self._told[figure] = total
        link.report(
            ActorReport(
                actor=self._config.name,
                incarnation=link.outbox.incarnation,
                env_steps=self._env_steps,
                episodes=self._episodes,
                return_sum=float(self._return_sums.sum()),
                return_sums=tuple(float(x) for x in self._return_sums),
                weights_version=version,
                weights_age_s=age_s,
                waiting_for=self._wait.reason,
                waited_s=self._wait.total_s,
                metrics_url=self._config.metrics_url,
                software=software_version(),
                shared_reward=self._shared_reward,
            )
        )

    def _drain(self) -> None:
        """Waits a bounded time for acknowledgements of what was sent, and tells the last figures."""
        orphaned = os.getppid() != self._config.supervisor
        give_up_at = time.monotonic() + (0.0 if orphaned else self._config.drain_s)
        while self._link.outbox.unacked and (now := time.monotonic()) < give_up_at:
            self._link.pump(now, timeout_s=IDLE_POLL_S)
        if self._link.outbox.unacked:
            _log.warning("ended with %d chunks not acknowledged", self._link.outbox.unacked)
        self._report(time.monotonic())

    def _count(self, figure: str, amount: float) -> None:
        self._counters.add(self._config.index, figure, amount)


def refuse_large_chunks(run: Run, rows: int) -> None:
    """Raises ConfigError for chunks that no replay server takes, or that would never fit into the ratio's band."""
    size, most = rows * transition_dtype(run.joint).itemsize, MAX_PEER_FRAME_BYTES
    if size > most:
        raise ConfigError(
            f"a chunk of {rows:,} transitions is {size / 2**20:.0f} MiB, and a replay server takes {most / 2**20:.0f}; "
            "lower --copies and --chunk-rows"
        )
    replay = run.spec.replay
    band = min(replay.error_buffer, 2 * replay.error_buffer - replay.batch)
    if replay.limit != "off" and replay.error_buffer and rows * replay.samples_per_insert > band:
        raise ConfigError(
            f"chunks of {rows:,} transitions never fit into replay.error_buffer {replay.error_buffer:g}; lower "
            "--copies and --chunk-rows, or leave the buffer at 0 to have it chosen"
        )
