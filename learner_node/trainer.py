"""The trainer of a run: updates its networks on batches, with scheduled learning rates, on the run's device.

SampledBatch --BatchBuffer--> LossBatch (views) --GraphedUpdate--> Engine.normalise, .step --> UpdateStats
                                                                                    once a second --> Losses
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from common.errors import LastingError, ShoalError
from common.run.run import Run
from common.transitions import field_columns, transition_dtype
from common.user_code import exception_lines
from learner_node.devices import BatchBuffer, Device, GraphedUpdate
from learner_node.engine import Engine, make_engine
from learner_node.engine_choice import user_classes
from learner_node.replay.replay_session import SampledBatch
from learner_node.timing import schedule
from learner_node.timing.clocks import Timer
from learner_node.update.batches import LossBatch
from learner_node.update.update_stats import Losses, UpdateStats

LOSSES_PERIOD_S = 1.0


class UpdateVariant(NamedTuple):
    """The choices that decide which operations an update does. Each variant is captured in a CUDA graph separately."""

    update_policies: bool
    """Whether policies and targets are updated besides the critics (`algorithm.policy_every`)."""
    complete: bool
    """Whether every agent acts in every row."""
    weighted: bool
    """Whether rows have importance-sampling weights, after prioritised sampling."""
    observed: bool
    """Whether the batch is added to the statistics of normalisation."""


class Trainer:
    """The networks of one run, and their updates.

    Example:
        trainer = Trainer(run, choose_device(gpu=False))
        stats = trainer.update(batch, updates=0, progress=0.0, now=time.monotonic())
        flat = trainer.engine.policy_weights()
    """

    def __init__(self, run: Run, device: Device, engine: Engine | None = None) -> None:
        """Draws the initial parameters from the run's seed, unless an engine on the device is given."""
        spec = run.spec
        self._algorithm = spec.algorithm
        self._user_classes = user_classes(spec.network, spec.algorithm)
        self.engine: Engine = engine or make_engine(run, torch.zeros((), device=device.torch))
        """The networks with their update."""
        dtype = transition_dtype(run.joint)
        self._sequences = (spec.replay.burn_in, spec.replay.sequence_steps) if spec.network.recurrent else None
        self._buffer = BatchBuffer(device, spec.batch_rows, dtype.itemsize // 4)
        self._columns = field_columns(dtype)
        self._device = device
        self._importance_exponent = spec.replay.importance_exponent
        self._variants: dict[UpdateVariant, GraphedUpdate[UpdateStats]] = {}
        self._losses_timer = Timer(LOSSES_PERIOD_S, 0.0)
        self.losses: Losses | None = None
        """Losses of a recent update of the policies, at most a second old while updates run; None before the first."""

    def update(self, batch: SampledBatch, updates: int, progress: float, now: float) -> UpdateStats:
        """Updates the networks on a batch; returns statistics that are valid until the next update.

        updates: number of updates before this one. progress: fraction of the budget used, 0 to 1. now: monotonic time
        [s].
        """
        self._set_rates(progress)
        importance = self._importance(batch, progress)
        self._buffer.load(batch.records, importance)
        update_policies = (updates + 1) % self.engine.layout.policy_delay == 0
        observed = self.engine.normaliser.is_due(updates)
        variant = UpdateVariant(update_policies, batch.complete, importance is not None, observed)
        try:
            stats = self._graphed_update(variant).run()
        except Exception as e:
            if not self._user_classes or isinstance(e, ShoalError):
                raise
            raise LastingError(exception_lines(f"{self._user_classes}: an update", e, "the class")) from e
        if update_policies and self._losses_timer.is_due(now):
            self.losses = stats.losses()
        return stats

    def _set_rates(self, progress: float) -> None:
        spec, fraction = self._algorithm, schedule.learning_rate_fraction(self._algorithm, progress)
        self.engine.set_rates(spec.policy_learning_rate * fraction, spec.critic_learning_rate * fraction)
        if spec.final_team_spirit is not None:
            self.engine.mixer.set_team_spirit(schedule.team_spirit(spec, progress))

    def _importance(self, batch: SampledBatch, progress: float) -> Tensor | None:
        """Returns the importance-sampling weights `(N p)^-beta / max` `[B]`; None for a uniformly drawn batch.

        beta rises from `replay.importance_exponent` to 1 over the budget (Schaul et al. 2016, section 3.4).
        """
        if batch.probabilities is None:
            return None
        start = self._importance_exponent
        weights: Tensor = batch.probabilities.pow(-(start + (1.0 - start) * progress))
        return weights / weights.max()

    def _graphed_update(self, variant: UpdateVariant) -> GraphedUpdate[UpdateStats]:
        if variant not in self._variants:
            step = partial(self._step, self._loss_batch(variant), variant)
            self._variants[variant] = GraphedUpdate(self._device, step, self.engine.generator)
        return self._variants[variant]

    def _step(self, batch: LossBatch, variant: UpdateVariant) -> UpdateStats:
        batch = self.engine.normalise(batch, observe=variant.observed)
        if self._sequences:
            batch = batch.as_sequences(*self._sequences)
        return self.engine.step(batch, update_policies=variant.update_policies)

    def _loss_batch(self, variant: UpdateVariant) -> LossBatch:
        records, columns = self._buffer.records, self._columns
        return LossBatch(
            obs_action=records[:, : columns["next_obs"].start],
            next_obs=records[:, columns["next_obs"]],
            reward=records[:, columns["reward"]],
            discount=records[:, columns["discount"]],
            present=records[:, columns["present"]],
            complete=variant.complete,
            importance=self._buffer.importance if variant.weighted else None,
            next_state=records[:, columns["next_state"]] if "next_state" in columns else None,
        )
