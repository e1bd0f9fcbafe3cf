"""The loop: takes batches, updates, publishes weights, keeps checkpoints; until the budget is used.

    replay --Batch--> BatchStream --Records--> Maddpg.update --every 200 ms--> Broadcast --> actors, replay
                                                     |--every 2 s--> MetricsLog
                                                     |--every 20 s--> Checkpoints, policy.safetensors
                                                     |--every so many environment steps--> Milestones

| waits for | frees it                                                           |
|-----------|--------------------------------------------------------------------|
| a batch   | the replay server; why none comes is the stream's `waiting_for`    |
| the first answer of a replay server, before the networks are built | the answer, or 1 s |

Nothing else is waited for: what is published, logged or saved is done between two updates.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict
from statistics import fmean

from common.errors import PeerError, ShoalError
from common.policy.file import PolicyFile, save_policy
from common.process.health import Health
from common.process.logs import WaitLog
from common.process.metrics import software_version
from common.process.stop import Stop
from common.run.directory import RunDirectory
from common.run.run import Run
from common.wire.keys import load_keys
from common.wire.messages import LONGEST_TEXT, MOST_WARNINGS, LearnerReport, Status, StatusRequest
from common.wire.weights import WeightsHeader
from learner_node import schedule
from learner_node.batches import Batches, BatchStream
from learner_node.broadcast import Publisher
from learner_node.checkpoints import Checkpoints
from learner_node.clocks import RunClock, Timer, UpdateRate
from learner_node.config import LearnerConfig
from learner_node.devices import Device
from learner_node.inputs import InputStats, first_words
from learner_node.metrics import Metrics
from learner_node.metrics_log import MetricsLog
from learner_node.milestones import Milestones
from learner_node.refused_weights import RefusedWeights
from learner_node.replay_session import SampledBatch
from learner_node.sizes import sizes_of
from learner_node.stacked.update_stats import Losses
from learner_node.state import Counters, TrainingState, capture, restore
from learner_node.trackers import open_tracker
from learner_node.trainer import Training
from learner_node.warm_up import InsertRate, beyond_budget, ended_too_early, forecast

WAIT_S = 0.1
REPORT_PERIOD_S = 1.0
LOG_PERIOD_S = 2.0
SAY_PERIOD_S = 10.0
ANNOUNCE_S = 1.0
"""Longest wait for a replay server that is told what the learner builds; what it builds does not depend on that."""
FEWEST_EPISODES = 100
"""That an actor's worker must have ended before their mean length is believed: those under way count as steps."""

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
        self._checkpoints = Checkpoints(directory.checkpoints, config.keep_checkpoints)
        state = self._checkpoints.load()
        self._done = state.counters if state else Counters()
        self._inputs = InputStats(run, self._done.reward_size)
        self._milestones = Milestones(run, directory, self._done)
        self._name = f"learner-{secrets.token_hex(3)}"
        self._before_saving = before_saving
        self.metrics, self._broadcast = metrics, broadcast
        self._logbook = MetricsLog(directory, open_tracker(config.track, run, directory))
        self._wait = WaitLog(_log)
        self._doing = self._warning = ""
        self._arrivals = InsertRate()
        self._clock = RunClock(self._done.env_steps, time.monotonic())
        self._remarked: set[str] = set()
        """What was remarked of inputs in the log, by its first words: once each."""
        self._introduced = False
        """Whether a replay server has taken this learner in: from then on it publishes."""
        self._rate = UpdateRate()
        self._refused = RefusedWeights()
        now = time.monotonic()
        self._report_due, self._log_due = Timer(REPORT_PERIOD_S, now), Timer(LOG_PERIOD_S, now)
        self._checkpoint_due = Timer(config.checkpoint_every, now)
        self._say_due = Timer(SAY_PERIOD_S, now)
        self._saved_at: float | None = None
        # Before the networks, whose building may take a minute: a replay server can tell others what goes on.
        self._stream = (open_stream or self._connect)(self._done)
        try:
            self._training = self._build(state)
        except BaseException:
            self.close()
            raise

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
        # What came before, such as building the networks, is no part of the budget.
        self._clock.charge(born_at, env_steps=self._done.env_steps, trained=False, absent="")
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
            self._done.updating_s += ended_at - turned_at if records is not None else 0.0
            turned_at = ended_at
            self._charge(ended_at, trained=records is not None)
        self._finish()

    def _charge(self, now: float, *, trained: bool) -> None:
        """Charges the time since the last call to the budget, unless a peer is gone."""
        paused = self._clock.paused
        self._done.trained_s += self._clock.charge(
            now, env_steps=self._stream.env_steps, trained=trained, absent=self._stream.absent
        )
        if self._clock.paused and not paused:
            _log.warning("time is not charged to the budget: waiting for %s", self._clock.paused)
        if paused and not self._clock.paused:
            _log.info("time is charged to the budget again")

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

    def _learn(self, records: SampledBatch) -> None:
        started_at = time.perf_counter()
        done = self._done
        if self._doing:
            self._tell("first update" if not done.updates else "first update after the resume")
            self._doing = ""
        done.env_steps = max(done.env_steps, self._stream.env_steps)
        now = time.monotonic()
        if self._inputs.is_due(now):
            self._look_at_inputs(records, now)
        measured = self._training.update(records, done.updates, self.progress, now)
        if records.probabilities is not None:
            self._stream.prioritise(records, measured.abs_td_error)
        done.updates += 1
        done.samples += len(records.words)
        self.metrics.updates.inc()
        self.metrics.samples.inc(len(records.words))
        self.metrics.update_seconds.observe(time.perf_counter() - started_at)
        self.metrics.last_update.set_to_current_time()

    def _look_at_inputs(self, records: SampledBatch, now: float) -> None:
        self._inputs.look(records.words.numpy(), now)
        self._done.reward_size = self._inputs.reward_size or self._done.reward_size

    # ---- what is done between updates -----------------------------------------------------------------------------

    def _do_what_is_due(self, now: float) -> None:
        if not self._introduced:
            if not self._stream.opened:
                return
            self._continue_versions()
        self._done.env_steps = max(self._done.env_steps, self._stream.env_steps)
        if self._broadcast.is_due(self._done.updates, now):
            self._publish(now)
        if self._report_due.is_due(now):
            self._rate.observe(self._done.updates, now)
            self._look_at_warm_up(now)
            self._stream.send(self._report(self._training.losses, finished=False))
            self._stream.send(StatusRequest())
            self._refused.check(self._stream.statuses, now)
        if self._log_due.is_due(now):
            self._write_log()
        if self._say_due.is_due(now):
            self._say()
        if self._milestones.is_due(self._done.env_steps):
            self._milestones.take(self._capture(), self._training.algorithm.policy_weights())
        if self._checkpoint_due.is_due(now) and self._done.trained_s:
            # Also during the warm-up: its time counts after a crash, too.
            self._save()

    def _continue_versions(self) -> None:
        self._introduced = True
        remembered = self._stream.weights_version
        version = self._broadcast.first_version(self._done.weights_version, remembered, self._config.checkpoint_every)
        self._done.weights_version = version - 1
        if self._done.updates:
            self._inputs.resumed(version)

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

    def _look_at_warm_up(self, now: float) -> None:
        """Notes how far the warm-up is and whether the budget has the time for it."""
        status = self._stream.status
        if status is None or (self._done.updates and not self._doing):
            self._warning = ""
            return
        spec, done = self._run.spec, self._done
        collecting = any(not (actor.waiting_for or actor.doing.startswith("making")) for actor in status.actors)
        self._arrivals.observe(status.inserts, now, collecting=collecting)
        rate = self._arrivals.value
        self._doing = forecast(spec, status.size, rate)
        warning = beyond_budget(spec, status.size, done.env_steps, done.trained_s, rate)
        if warning and not self._warning:
            _log.warning("%s", warning)
            # In the words of the first look: a text that changes each second would be said each second.
            self._warning = warning
        if not warning:
            self._warning = ""

    def _tell(self, doing: str) -> None:
        """Says what the learner does before it can say it again, in the log and to the replay servers."""
        self._doing = doing
        _log.info("%s", doing)
        self._stream.send(self._report(None, finished=False))

    def _report(self, figures: Losses | None, *, finished: bool) -> LearnerReport:
        self.metrics.observe(figures, self.progress, self._stream.rejected)
        self.metrics.observe_inputs(self._inputs.figures, self._run.spec.algorithm.reward_scale)
        remarks = [self._warning, *self._inputs.remarks()]
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
            trained_s=self._done.trained_s,
            doing=self._doing,
            paused=self._clock.paused,
            warnings=tuple(text[:LONGEST_TEXT] for text in remarks if text)[:MOST_WARNINGS],
        )

    def _say(self) -> None:
        if self._doing:
            _log.info("%s", self._doing)
        if not self._done.updates:
            return
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
        measured = self._training.losses
        if measured is None:
            return
        figures = {
            "trained_s": round(self._done.trained_s, 2),
            "updating_s": round(self._done.updating_s, 2),
            "env_steps": self._done.env_steps,
            "updates_per_s": self._rate.value,
            "progress": self.progress,
            "exploration_scale": schedule.exploration_scale(
                self._run.spec.exploration, self.progress, self._done.env_steps
            ),
        }
        self._inputs.note_norms(measured.critic_gradient_norm)
        self._inputs.episode_steps = episode_steps(self._stream.status)
        figures["episode_steps"] = self._inputs.episode_steps or math.nan
        figures["reward_change"] = self._inputs.reward_change or math.nan
        inputs = asdict(self._inputs.figures) if self._inputs.figures else {}
        self._logbook.write(self._done.updates, {**figures, **inputs}, measured, self._stream.status)
        for remark in self._inputs.remarks():
            # A figure in it may change; what it is about does not.
            if (about := first_words(remark)) not in self._remarked:
                self._remarked.add(about)
                _log.warning("%s", remark)

    # ---- checkpoints ----------------------------------------------------------------------------------------------

    def _build(self, state: TrainingState | None) -> Training:
        """Makes the networks, as they were in a checkpoint if there is one."""
        sizes = sizes_of(self._run.spec, self._run.joint)
        for line in sizes.lines:
            _log.info("%s", line)
        self._stream.open(ANNOUNCE_S)
        self._tell(sizes.building)
        training = Training(self._run, self._device)
        if state is not None:
            restore(training.algorithm, state)
            counters = state.counters
            _log.info("goes on from %d updates, %d environment steps", counters.updates, counters.env_steps)
        return training

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
            self._directory.mark_finished()

    def _conclude(self, *, finished: bool) -> None:
        if self._broadcast.is_due(self._done.updates, math.inf):
            self._publish(time.monotonic())
        if finished:
            self._milestones.conclude(self._capture(), self._training.algorithm.policy_weights())
        self._save()
        self._stream.send(StatusRequest())
        self._write_log()
        done, how = self._done, "finished" if finished else "stopped"
        if finished and not done.updates:
            self._warning = ended_too_early(self._run.spec)
            _log.warning("%s", self._warning)
        self._stream.send(self._report(self._training.losses, finished=finished))
        text = "%s after %d updates, %d environment steps, %.0f s"
        _log.info(text, how, done.updates, done.env_steps, done.trained_s)


def episode_steps(status: Status | None) -> float | None:
    """Returns the mean length of the actors' episodes so far; None while too few have ended."""
    if status is None or not status.actors:
        return None
    episodes = sum(actor.episodes for actor in status.actors)
    if episodes < FEWEST_EPISODES * len(status.actors):
        return None
    return sum(actor.env_steps for actor in status.actors) / episodes
