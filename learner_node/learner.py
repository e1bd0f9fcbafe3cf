"""The loop: takes batches, updates, publishes weights, keeps checkpoints; until the budget is used.

    replay --Batch--> BatchStream --Records--> Maddpg.update --every 200 ms--> Broadcast --> actors, replay
                                                     |--every 2 s--> Logbook
                                                     |--every 20 s--> Checkpoints, policy.safetensors
                                                     |--every so many environment steps--> Milestones

| waits for | frees it                                                           |
|-----------|--------------------------------------------------------------------|
| a batch   | the replay server; why none comes is the stream's `waiting_for`    |

Nothing else is waited for: what is published, logged or saved is done between two updates.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable
from statistics import fmean

from common.errors import PeerError, ShoalError
from common.keys import load_keys
from common.messages import LearnerReport, StatusRequest
from common.policy_file import PolicyFile, save_policy
from common.process import Health, Stop, WaitLog
from common.run import Run
from common.run_directory import RunDirectory
from common.vitals import software_version
from common.weights import WeightsHeader
from learner_node import schedule
from learner_node.batches import Batches, BatchStream
from learner_node.broadcast import Publisher
from learner_node.checkpoints import Checkpoints
from learner_node.clocks import Due, UpdateRate
from learner_node.config import LearnerConfig
from learner_node.devices import Device
from learner_node.logbook import Logbook
from learner_node.metrics import Metrics
from learner_node.milestones import Milestones
from learner_node.refused_weights import RefusedWeights
from learner_node.source import Records
from learner_node.state import Counters, TrainingState, capture, restore
from learner_node.trackers import open_tracker
from learner_node.training import Training

WAIT_S = 0.1
REPORT_PERIOD_S = 1.0
LOG_PERIOD_S = 2.0
SAY_PERIOD_S = 10.0

OpenStream = Callable[[Counters], Batches]
"""Makes what brings a learner's batches, from where its run stands."""

_log = logging.getLogger(__name__)


