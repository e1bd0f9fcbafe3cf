"""The learner's loop: takes batches and updates until the budget is used; publishes, reports and saves in between.

    replay --Batch--> BatchStream --SampledBatch--> Training.update
                                        |--every 200 ms--> Publication --> Broadcast --> actors, replay
                                        |--every 1 s-----> Reporting --LearnerReport--> replay
                                        |--every 2 s-----> Reporting --> metrics.jsonl, TensorBoard
                                        |--every 20 s----> Saving --> checkpoints, policy.safetensors
                                        |--every `budget.milestone_steps`--> Saving --> milestones

| waits for                                                          | freed by                                    |
|--------------------------------------------------------------------|---------------------------------------------|
| a batch                                                            | the replay server; `waiting_for` says why   |
| the first answer of a replay server, before the networks are built | the answer, or 1 s                          |

The loop waits for nothing else: everything that is published, reported or saved is done between two updates.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from common.errors import PeerError
from common.process.health import Health
from common.process.logs import WaitLog
from common.process.stop import Stop
from common.run.directory import RunDirectory
from common.run.run import Run
from common.wire.keys import load_keys
from common.wire.messages import StatusRequest
from learner_node.batches import Batches, BatchStream
from learner_node.broadcast import Publisher
from learner_node.clocks import RunClock, Timer
from learner_node.config import LearnerConfig
from learner_node.devices import Device
from learner_node.persistence.saving import BeforeSaving, Saving
from learner_node.persistence.state import Counters, TrainingState, restore
from learner_node.publication import Publication
from learner_node.replay_session import SampledBatch
from learner_node.reporting.metrics import Metrics
from learner_node.reporting.metrics_log import MetricsLog
from learner_node.reporting.reporter import Reporting
from learner_node.reporting.trackers import open_tracker
from learner_node.run_checks.refused_weights import RefusedWeights
from learner_node.run_checks.sizes import sizes_of
from learner_node.trainer import Training

WAIT_S = 0.1
REPORT_PERIOD_S = 1.0
LOG_PERIOD_S = 2.0
PROGRESS_PERIOD_S = 10.0
ANNOUNCE_S = 1.0
"""Longest wait for a replay server to receive the announcement of the build. The build does not depend on it."""

OpenStream = Callable[[Counters], Batches]
"""Makes the stream of a learner's batches, from the counters that its run resumes from."""

_log = logging.getLogger(__name__)


class PeriodicAction(NamedTuple):
    """Work that the loop does between updates, whenever it is due at a monotonic time."""

    is_due: Callable[[float], bool]
    run: Callable[[float], object]


