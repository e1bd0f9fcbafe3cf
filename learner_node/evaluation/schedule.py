"""When the weights of a run are evaluated while it trains: decided from values, without clocks and processes.

Evaluations are due evenly over the budget. They may take a fraction of the training time: the time that earlier ones
took, and the time that the next one is expected to take, must fit into that fraction of the time since the start. An
evaluation that does not fit waits; the next one that is due replaces it. Weights that are taken late, as after a slow
evaluation, replace the next ones if those would follow within half an interval.
"""

from __future__ import annotations

from common.run.run import EvaluationSpec

FIRST_GUESS_S = 0.15
"""Expected time of the first evaluation of a process [s]."""
MIN_LIMIT_S = 1.0
"""Shortest time limit of an evaluation [s]."""
LIMIT_FACTOR = 3.0
"""An evaluation may take this many times as long as the one before: other processes may need the cores."""
MAX_LIMIT_S = 600.0
"""Time limit of an evaluation whose fraction of the time is not limited [s]."""
MAX_FAILURES = 3
"""Number of failed evaluations in succession after which no more are started."""


class EvaluationSchedule:
    """Decides when weights are taken and when their evaluation may start.

    Example:
        schedule = EvaluationSchedule(run.spec.evaluation, progress=0.0, updates=0)
        if schedule.is_due(progress, updates):
            schedule.note_taken(progress, updates)  # the caller takes a copy of the weights
        if schedule.may_start(elapsed_s):
            ...  # evaluates them within schedule.limit_s(elapsed_s, progress)
            schedule.note_end(seconds)
    """

    def __init__(self, spec: EvaluationSpec, progress: float, updates: int) -> None:
        """progress, updates: of the run that this process continues."""
        self._spec = spec
        self._next = self._number_at(progress) + 1 if updates else 0
        self._taken_updates = -1
        """Number of updates of the weights that were taken last; -1 before the first."""
        self._spent_s = self._last_s = 0.0
        self._failures = 0

    @property
    def is_unlimited(self) -> bool:
        """Whether no evaluation may be left out."""
        return self._spec.share_of_time >= 1.0

    @property
    def is_off(self) -> bool:
        """Whether no evaluation will be due any more."""
        return not self._spec.times or self._failures >= MAX_FAILURES

    def is_due(self, progress: float, updates: int) -> bool:
        """Returns whether weights must be taken at this fraction of the budget and after this number of updates.

        Weights that were taken before are not due again, as in the warm-up.
        """
        return not self.is_off and updates != self._taken_updates and self._number_at(progress) >= self._next

    def note_taken(self, progress: float, updates: int) -> None:
        """Records that the weights of this moment were taken."""
        self._taken_updates = updates
        number, times = self._number_at(progress), self._spec.times
        is_nearer_to_next = self._number_at(progress + 0.5 / times) > number
        # The final weights are always due.
        skipped = 1 if is_nearer_to_next and number + 1 < times and not self.is_unlimited else 0
        self._next = number + 1 + skipped

    def may_start(self, elapsed_s: float, *, last: bool = False) -> bool:
        """Returns whether the next evaluation fits into the time; elapsed_s: time since the start of this process.

        last: whether it is the last of the run. The others leave room for that one.
        """
        expected_s = (self._last_s or FIRST_GUESS_S) * (1 if last else 2)
        return self.is_unlimited or self._spent_s + expected_s <= self._spec.share_of_time * elapsed_s

    def limit_s(self, elapsed_s: float, progress: float, budget_s: float = 0.0) -> float:
        """Returns the time after which an evaluation is ended [s].

        It is what the whole run has left for evaluations, or a multiple of the last one's time. budget_s: limit of the
        run's time [s]; 0 = none.
        """
        if self.is_unlimited:
            return MAX_LIMIT_S
        whole_s = self._whole_run_s(elapsed_s, progress, budget_s)
        left_s = self._spec.share_of_time * whole_s - self._spent_s
        return min(max(left_s, LIMIT_FACTOR * self._last_s, MIN_LIMIT_S), MAX_LIMIT_S)

    def within_s(self, elapsed_s: float, progress: float, budget_s: float = 0.0) -> float:
        """Returns the time during which episodes start in a world in which the time limits their number [s]."""
        if self.is_unlimited:
            return MAX_LIMIT_S
        return self._spec.share_of_time * self._whole_run_s(elapsed_s, progress, budget_s) / max(self._spec.times, 1)

    def note_end(self, seconds: float, *, failed: bool = False) -> None:
        """Records that an evaluation ended, and how long it took [s]."""
        self._spent_s += seconds
        self._last_s = seconds
        self._failures = self._failures + 1 if failed else 0

    def _number_at(self, progress: float) -> int:
        """Returns how many evaluations are due by now, without the one before the first update."""
        # Progress is a quotient: without the margin, 0.15 of 20 could be 2.9999999999999996.
        return int(min(progress, 1.0) * self._spec.times + 1e-9)

    @staticmethod
    def _whole_run_s(elapsed_s: float, progress: float, budget_s: float) -> float:
        """Returns the expected time of the whole run [s]."""
        if budget_s:
            return budget_s
        return elapsed_s / progress if progress > 0.0 else elapsed_s
