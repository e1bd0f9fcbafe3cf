"""The learner's loop: takes a batch and updates until the budget is used, and publishes, reports and saves in between.

    replay --Batch--> ShardedReplayClient --SampledBatch--> Trainer.update
                                        |--every 200 ms--> WeightsPublisher --> Broadcast --> actors, replay
                                        |--every 1 s-----> Reporter --LearnerReport--> replay
                                        |--every 2 s-----> Reporter --> metrics.jsonl, TensorBoard
                                        |--every 20 s----> Saver --> checkpoints, policy.safetensors
                                        |--every `budget.milestone_steps`--> Saver --> milestones
                                        |--`evaluation.times` a run--> Evaluations --> Reporter --> evaluations.jsonl

| waits for                                                          | freed by                                    |
|--------------------------------------------------------------------|---------------------------------------------|
| a batch                                                            | the replay server; `waiting_for` has the reason |
| the first answer of a replay server, before the networks are built | the answer, or 1 s                          |
| the last evaluation, after the budget is used                      | its figures, its time limit, or a stop      |
| the replay servers' confirmation that the run is finished          | their status, or 5 s                        |

The learner has no other wait. It publishes, reports and saves between two updates, in one thread.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from common.errors import PeerError
from common.process.monitoring.health import Health
from common.process.monitoring.logs import WaitLog
from common.process.stop import Stop
from common.run.directory import RunDirectory
from common.run.evaluations import read_evaluations
from common.run.run import Run
from common.wire.keys import load_keys
from common.wire.messages import StatusRequest
from learner_node.config import LearnerConfig
from learner_node.devices import Device
from learner_node.evaluation.evaluations import Evaluations
from learner_node.persistence.saver import BeforeSaving, Saver
from learner_node.persistence.start import start_from
from learner_node.persistence.state import Counters, TrainingState, restore_state
from learner_node.publishing.broadcast import WeightsSender
from learner_node.publishing.weights_publisher import WeightsPublisher
from learner_node.replay.replay_client import ReplayClient, ShardedReplayClient
from learner_node.replay.replay_session import SampledBatch
from learner_node.reporting.metrics import Metrics
from learner_node.reporting.metrics_log import MetricsLog
from learner_node.reporting.reporter import Reporter
from learner_node.reporting.trackers import open_tracker
from learner_node.run_checks.refused_weights import RefusedWeights
from learner_node.run_checks.sizes import sizes_of
from learner_node.timing.clocks import BudgetClock, Timer
from learner_node.trainer import Trainer

MAX_BATCH_WAIT_S = 0.1
REPORT_PERIOD_S = 1.0
LOG_PERIOD_S = 2.0
PROGRESS_PERIOD_S = 10.0
ANNOUNCE_TIMEOUT_S = 1.0
"""Longest wait for a replay server before the networks are built [s]. The server then shows the build in its status."""

MakeReplayClient = Callable[[Counters], ReplayClient]
"""Returns the client of a learner, from the counters of the run that it resumes."""

_log = logging.getLogger(__name__)


class PeriodicAction(NamedTuple):
    """Work that the loop does between updates. `is_due` and `run` receive the monotonic time."""

    is_due: Callable[[float], bool]
    run: Callable[[float], object]


class Learner:
    """The training of one run, continued from its newest checkpoint.

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
        broadcast: WeightsSender,
        make_replay_client: MakeReplayClient | None = None,
        before_saving: BeforeSaving | None = None,
        fixed_episodes: bool = False,
    ) -> None:
        """Loads the newest checkpoint, connects to the replay servers, and builds the networks.

        ShoalError if there are checkpoints and none can be read; ConfigError if an address is not valid.
        make_replay_client: makes the client, if batches do not come from replay servers. before_saving: called before
        each checkpoint. fixed_episodes: whether evaluations play a number of episodes that no clock determines.
        """
        self._run, self._directory, self._config, self._device = run, directory, config, device
        self.metrics = metrics
        self._name = f"learner-{secrets.token_hex(3)}"
        self._saver, self._before_saving = Saver(run, directory, config.keep_checkpoints, metrics), before_saving
        self.counters = self._saver.counters
        metrics_log = MetricsLog(directory, run, open_tracker(config.track, run, directory))
        started_at = time.monotonic()
        self._wait, self._budget_clock = WaitLog(_log), BudgetClock(self.counters.env_steps, started_at)
        self._refused_weights = RefusedWeights()
        # Connect before the networks are built, which may take a minute: replay servers report the build to users.
        self._replay = (make_replay_client or self._connect)(self.counters)
        self._publisher = WeightsPublisher(run, self.counters, broadcast, self._replay, metrics)
        self._reporter = Reporter(
            run,
            self._name,
            self._saver,
            self._replay,
            metrics,
            metrics_log=metrics_log,
            budget_clock=self._budget_clock,
            wait=self._wait,
            evaluations=read_evaluations(directory.evaluations_file),
        )
        self._evaluations = Evaluations(
            run, self.counters, self._reporter.observe_evaluation, fixed_episodes=fixed_episodes
        )
        try:
            self._trainer = self._build(self._saver.loaded)
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

        def keep_waiting() -> bool:
            health.beat()
            return not stop.requested

        self._keep_waiting = keep_waiting
        started_at = time.monotonic()
        if self.progress >= 1.0:
            _log.warning("the budget is used already; resume with a larger --steps or --time to continue")
        iteration_started_at = started_at
        # Time before the loop, such as the build of the networks, is not charged to the budget.
        self._budget_clock.charge(started_at, env_steps=self.counters.env_steps, trained=False, absent="")
        while not stop.requested and self.progress < 1.0:
            batch = self._replay.next(MAX_BATCH_WAIT_S)
            now = time.monotonic()
            self.metrics.waiting_seconds.inc(now - iteration_started_at)
            if batch is None:
                self._note_wait(now, started_at)
            else:
                self._wait.done(now)
                self._update(batch)
            health.beat()
            health.not_ready = "" if self._publisher.started else self._replay.waiting_for
            self._run_periodic_actions(now)
            ended_at = time.monotonic()
            self.counters.updating_s += ended_at - iteration_started_at if batch is not None else 0.0
            iteration_started_at = ended_at
            self._charge(ended_at, trained=batch is not None)
        self._finish()

    def close(self) -> None:
        """Closes files and sockets, and ends the process of evaluations."""
        self._evaluations.close()
        self._replay.close()
        self._reporter.close()

    def _update(self, batch: SampledBatch) -> None:
        """Updates the networks on one batch, and counts, reports and measures the update."""
        started_at = time.perf_counter()
        counters = self.counters
        self._reporter.before_update()
        counters.env_steps = max(counters.env_steps, self._replay.env_steps)
        now = time.monotonic()
        self._reporter.observe_batch(batch, now)
        stats = self._trainer.update(batch, counters.updates, self.progress, now)
        if batch.probabilities is not None:
            self._replay.update_priorities(batch, stats.abs_td_error)
        counters.updates += 1
        samples = self._run.spec.replay.batch
        counters.samples += samples
        self.metrics.updates.inc()
        self.metrics.samples.inc(samples)
        self.metrics.update_seconds.observe(time.perf_counter() - started_at)
        self.metrics.last_update.set_to_current_time()

    def _note_wait(self, now: float, started_at: float) -> None:
        """Logs a wait for a batch; PeerError if no replay server accepted this learner within `--peer-timeout`."""
        self._wait.waiting(self._replay.waiting_for, now)
        if not self._replay.opened and 0 < self._config.peer_timeout < now - started_at:
            raise PeerError(
                f"waited {now - started_at:.0f} s for {self._replay.waiting_for}; check that it runs and that --replay"
                " is right"
            )

    def _charge(self, now: float, *, trained: bool) -> None:
        """Charges the time since the last call to the budget, except while a peer is absent."""
        was_paused = self._budget_clock.paused
        self.counters.trained_s += self._budget_clock.charge(
            now, env_steps=self._replay.env_steps, trained=trained, absent=self._replay.absent
        )
        if self._budget_clock.paused and not was_paused:
            _log.warning("time is not charged to the budget: waiting for %s", self._budget_clock.paused)
        if was_paused and not self._budget_clock.paused:
            _log.info("time is charged to the budget again")

    # ---- between updates ------------------------------------------------------------------------------------------

    def _make_periodic_actions(self, now: float) -> tuple[PeriodicAction, ...]:
        """Returns the work between updates, in the order in which the loop does it."""
        return (
            PeriodicAction(self._publisher.is_due, self._publish),
            PeriodicAction(Timer(REPORT_PERIOD_S, now).is_due, self._report),
            PeriodicAction(Timer(LOG_PERIOD_S, now).is_due, self._write_metrics),
            PeriodicAction(Timer(PROGRESS_PERIOD_S, now).is_due, lambda _: self._reporter.log_progress()),
            PeriodicAction(lambda _: self._saver.is_milestone_due(), self._save_milestone),
            PeriodicAction(lambda _: True, self._evaluate),
            PeriodicAction(Timer(self._config.checkpoint_every, now).is_due, self._save_if_trained),
        )

    def _run_periodic_actions(self, now: float) -> None:
        if not self._publisher.started:
            if not self._replay.opened:
                return
            self._start_publication()
        self.counters.env_steps = max(self.counters.env_steps, self._replay.env_steps)
        for action in self._periodic_actions:
            if action.is_due(now):
                action.run(now)

    def _start_publication(self) -> None:
        # Versions published since the last checkpoint may be unknown: the first one skips all that fit in a period.
        first_version = self._publisher.start(self._config.checkpoint_every)
        if self.counters.updates:
            self._reporter.resumed(first_version)

    def _publish(self, now: float) -> None:
        self._publisher.publish(self._trainer.engine, now)

    def _report(self, now: float) -> None:
        self._reporter.report(self._trainer.losses, now)
        self._replay.send(StatusRequest())
        self._refused_weights.check(self._replay.statuses, now)

    def _write_metrics(self, _now: float) -> None:
        self._reporter.write_metrics(self._trainer.losses)

    def _save_milestone(self, _now: float) -> None:
        self._saver.save_milestone(self._trainer.engine)

    def _evaluate(self, _now: float) -> None:
        self._evaluations.advance(self._trainer.engine.policy_weights, self._keep_waiting)

    def _save_if_trained(self, _now: float) -> None:
        # Save during the warm-up too: a crash must not lose the time charged to the budget.
        if self.counters.trained_s:
            self._save()

    def _save(self) -> None:
        self._saver.save(self._trainer.engine, self._replay.status, self._before_saving)

    # ---- start and end --------------------------------------------------------------------------------------------

    def _connect(self, counters: Counters) -> ReplayClient:
        config, pin = self._config, self._device.is_gpu
        return ShardedReplayClient(
            self._run,
            self._name,
            config.replay,
            config.prefetch,
            pin=pin,
            inserts=counters.env_steps,
            samples=counters.samples,
            fresh=config.fresh,
            keys=load_keys(config.keys),
        )

    def _build(self, state: TrainingState | None) -> Trainer:
        """Makes the networks and restores the state of a checkpoint, if any."""
        sizes = sizes_of(self._run.spec, self._run.joint)
        for line in sizes.lines:
            _log.info("%s", line)
        self._replay.open(ANNOUNCE_TIMEOUT_S)
        self._reporter.announce(sizes.building)
        trainer = Trainer(self._run, self._device)
        if state is not None:
            restore_state(trainer.engine, state)
            _log.info("resumed: updates=%d env_steps=%d", state.counters.updates, state.counters.env_steps)
        elif self._run.spec.start_from:
            start_from(trainer.engine, self._run)
            _log.info("networks of %s", self._run.spec.start_from)
        return trainer

    def _finish(self) -> None:
        """Publishes, saves, evaluates and reports a last time; marks the run as finished if the budget is used."""
        finished, engine = self.progress >= 1.0, self._trainer.engine
        if self._publisher.started:
            self._publisher.publish_last(engine, time.monotonic())
            if finished:
                self._saver.save_last_milestone(engine)
            self._save()
            self._replay.send(StatusRequest())
            self._reporter.write_metrics(self._trainer.losses)
            if finished:
                self._evaluations.finish(engine.policy_weights, self._keep_waiting)
        if self._publisher.started or finished:
            self._reporter.report_end(self._trainer.losses, finished=finished)
        if finished:
            self._directory.mark_finished()