class Learner:
    """One run's training, from the newest checkpoint on."""

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
        before_saving: Callable[[Counters], object] | None = None,
    ) -> None:
        """Loads the newest checkpoint and connects; ShoalError when no checkpoint can be read or an address is none.

        open_stream: for batches that do not come from replay servers. before_saving: called before each checkpoint.
        """
        self._run, self._directory, self._config, self._device = run, directory, config, device
        self._training = Training(run, device)
        self._checkpoints = Checkpoints(directory.checkpoints, config.keep_checkpoints)
        self._done = self._restore()
        self._milestones = Milestones(run, directory, self._done)
        self._name = f"learner-{secrets.token_hex(3)}"
        self._stream = (open_stream or self._connect)(self._done)
        self._before_saving = before_saving
        self.metrics, self._broadcast = metrics, broadcast
        self._logbook = Logbook(directory, open_tracker(config.track, run, directory))
        self._wait = WaitLog(_log)
        self._introduced = False
        """Whether a replay server has taken this learner in: from then on it publishes."""
        self._rate = UpdateRate()
        self._refused = RefusedWeights()
        now = time.monotonic()
        self._report_due, self._log_due = Due(REPORT_PERIOD_S, now), Due(LOG_PERIOD_S, now)
        self._checkpoint_due = Due(config.checkpoint_every, now)
        self._say_due = Due(SAY_PERIOD_S, now)
        self._saved_at: float | None = None

    @property
    def progress(self) -> float:
        """Share of the budget used, 0 to 1."""
        return schedule.progress(self._run.spec.budget, self._done.env_steps, self._done.trained_s)

    def run(self, stop: Stop, health: Health) -> None:
        """Trains until the budget is used or a stop is asked for, then saves."""
        born_at = time.monotonic()
        if self.progress >= 1.0:
            _log.warning("the budget is used already; resume with a larger --steps or --time to train on")
        turned_at = born_at
        while not stop.requested and self.progress < 1.0:
            records = self._stream.next(WAIT_S)
            now = time.monotonic()
            self.metrics.waiting_seconds.inc(now - turned_at)
            if records is None:
                self._note_wait(now, born_at)
            else:
                self._wait.done(now)
                self._learn(records)
            health.beat()
            health.not_ready = "" if self._introduced else self._stream.waiting_for
            self._do_what_is_due(now)
            ended_at = time.monotonic()
            if records is not None:
                # Waiting for actors, for the replay or for Redis is no training: the budget is for learning.
                self._done.trained_s += ended_at - turned_at
            turned_at = ended_at
        self._finish()

    def _connect(self, done: Counters) -> Batches:
        config, pin = self._config, self._device.is_gpu
        clock, keys = (done.env_steps, done.samples), load_keys(config.keys)
        return BatchStream(self._run, self._name, config.replay, config.prefetch, pin=pin, clock=clock, keys=keys)

    def close(self) -> None:
        """Closes files and sockets."""
        self._stream.close()
        self._logbook.close()

    def _note_wait(self, now: float, born_at: float) -> None:
        self._wait.waiting(self._stream.waiting_for, now)
        if not self._stream.opened and 0 < self._config.peer_timeout < now - born_at:
            raise PeerError(f"waited {now - born_at:.0f} s for {self._stream.waiting_for}; is it running?")

    # ---- learning -------------------------------------------------------------------------------------------------

    def _learn(self, records: Records) -> None:
        started_at = time.perf_counter()
        done = self._done
        done.env_steps = max(done.env_steps, self._stream.env_steps)
        measured = self._training.learn(records, done.updates, self.progress, time.monotonic())
        if records.probabilities is not None:
            self._stream.prioritise(records, measured.td_error)
        done.updates += 1
        done.samples += len(records.words)
        self.metrics.updates.inc()
        self.metrics.samples.inc(len(records.words))
        self.metrics.update_seconds.observe(time.perf_counter() - started_at)
        self.metrics.last_update.set_to_current_time()

    # ---- what is done between updates -----------------------------------------------------------------------------

    def _do_what_is_due(self, now: float) -> None:
        if not self._introduced:
            if not self._stream.opened:
                return
            self._continue_versions()
        self._done.env_steps = max(self._done.env_steps, self._stream.env_steps)
        if self._broadcast.is_due(self._done.updates, now):
            self._publish(now)
        if self._report_due(now):
            self._rate.observe(self._done.updates, now)
            self._stream.send(self._report(finished=False))
            self._stream.send(StatusRequest())
            self._refused.check(self._stream.statuses, now)
        if self._log_due(now):
            self._write_log()
        if self._say_due(now) and self._done.updates:
            self._say()
        if self._milestones.is_due(self._done.env_steps):
            self._milestones.take(self._capture(), self._training.algorithm.policy_weights())
        if self._checkpoint_due(now) and self._done.updates:
            self._save()

    def _continue_versions(self) -> None:
        self._introduced = True
        remembered = self._stream.weights_version
        version = self._broadcast.first_version(self._done.weights_version, remembered, self._config.checkpoint_every)
        self._done.weights_version = version - 1

    def _publish(self, now: float) -> None:
        done, exploration = self._done, self._run.spec.exploration
        done.weights_version += 1
        header = WeightsHeader(
            run=self._run.id,
            data_hash=self._run.data_hash,
            version=done.weights_version,
            updates=done.updates,
            exploration_scale=schedule.exploration_scale(exploration, self.progress, done.env_steps),
            random_share=schedule.random_share(exploration, done.env_steps),
        )
        try:
            self._broadcast.send(header, self._training.algorithm.policy_weights(), self._stream, now)
        except ValueError as e:
            self._capture().check()
            raise ShoalError(f"weights {done.weights_version} cannot be published: {e}") from e
        self.metrics.weights_published.inc()
        self.metrics.weights_version.set(done.weights_version)

    def _report(self, *, finished: bool) -> LearnerReport:
        figures = self._training.figures
        self.metrics.observe(figures, self.progress, self._stream.rejected)
        return LearnerReport(
            learner=self._name,
            updates=self._done.updates,
            updates_per_s=self._rate.value,
            weights_version=self._done.weights_version,
            progress=self.progress,
            critic_loss=fmean(figures.critic_loss) if figures else math.nan,
            policy_loss=fmean(figures.policy_loss) if figures else math.nan,
            waiting_for=self._wait.reason,
            waited_s=self._wait.total_s,
            last_checkpoint_s=time.monotonic() - self._saved_at if self._saved_at is not None else -1.0,
            finished=finished,
            metrics_url=self.metrics.url,
            software=software_version(),
        )

    def _say(self) -> None:
        status = self._stream.status
        _log.info(
            "progress=%.0f%% updates=%d (%.0f/s) env_steps=%d return=%.2f",
            100 * self.progress,
            self._done.updates,
            self._rate.value,
            self._done.env_steps,
            status.return_mean if status else math.nan,
        )

    def _write_log(self) -> None:
        measured = self._training.figures
        if measured is None:
            return
        figures = {
            "trained_s": round(self._done.trained_s, 2),
            "env_steps": self._done.env_steps,
            "updates_per_s": self._rate.value,
            "progress": self.progress,
            "exploration_scale": schedule.exploration_scale(
                self._run.spec.exploration, self.progress, self._done.env_steps
            ),
        }
        self._logbook.write(self._done.updates, figures, measured, self._stream.status)

    # ---- checkpoints ----------------------------------------------------------------------------------------------

    def _restore(self) -> Counters:
        state = self._checkpoints.load()
        if state is None:
            return Counters()
        restore(self._training.algorithm, state)
        _log.info("goes on from %d updates, %d environment steps", state.counters.updates, state.counters.env_steps)
        return state.counters

    def _capture(self) -> TrainingState:
        return capture(self._training.algorithm, self._done)

    def _save(self) -> None:
        done, status = self._done, self._stream.status
        warmed_up = done.env_steps > self._run.spec.exploration.random_steps
        value = status.return_mean if status is not None and warmed_up else math.nan
        is_best = not math.isnan(value) and (done.best_return is None or value > done.best_return)
        if is_best:
            done.best_return = value
        if self._before_saving:
            self._before_saving(done)
        with self.metrics.checkpoint_seconds.time():
            path = self._checkpoints.save(self._capture(), best=is_best)
        flat = self._training.algorithm.policy_weights()
        save_policy(self._directory.policy_file, PolicyFile(self._run, done.weights_version, done.updates, flat))
        self.metrics.last_checkpoint.set_to_current_time()
        self._saved_at = time.monotonic()
        _log.info("saved %s", path.name)

    def _finish(self) -> None:
        finished = self.progress >= 1.0
        if self._introduced:
            self._conclude(finished=finished)
        if finished:
            self._directory.note_finished()

    def _conclude(self, *, finished: bool) -> None:
        if self._broadcast.is_due(self._done.updates, math.inf):
            self._publish(time.monotonic())
        if finished:
            self._milestones.conclude(self._capture(), self._training.algorithm.policy_weights())
        self._save()
        self._stream.send(StatusRequest())
        self._write_log()
        self._stream.send(self._report(finished=finished))
        done, how = self._done, "finished" if finished else "stopped"
        text = "%s after %d updates, %d environment steps, %.0f s of training"
        _log.info(text, how, done.updates, done.env_steps, done.trained_s)
