"""The saver of a run: loads its newest checkpoint, and saves checkpoints, milestones and the policy file."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from common.policy.file import PolicyFile, save_policy
from common.run.directory import RunDirectory
from common.run.run import Run
from common.wire.messages import Status
from learner_node.engine import Engine
from learner_node.persistence.checkpoints import Checkpoints
from learner_node.persistence.milestones import Milestones
from learner_node.persistence.state import Counters, TrainingState, copy_state
from learner_node.reporting.metrics import Metrics

BeforeSaving = Callable[[Counters], object]

_log = logging.getLogger(__name__)


class Saver:
    """Loads and saves the state of one run."""

    def __init__(self, run: Run, directory: RunDirectory, keep_checkpoints: int, metrics: Metrics) -> None:
        """Loads the newest checkpoint; ShoalError if there are checkpoints and none can be read."""
        self._run, self._directory, self._metrics = run, directory, metrics
        self._checkpoints = Checkpoints(directory.checkpoints, keep_checkpoints)
        self.loaded: TrainingState | None = self._checkpoints.load()
        """The state that the run resumes from; None for a new run."""
        self.counters = self.loaded.counters if self.loaded else Counters()
        """The counters of the run, which the learner advances."""
        self._milestones = Milestones(run, directory, self.counters)
        self.saved_at: float | None = None
        """Monotonic time of the last checkpoint that this process wrote; None before it."""

    def save(self, engine: Engine, status: Status | None, before_saving: BeforeSaving | None = None) -> None:
        """Writes a checkpoint and the policy file; writes the checkpoint as the best one too if its mean return is.

        before_saving: called with the counters that the checkpoint will contain.
        """
        counters = self.counters
        is_best = self._note_return(status)
        if before_saving:
            before_saving(counters)
        with self._metrics.checkpoint_seconds.time():
            path = self._checkpoints.save(copy_state(engine, counters), best=is_best)
        flat = engine.policy_weights()
        save_policy(
            self._directory.policy_file, PolicyFile(self._run, counters.weights_version, counters.updates, flat)
        )
        self._metrics.last_checkpoint.set_to_current_time()
        self.saved_at = time.monotonic()
        _log.info("saved %s", path.name)

    def is_milestone_due(self) -> bool:
        """Returns whether the next milestone is reached."""
        return self._milestones.is_due(self.counters.env_steps)

    def save_milestone(self, engine: Engine) -> None:
        """Saves the milestone that is due."""
        self._milestones.save(copy_state(engine, self.counters), engine.policy_weights())

    def save_last_milestone(self, engine: Engine) -> None:
        """Saves a milestone at the end of the budget, if the run has milestones."""
        self._milestones.save_last(copy_state(engine, self.counters), engine.policy_weights())

    def _note_return(self, status: Status | None) -> bool:
        """Updates the best mean return of training episodes; returns whether the current one is the best so far.

        A mean return counts only after the first `exploration.random_steps`, in which actors act at random.
        """
        counters = self.counters
        warmed_up = counters.env_steps > self._run.spec.exploration.random_steps
        value = status.return_mean if status is not None and warmed_up else math.nan
        is_best = not math.isnan(value) and (counters.best_return is None or value > counters.best_return)
        if is_best:
            counters.best_return = value
        return is_best