class Learner:
    """The training of one run, from its newest checkpoint on.

    Example:
        broadcast = Broadcast("tcp://127.0.0.1:5556")
        learner = Learner(
            run, directory, LearnerConfig(), choose_device(gpu=False), metrics=Metrics(), broadcast=broadcast
        )
        learner.run(Stop(), Health())
        learner.close()
    """

    def __init__(
        self,
        run: Run,
        directory: RunDirectory,
        config: LearnerConfig,
        device: Device,
        *,
        metrics: Metrics,
        broadcast: Publisher,
        open_stream: OpenStream | None = None,
        before_saving: BeforeSaving | None = None,
    ) -> None:
        """Loads the newest checkpoint, connects, and builds the networks.

        ShoalError if there are checkpoints and none can be read; ConfigError if an address is not valid.
        open_stream: makes the stream of batches, if they do not come from replay servers. before_saving: called before
        each checkpoint.
        """
        self._run, self._directory, self._config, self._device = run, directory, config, device
        self.metrics = metrics
        self._name = f"learner-{secrets.token_hex(3)}"
        self._saving, self._before_saving = Saving(run, directory, config.keep_checkpoints, metrics), before_saving
        self.counters = self._saving.counters
        metrics_log = MetricsLog(directory, open_tracker(config.track, run, directory))
        started_at = time.monotonic()
        self._wait, self._clock = WaitLog(_log), RunClock(self.counters.env_steps, started_at)
        self._refused_weights = RefusedWeights()
        # Connected before the networks are built, which may take a minute: replay servers can report the build.
        self._stream = (open_stream or self._connect)(self.counters)
        self._publication = Publication(run, self.counters, broadcast, self._stream, metrics)
        self._reporting = Reporting(
            run,
            self._name,
            self._saving,
            self._stream,
            metrics,
            metrics_log=metrics_log,
            clock=self._clock,
            wait=self._wait,
        )
        try:
            self._training = self._build(self._saving.loaded)
        except BaseException:
            self.close()
            raise
        self._periodic_actions = self._make_periodic_actions(started_at)

    @property
    def progress(self) -> float:
        """Fraction of the budget used, 0 to 1."""
        return self.counters.progress(self._run.spec.budget)

    # ---- the loop -------------------------------------------------------------------------------------------------

    def run(self, stop: Stop, health: Health) -> None:
        """Trains until the budget is used or a stop is requested, then saves."""
        started_at = time.monotonic()
        if self.progress >= 1.0:
            _log.warning("the budget is used already; resume with a larger --steps or --time to train on")
        iteration_started_at = started_at
        # The time before, such as the build of the networks, is not part of the budget.
        self._clock.charge(started_at, env_steps=self.counters.env_steps, trained=False, absent="")
        while not stop.requested and self.progress < 1.0:
            batch = self._stream.next(WAIT_S)
            now = time.monotonic()
            self.metrics.waiting_seconds.inc(now - iteration_started_at)
            if batch is None:
                self._note_wait(now, started_at)
            else:
                self._wait.done(now)
                self._update(batch)
            health.beat()
            health.not_ready = "" if self._publication.started else self._stream.waiting_for
            self._run_periodic_actions(now)
            ended_at = time.monotonic()
            self.counters.updating_s += ended_at - iteration_started_at if batch is not None else 0.0
            iteration_started_at = ended_at
            self._charge(ended_at, trained=batch is not None)
        self._finish()

    def close(self) -> None:
        """Closes files and sockets."""
        self._stream.close()
        self._reporting.close()

    def _update(self, batch: SampledBatch) -> None:
        """Does one update."""
        started_at = time.perf_counter()
        counters = self.counters
        self._reporting.before_update()
        counters.env_steps = max(counters.env_steps, self._stream.env_steps)
        now = time.monotonic()
        self._reporting.observe_batch(batch, now)
        stats = self._training.update(batch, counters.updates, self.progress, now)
        if batch.probabilities is not None:
            self._stream.update_priorities(batch, stats.abs_td_error)
        counters.updates += 1
        counters.samples += len(batch.words)
        self.metrics.updates.inc()
        self.metrics.samples.inc(len(batch.words))
        self.metrics.update_seconds.observe(time.perf_counter() - started_at)
        self.metrics.last_update.set_to_current_time()

    def _note_wait(self, now: float, started_at: float) -> None:
        """Logs a wait for a batch; PeerError if no replay server accepted this learner within `--peer-timeout`."""
        self._wait.waiting(self._stream.waiting_for, now)
        if not self._stream.opened and 0 < self._config.peer_timeout < now - started_at:
            raise PeerError(
                f"waited {now - started_at:.0f} s for {self._stream.waiting_for}; check that it runs and that --replay"
                " is right"
            )

    def _charge(self, now: float, *, trained: bool) -> None:
        """Charges the time since the last call to the budget, unless a peer is gone."""
        was_paused = self._clock.paused
        self.counters.trained_s += self._clock.charge(
            now, env_steps=self._stream.env_steps, trained=trained, absent=self._stream.absent
        )
        if self._clock.paused and not was_paused:
            _log.warning("time is not charged to the budget: waiting for %s", self._clock.paused)
        if was_paused and not self._clock.paused:
            _log.info("time is charged to the budget again")

    # ---- between updates ------------------------------------------------------------------------------------------

    def _make_periodic_actions(self, now: float) -> tuple[PeriodicAction, ...]:
        """Returns the work between updates, in the order in which it is done."""
        return (
            PeriodicAction(self._publication.is_due, self._publish),
            PeriodicAction(Timer(REPORT_PERIOD_S, now).is_due, self._report),
            PeriodicAction(Timer(LOG_PERIOD_S, now).is_due, self._write_metrics),
            PeriodicAction(Timer(PROGRESS_PERIOD_S, now).is_due, lambda _: self._reporting.log_progress()),
            PeriodicAction(lambda _: self._saving.is_milestone_due(), self._save_milestone),
            PeriodicAction(Timer(self._config.checkpoint_every, now).is_due, self._save_if_trained),
        )

    def _run_periodic_actions(self, now: float) -> None:
        if not self._publication.started:
            if not self._stream.opened:
                return
            self._start_publication()
        self.counters.env_steps = max(self.counters.env_steps, self._stream.env_steps)
        for action in self._periodic_actions:
            if action.is_due(now):
                action.run(now)

    def _start_publication(self) -> None:
        first_version = self._publication.start(self._config.checkpoint_every)
        if self.counters.updates:
            self._reporting.resumed(first_version)

    def _publish(self, now: float) -> None:
        self._publication.publish(self._training.algorithm, now)

    def _report(self, now: float) -> None:
        self._reporting.report(self._training.losses, now)
        self._stream.send(StatusRequest())
        self._refused_weights.check(self._stream.statuses, now)

    def _write_metrics(self, _now: float) -> None:
        self._reporting.write_metrics(self._training.losses)

    def _save_milestone(self, _now: float) -> None:
        self._saving.save_milestone(self._training.algorithm)

    def _save_if_trained(self, _now: float) -> None:
        # Also during the warm-up: a crash must not lose the time that was charged.
        if self.counters.trained_s:
            self._save()

    def _save(self) -> None:
        self._saving.save(self._training.algorithm, self._stream.status, self._before_saving)

    # ---- start and end --------------------------------------------------------------------------------------------

    def _connect(self, counters: Counters) -> Batches:
        config, pin = self._config, self._device.is_gpu
        clock, keys = (counters.env_steps, counters.samples), load_keys(config.keys)
        return BatchStream(self._run, self._name, config.replay, config.prefetch, pin=pin, clock=clock, keys=keys)

    def _build(self, state: TrainingState | None) -> Training:
        """Makes the networks and restores the state of a checkpoint, if any."""
        sizes = sizes_of(self._run.spec, self._run.joint)
        for line in sizes.lines:
            _log.info("%s", line)
        self._stream.open(ANNOUNCE_S)
        self._reporting.announce(sizes.building)
        training = Training(self._run, self._device)
        if state is not None:
            restore(training.algorithm, state)
            _log.info("resumed: updates=%d env_steps=%d", state.counters.updates, state.counters.env_steps)
        return training

    def _finish(self) -> None:
        """Saves and reports the end; marks the run as finished if the budget is used."""
        finished, algorithm = self.progress >= 1.0, self._training.algorithm
        if self._publication.started:
            self._publication.publish_last(algorithm, time.monotonic())
            if finished:
                self._saving.save_last_milestone(algorithm)
            self._save()
            self._stream.send(StatusRequest())
            self._reporting.write_metrics(self._training.losses)
            self._reporting.report_end(self._training.losses, finished=finished)
        if finished:
            self._directory.mark_finished()
