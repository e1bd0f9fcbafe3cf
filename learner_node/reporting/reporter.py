"""The reporter of a learner: LearnerReport messages, Prometheus metrics, log lines, metrics.jsonl, and warnings."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean

from common.process.monitoring.logs import WaitLog
from common.process.monitoring.metrics import software_version
from common.run.evaluations import ScheduledEvaluation, best_of
from common.run.run import Run
from common.spec import AgentsSpec
from common.wire.messages import MAX_TEXT_CHARACTERS, MAX_WARNINGS, EvaluationReport, LearnerReport, Status
from learner_node.persistence.saver import Saver
from learner_node.replay.replay_client import ReplayClient
from learner_node.replay.replay_session import SampledBatch
from learner_node.reporting.metrics import Metrics
from learner_node.reporting.metrics_log import MetricsLog
from learner_node.run_checks.inputs import InputMonitor, remark_key
from learner_node.run_checks.warm_up import InsertRate, beyond_budget, ended_too_early, forecast
from learner_node.timing import schedule
from learner_node.timing.clocks import BudgetClock, UpdateRate
from learner_node.update.update_stats import Losses

MIN_EPISODES = 100
"""Finished episodes a worker before their mean length is used. It includes the steps of unfinished episodes, which
matter less the more episodes have finished."""
CONFIRM_TIMEOUT_S = 5.0
"""Longest wait for the replay servers' confirmation that the run is finished [s]."""

_log = logging.getLogger(__name__)


