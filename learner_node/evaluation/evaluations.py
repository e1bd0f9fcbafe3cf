"""The evaluations of a run while it trains, as its learner's loop drives them: takes weights, starts, collects.

is due -> a copy of the weights -> fits into the time -> Evaluator -> on_result: log, metrics, report
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from common.run.evaluations import EvaluationRequest, ScheduledEvaluation
from common.run.run import Run
from common.worlds import REAL_MPE2, is_foreign
from learner_node.evaluation.evaluator import EvaluationOutcome, Evaluator
from learner_node.evaluation.schedule import MAX_FAILURES, EvaluationSchedule
from learner_node.persistence.state import Counters

AUTO_EPISODES = 500
"""Episodes of an evaluation in one of Shoal's own worlds."""
MAX_AUTO_EPISODES = 20
"""Largest number of episodes in any other world, in which the time limits their number."""
_POLL_PERIOD_S = 0.1

PolicyWeights = Callable[[], npt.NDArray[np.float32]]
"""Returns the current flat weights of all policies, as actors receive them."""

_log = logging.getLogger(__name__)


class Evaluations:
    """Evaluates the policies of one run while they train.

    Example:
        evaluations = Evaluations(run, counters, on_result=print)
        evaluations.advance(engine.policy_weights, keep_waiting=lambda: True)  # between any two updates
        evaluations.finish(engine.policy_weights, keep_waiting=lambda: True)
        evaluations.close()
    """

    def __init__(
        self,
        run: Run,
        counters: Counters,
        on_result: Callable[[ScheduledEvaluation], object],
        *,
        fixed_episodes: bool = False,
    ) -> None:
        """on_result: called with each result. fixed_episodes: never let the time limit the number of episodes."""
        self._run, self._counters, self._on_result = run, counters, on_result
        spec = run.spec.evaluation
        self._schedule = EvaluationSchedule(spec, counters.progress(run.spec.budget), counters.updates)
        self._episodes = _episodes(run, fixed=fixed_episodes)
        self._evaluator = Evaluator(run)
        self._taken: tuple[EvaluationRequest, npt.NDArray[np.float32]] | None = None
        """Weights whose evaluation has not started."""
        self._started_at = time.monotonic()
        self._logged_problems: set[str] = set()

    def advance(self, policy_weights: PolicyWeights, keep_waiting: Callable[[], bool]) -> None:
        """Collects a result, takes weights that are due, and starts their evaluation, without waiting.

        Waits for a running evaluation only if `evaluation.share_of_time` is 1 and the next one is due, and only while
        `keep_waiting` returns true.
        """
        if self._evaluator.busy:
            self._collect(self._evaluator.poll())
        if self._is_due:
            if self._schedule.is_unlimited:
                self._wait(keep_waiting)
            self._take(policy_weights)
        self._start()

    def finish(self, policy_weights: PolicyWeights, keep_waiting: Callable[[], bool]) -> None:
        """Waits for the running evaluation, then evaluates the final weights, if that fits into the time.

        Waits only while `keep_waiting` returns true.
        """
        self._wait(keep_waiting)
        if self._schedule.is_due(self._progress, self._counters.updates):
            self._take(policy_weights)
        self._start(last=True)
        self._wait(keep_waiting)

    def close(self) -> None:
        """Ends the process."""
        self._evaluator.close()

    @property
    def _is_due(self) -> bool:
        """Whether weights must be taken; not while those before the first update, the reference, wait."""
        waits = self._taken is not None and not self._taken[0].updates
        return not waits and self._schedule.is_due(self._progress, self._counters.updates)

    @property
    def _progress(self) -> float:
        return self._counters.progress(self._run.spec.budget)

    def _take(self, policy_weights: PolicyWeights) -> None:
        """Takes a copy of the weights, in place of an earlier one that was not evaluated."""
        self._schedule.note_taken(self._progress, self._counters.updates)
        counters, timing = self._counters, self._timing()
        request = EvaluationRequest(
            counters.env_steps,
            counters.updates,
            round(counters.trained_s, 2),
            self._episodes,
            self._schedule.within_s(*timing),
            MAX_AUTO_EPISODES,
        )
        self._taken = request, np.array(policy_weights(), np.float32)

    def _start(self, *, last: bool = False) -> None:
        """Starts the evaluation of the weights that were taken, if it fits into the time."""
        timing = self._timing()
        if self._taken is None or self._evaluator.busy or self._schedule.is_off:
            return
        if self._schedule.may_start(timing[0], last=last):
            request, flat = self._taken
            self._taken = None
            self._evaluator.start(request, flat, self._schedule.limit_s(*timing))

    def _wait(self, keep_waiting: Callable[[], bool]) -> None:
        """Waits for the running evaluation, which ends within its time limit."""
        while self._evaluator.busy and keep_waiting():
            self._collect(self._evaluator.poll(_POLL_PERIOD_S))

    def _collect(self, outcome: EvaluationOutcome | None) -> None:
        if outcome is None:
            return
        self._schedule.note_end(outcome.seconds, failed=outcome.result is None)
        if outcome.result is not None:
            self._on_result(outcome.result)
        elif outcome.problem not in self._logged_problems:
            self._logged_problems.add(outcome.problem)
            _log.warning("an evaluation failed, training continues: %s", outcome.problem)
        if outcome.result is None and self._schedule.is_off:
            _log.warning("%d evaluations in succession failed; this process starts no more", MAX_FAILURES)

    def _timing(self) -> tuple[float, float, float]:
        """Returns the time since the start [s], the fraction of the budget, and the limit of the run's time [s]."""
        return time.monotonic() - self._started_at, self._progress, self._run.spec.budget.seconds


def _episodes(run: Run, *, fixed: bool) -> int:
    """Returns the number of episodes of an evaluation; 0 if the time limits it."""
    name, given = run.spec.scenario, run.spec.evaluation.episodes
    if given != "auto":
        return given
    if not is_foreign(name) and not name.startswith(REAL_MPE2):
        return AUTO_EPISODES
    return MAX_AUTO_EPISODES if fixed else 0
