"""The update in its place: records in, figures out, at the rates of the run's schedules, on the run's device.

SampledBatch --Landing--> LossBatch (views) --Repeated--> Maddpg.step --> UpdateStats --once a second--> Losses
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from common.run.run import Run
from common.transitions import field_columns, transition_dtype
from learner_node import schedule
from learner_node.clocks import Timer
from learner_node.devices import BatchBuffer, Device, GraphedUpdate
from learner_node.replay_session import SampledBatch
from learner_node.stacked.losses import LossBatch
from learner_node.stacked.update import StackedUpdate
from learner_node.stacked.update_stats import Losses, UpdateStats

FIGURES_PERIOD_S = 1.0


class _Turn(NamedTuple):
    """Kinds of updates: each is the same work every time."""

    moves_policies: bool
    complete: bool
    """Whether every agent acts in every row."""
    weighted: bool
    """Whether rows count for more or less, after prioritised sampling."""


class Training:
    """One run's networks and what trains them."""

    def __init__(self, run: Run, device: Device) -> None:
        """Starts from the run's seed."""
        spec = run.spec
        self._spec = spec.algorithm
        self.algorithm = StackedUpdate(
            run.joint, spec.network, spec.algorithm, spec.seed, torch.zeros((), device=device.torch)
        )
        dtype = transition_dtype(run.joint)
        self._landing = BatchBuffer(device, spec.replay.batch, dtype.itemsize // 4)
        self._columns = field_columns(dtype)
        self._device = device
        self._importance_exponent = spec.replay.importance_exponent
        self._steps: dict[_Turn, GraphedUpdate[UpdateStats]] = {}
        self._figures_due = Timer(FIGURES_PERIOD_S, 0.0)
        self.figures: Losses | None = None
        """Losses as they were a moment ago."""

    def learn(self, records: SampledBatch, updates: int, progress: float, now: float) -> UpdateStats:
        """Does the next update after `updates`, with `progress` (0 to 1) of the budget used.

        now: monotonic seconds. What it returns holds until the next update.
        """
        self._set_rates(progress)
        importance = self._importance(records, progress)
        self._landing.take(records.words, importance)
        moves_policies = (updates + 1) % self.algorithm.plan.policy_every == 0
        measured = self._step(_Turn(moves_policies, records.complete, importance is not None))()
        if moves_policies and self._figures_due(now):
            self.figures = measured.figures()
        return measured

    def _set_rates(self, progress: float) -> None:
        spec, share = self._spec, schedule.learning_rate_share(self._spec, progress)
        self.algorithm.set_rates(spec.policy_learning_rate * share, spec.critic_learning_rate * share)
        if spec.final_team_spirit is not None:
            self.algorithm.rewards.set_team_spirit(schedule.team_spirit(spec, progress))

    def _importance(self, records: SampledBatch, progress: float) -> Tensor | None:
        """Returns `(N p)^-beta` over its largest `[B]` (Schaul et al. 2016), beta rising to 1 over the budget."""
        if records.probabilities is None:
            return None
        start = self._importance_exponent
        weights: Tensor = records.probabilities.pow(-(start + (1.0 - start) * progress))
        return weights / weights.max()

    def _step(self, turn: _Turn) -> GraphedUpdate[UpdateStats]:
        if turn not in self._steps:
            step = partial(self.algorithm.step, self._batch(turn), policies=turn.moves_policies)
            self._steps[turn] = GraphedUpdate(self._device, step, self.algorithm.generator)
        return self._steps[turn]

    def _batch(self, turn: _Turn) -> LossBatch:
        words, columns = self._landing.words, self._columns
        return LossBatch(
            joint=words[:, : columns["action"].stop],
            next_obs=words[:, columns["next_obs"]],
            reward=words[:, columns["reward"]],
            discount=words[:, columns["discount"]],
            present=words[:, columns["present"]],
            complete=turn.complete,
            importance=self._landing.importance if turn.weighted else None,
        )
