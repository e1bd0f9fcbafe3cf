"""Reports of a learner: LearnerReport messages, log lines, metrics.jsonl, the progress of the warm-up, and warnings."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict
from statistics import fmean

from common.process.logs import WaitLog
from common.process.metrics import software_version
from common.run.run import Run
from common.wire.messages import MAX_TEXT_CHARACTERS, MAX_WARNINGS, LearnerReport, Status
from learner_node import schedule
from learner_node.batches import Batches
from learner_node.clocks import RunClock, UpdateRate
from learner_node.persistence.saving import Saving
from learner_node.replay_session import SampledBatch
from learner_node.reporting.metrics import Metrics
from learner_node.reporting.metrics_log import MetricsLog
from learner_node.run_checks.inputs import InputStats, first_words
from learner_node.run_checks.warm_up import InsertRate, beyond_budget, ended_too_early, forecast
from learner_node.stacked.update_stats import Losses

FEWEST_EPISODES = 100
"""Finished episodes a worker before their mean length is used: episodes in progress count as steps."""

_log = logging.getLogger(__name__)


class Reporting:
    """Reports on one run. All times are monotonic seconds."""

    def __init__(
        self,
        run: Run,
        learner: str,
        saving: Saving,
        stream: Batches,
        metrics: Metrics,
        *,
        metrics_log: MetricsLog,
        clock: RunClock,
        wait: WaitLog,
    ) -> None:
        """learner: this learner's name. clock, wait: those of the loop, whose state is reported."""
        self._run, self._learner = run, learner
        self._saving, self._counters = saving, saving.counters
        self._stream, self._metrics, self._metrics_log = stream, metrics, metrics_log
        self._clock, self._wait = clock, wait
        self._inputs = InputStats(run, self._counters.reward_size)
        self._rate, self._insert_rate = UpdateRate(), InsertRate()
        self._activity = ""
        """What the learner does before its updates; empty while it updates."""
        self._warning = ""
        self._logged_remarks: set[str] = set()
        """The remarks on inputs that the log has, by their first words."""

    # ---- events ---------------------------------------------------------------------------------------------------

    def announce(self, activity: str) -> None:
        """Reports an activity during which the learner cannot report, in the log and to the replay servers."""
        self._activity = activity
        _log.info("%s", activity)
        self._stream.send(self._report(None, finished=False))

    def resumed(self, first_version: int) -> None:
        """Takes the version of the first weights after a resume, to tell old transitions from new ones."""
        self._inputs.resumed(first_version)

    def before_update(self) -> None:
        """Announces the first update, which takes longer than the others."""
        if self._activity:
            self.announce("first update" if not self._counters.updates else "first update after the resume")
            self._activity = ""

    def observe_batch(self, batch: SampledBatch, now: float) -> None:
        """Measures the observations and rewards of a batch, if that is due."""
        if self._inputs.is_due(now):
            self._inputs.observe(batch.words.numpy(), now)
            self._counters.reward_size = self._inputs.reward_size or self._counters.reward_size

    # ---- reports --------------------------------------------------------------------------------------------------

    def report(self, losses: Losses | None, now: float) -> None:
        """Reports to the replay servers and Prometheus."""
        self._rate.observe(self._counters.updates, now)
        self._observe_warm_up(now)
        self._stream.send(self._report(losses, finished=False))

    def write_metrics(self, losses: Losses | None) -> None:
        """Writes a line of metrics.jsonl, and new remarks on inputs to the log; nothing before the first losses."""
        if losses is None:
            return
        counters, spec = self._counters, self._run.spec
        progress = counters.progress(spec.budget)
        values = {
            "trained_s": round(counters.trained_s, 2),
            "updating_s": round(counters.updating_s, 2),
            "env_steps": counters.env_steps,
            "updates_per_s": self._rate.value,
            "progress": progress,
            "exploration_scale": schedule.exploration_scale(spec.exploration, progress, counters.env_steps),
        }
        self._inputs.observe_norms(losses.critic_gradient_norm)
        self._inputs.episode_steps = episode_steps(self._stream.status)
        values["episode_steps"] = self._inputs.episode_steps or math.nan
        values["reward_change"] = self._inputs.reward_change or math.nan
        inputs = asdict(self._inputs.figures) if self._inputs.figures else {}
        self._metrics_log.write(counters.updates, {**values, **inputs}, losses, self._stream.status)
        for remark in self._inputs.remarks():
            # The numbers of a remark may change, its subject does not.
            if (subject := first_words(remark)) not in self._logged_remarks:
                self._logged_remarks.add(subject)
                _log.warning("%s", remark)

    def log_progress(self) -> None:
        """Logs the progress of the run."""
        if self._activity:
            _log.info("%s", self._activity)
        counters, status = self._counters, self._stream.status
        if not counters.updates:
            return
        return_mean = status.return_mean if status else math.nan
        _log.info(
            "progress=%.0f%% updates=%d (%.0f/s) env_steps=%d return=%s",
            100 * counters.progress(self._run.spec.budget),
            counters.updates,
            self._rate.value,
            counters.env_steps,
            "none yet" if math.isnan(return_mean) else f"{return_mean:.2f}",
        )

    def report_end(self, losses: Losses | None, *, finished: bool) -> None:
        """Reports the end of the run (finished) or of this process, with a warning if the run did no update."""
        counters = self._counters
        if finished and not counters.updates:
            self._warning = ended_too_early(self._run.spec)
            _log.warning("%s", self._warning)
        self._stream.send(self._report(losses, finished=finished))
        _log.info(
            "%s after %d updates, %d environment steps, %.0f s",
            "finished" if finished else "stopped",
            counters.updates,
            counters.env_steps,
            counters.trained_s,
        )

    def close(self) -> None:
        """Closes the metrics log."""
        self._metrics_log.close()

    # ---- parts ----------------------------------------------------------------------------------------------------

    def _observe_warm_up(self, now: float) -> None:
        """Updates the forecast of the warm-up, and the warning if the budget ends before it."""
        status, counters, spec = self._stream.status, self._counters, self._run.spec
        if status is None or (counters.updates and not self._activity):
            self._warning = ""
            return
        collecting = any(not (actor.waiting_for or actor.doing.startswith("making")) for actor in status.actors)
        self._insert_rate.observe(status.inserts, now, collecting=collecting)
        rate = self._insert_rate.value
        self._activity = forecast(spec, status.size, rate)
        warning = beyond_budget(spec, status.size, counters.env_steps, counters.trained_s, rate)
        if warning and not self._warning:
            _log.warning("%s", warning)
            # The first text stays: its numbers change each second, and each new text would be shown as a new warning.
            self._warning = warning
        if not warning:
            self._warning = ""

    def _report(self, losses: Losses | None, *, finished: bool) -> LearnerReport:
        counters = self._counters
        progress = counters.progress(self._run.spec.budget)
        self._metrics.observe(losses, progress, self._stream.rejected)
        self._metrics.observe_inputs(self._inputs.figures, self._run.spec.algorithm.reward_scale)
        saved_at = self._saving.saved_at
        warnings = [self._warning, *self._inputs.remarks()]
        return LearnerReport(
            learner=self._learner,
            updates=counters.updates,
            updates_per_s=self._rate.value,
            weights_version=counters.weights_version,
            progress=progress,
            critic_loss=fmean(losses.critic_loss) if losses else math.nan,
            policy_loss=fmean(losses.policy_loss) if losses else math.nan,
            waiting_for=self._wait.reason,
            waited_s=self._wait.total_s,
            last_checkpoint_s=time.monotonic() - saved_at if saved_at is not None else -1.0,
            finished=finished,
            metrics_url=self._metrics.url,
            software=software_version(),
            trained_s=counters.trained_s,
            doing=self._activity,
            paused=self._clock.paused,
            warnings=tuple(text[:MAX_TEXT_CHARACTERS] for text in warnings if text)[:MAX_WARNINGS],
        )


def episode_steps(status: Status | None) -> float | None:
    """Returns the mean length of the actors' episodes so far; None while too few have ended."""
    if status is None or not status.actors:
        return None
    episodes = sum(actor.episodes for actor in status.actors)
    if episodes < FEWEST_EPISODES * len(status.actors):
        return None
    return sum(actor.env_steps for actor in status.actors) / episodes