class Reporter:
    """Reports on one run. All times are monotonic seconds."""

    def __init__(
        self,
        run: Run,
        learner: str,
        saver: Saver,
        replay: ReplayClient,
        metrics: Metrics,
        *,
        metrics_log: MetricsLog,
        budget_clock: BudgetClock,
        wait: WaitLog,
        evaluations: Sequence[ScheduledEvaluation] = (),
    ) -> None:
        """learner: this learner's name. budget_clock, wait: the loop's, whose state is reported.

        evaluations: those of the run so far.
        """
        self._run, self._learner = run, learner
        self._saver, self._counters = saver, saver.counters
        self._replay, self._metrics, self._metrics_log = replay, metrics, metrics_log
        self._budget_clock, self._wait = budget_clock, wait
        self._input_monitor = InputMonitor(run, self._counters.reward_size)
        self._rate, self._insert_rate = UpdateRate(), InsertRate()
        self._activity = ""
        """The learner's activity before its updates, as text; empty while it updates."""
        self._warning = ""
        self._newest = evaluations[-1] if evaluations else None
        self._best = best_of(evaluations)
        self._logged_remarks: set[str] = set()
        """Keys of the remarks on inputs that were logged."""

    # ---- events ---------------------------------------------------------------------------------------------------

    def announce(self, activity: str) -> None:
        """Reports an activity during which the learner cannot report, in the log and to the replay servers."""
        self._activity = activity
        _log.info("%s", activity)
        self._replay.send(self._report(None, finished=False))

    def resumed(self, first_version: int) -> None:
        """Sets the version of the first weights after a resume, which separates old transitions from new ones."""
        self._input_monitor.resumed(first_version)

    def before_update(self) -> None:
        """Announces the first update, which takes longer than the others."""
        if self._activity:
            self.announce("first update" if not self._counters.updates else "first update after the resume")
            self._activity = ""

    def observe_batch(self, batch: SampledBatch, now: float) -> None:
        """Measures the observations and rewards of a batch, if a measurement is due."""
        if self._input_monitor.is_due(now):
            self._input_monitor.observe(batch.records.numpy(), now)
            self._counters.reward_size = self._input_monitor.reward_size or self._counters.reward_size

    def observe_evaluation(self, found: ScheduledEvaluation) -> None:
        """Writes, logs and reports the result of an evaluation while the run trains."""
        self._newest, self._best = found, best_of(filter(None, (self._best, found)))
        counters = self._counters
        self._metrics_log.write_evaluation(found, updates=counters.updates, env_steps=counters.env_steps)
        self._metrics.observe_evaluation(found.return_mean, found.seconds)
        _log.info(
            "evaluation return=%.2f env_steps=%d updates=%d episodes=%d seconds=%.1f",
            found.return_mean,
            found.env_steps,
            found.updates,
            found.episodes,
            found.seconds,
        )

    # ---- reports --------------------------------------------------------------------------------------------------

    def report(self, losses: Losses | None, now: float) -> None:
        """Reports to the replay servers and Prometheus."""
        self._rate.observe(self._counters.updates, now)
        self._observe_warm_up(now)
        self._replay.send(self._report(losses, finished=False))

    def write_metrics(self, losses: Losses | None) -> None:
        """Writes a line of metrics.jsonl and logs new remarks on inputs; does nothing before the first losses."""
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
        self._input_monitor.observe_norms(losses.critic_gradient_norm)
        self._input_monitor.episode_steps = episode_steps(self._replay.status)
        values["episode_steps"] = self._input_monitor.episode_steps or math.nan
        values["reward_change"] = self._input_monitor.reward_change or math.nan
        inputs = asdict(self._input_monitor.stats) if self._input_monitor.stats else {}
        self._metrics_log.write(counters.updates, {**values, **inputs}, losses, self._replay.status)
        for remark in self._input_monitor.remarks():
            # Log a remark once, although its numbers change.
            if (key := remark_key(remark)) not in self._logged_remarks:
                self._logged_remarks.add(key)
                _log.warning("%s", remark)

    def log_progress(self) -> None:
        """Logs the progress of the run."""
        if self._activity:
            _log.info("%s", self._activity)
        counters, status = self._counters, self._replay.status
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
        report = self._report(losses, finished=finished)
        if not finished:
            self._replay.send(report)
        elif not self._replay.report_finished(report, CONFIRM_TIMEOUT_S):
            _log.warning(
                "the replay server has not confirmed the end of the run within %.0f s; if it refuses another run, start"
                " that run's learner with --fresh",
                CONFIRM_TIMEOUT_S,
            )
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
        status, counters, spec = self._replay.status, self._counters, self._run.spec
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
            # Keep the first text: its numbers change each second, and users would see each new text as a new warning.
            self._warning = warning
        if not warning:
            self._warning = ""

    def _report(self, losses: Losses | None, *, finished: bool) -> LearnerReport:
        counters = self._counters
        progress = counters.progress(self._run.spec.budget)
        self._metrics.observe(losses, progress, self._replay.rejected)
        self._metrics.observe_inputs(self._input_monitor.stats, self._run.spec.algorithm.reward_scale)
        saved_at = self._saver.saved_at
        warnings = [self._warning, *self._input_monitor.remarks()]
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
            paused=self._budget_clock.paused,
            evaluation=self._evaluation_report(),
            warnings=tuple(text[:MAX_TEXT_CHARACTERS] for text in warnings if text)[:MAX_WARNINGS],
        )

    def _evaluation_report(self) -> EvaluationReport | None:
        newest, best = self._newest, self._best
        if newest is None or best is None:
            return None
        return EvaluationReport(
            newest.env_steps,
            newest.episodes,
            newest.return_mean,
            side_returns(self._run.joint, newest.return_per_agent),
            best.return_mean,
            best.env_steps,
        )


def side_returns(agents: AgentsSpec, return_per_agent: Mapping[str, float]) -> dict[str, float]:
    """Returns the return of each side, summed over its agents; empty in a world with one side."""
    sides = agents.sides if len(agents.sides) > 1 else ()
    return {side: sum(return_per_agent[agent.name] for agent in agents.agents if agent.team == side) for side in sides}


def episode_steps(status: Status | None) -> float | None:
    """Returns the mean length of the actors' episodes so far; None while too few have ended."""
    if status is None or not status.actors:
        return None
    episodes = sum(actor.episodes for actor in status.actors)
    if episodes < MIN_EPISODES * len(status.actors):
        return None
    return sum(actor.env_steps for actor in status.actors) / episodes
