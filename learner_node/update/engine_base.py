"""What both engines have in common: the parts of a run besides the networks, learning rates, normalisation, state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from common.run.run import Run
from learner_node.update.batches import LossBatch, RowWeights
from learner_node.update.layout import NetworkLayout, network_layout
from learner_node.update.network_state import NetworkState
from learner_node.update.normalisation import Normaliser
from learner_node.update.optimiser import Adam
from learner_node.update.signals import SignalMixer
from learner_node.update.update_stats import PolicyStats, UpdateStats


class LearntNetworks(NetworkState, Protocol):
    """All policies, or all critics, of a run, with their optimiser."""

    adam: Adam


class EngineBase(ABC):
    """An engine without its networks. A subclass adds `policies` and `critics`, and updates them in `step`."""

    policies: LearntNetworks
    critics: LearntNetworks

    def __init__(self, run: Run, like: Tensor) -> None:
        """Seeds `generator` with the run's seed, and takes the number type and the device of all tensors from `like`.

        ConfigError for settings that do not fit the run's agents.
        """
        agents, network, algorithm = run.joint, run.spec.network, run.spec.algorithm
        self.agents, self.players = agents, run.players
        self.network, self.algorithm = network, algorithm
        self.layout: NetworkLayout = network_layout(self.players, network, algorithm)
        self.generator = torch.Generator(like.device).manual_seed(run.spec.seed)
        self.mixer = SignalMixer(agents, self.players, algorithm, like)
        # Rewards of sequences are single ones, which the update sums.
        summed = 1 if network.recurrent else run.spec.replay.n_step
        self.normaliser = Normaliser(agents, self.players, network, algorithm, self.layout, n_step=summed, like=like)
        self._critic_players = torch.tensor([critic.player for critic in self.layout.critics], device=like.device)
        """The player of each critic `[C]`."""
        self._twin_players = torch.tensor(self.layout.twin_players, dtype=torch.int64, device=like.device)
        """The players that have a second critic."""
        columns = torch.tensor(agents.mask_columns, dtype=torch.int64, device=like.device).view(-1, 2)
        self._mask_columns = columns[:, 0].contiguous(), columns[:, 1].contiguous()
        """The columns of the joint observation that contain action masks; the columns of the joint action they mask."""

    @abstractmethod
    def step(self, batch: LossBatch, *, update_policies: bool) -> UpdateStats:
        """Updates all players once on a batch, with the learning rates of `set_rates`.

        update_policies: whether policies and all targets are updated too, as `algorithm.policy_every` says.
        """

    def update(
        self,
        batch: LossBatch,
        policy_learning_rate: float,
        critic_learning_rate: float,
        *,
        update_policies: bool = True,
    ) -> UpdateStats:
        """Sets the learning rates, then updates once on a batch.

        update_policies: whether policies and all targets are updated too, as `algorithm.policy_every` says.
        """
        self.set_rates(policy_learning_rate, critic_learning_rate)
        return self.step(batch, update_policies=update_policies)

    def set_rates(self, policy_learning_rate: float, critic_learning_rate: float) -> None:
        """Sets the learning rates of the following updates."""
        self.policies.adam.learning_rate.fill_(policy_learning_rate)
        self.critics.adam.learning_rate.fill_(critic_learning_rate)

    @torch.no_grad()
    def normalise(self, batch: LossBatch, *, observe: bool = True) -> LossBatch:
        """Returns a batch normalised, and overwrites its observations; a run without normalisation gets it unchanged.

        observe: whether to add the batch to the run's statistics first, as `normaliser.is_due` says.
        """
        if observe and self.normaliser.is_active:
            self.normaliser.observe(batch, self.mixer.signals(batch))
        return self.normaliser.normalise(batch)

    def update_stats(
        self,
        batch: LossBatch,
        td_error: Tensor,
        row_weights: RowWeights,
        squared_norms: Tensor,
        policy: PolicyStats | None,
    ) -> UpdateStats:
        """Returns the statistics of an update on a batch.

        td_error: of all critics before the update `[C, B]`. squared_norms: of the critics' gradients before clipping,
        network by network. policy: None if the update trained the critics alone.
        """
        return UpdateStats(
            self.layout,
            self.algorithm,
            td_error,
            row_weights,
            squared_norms,
            policy,
            self.mixer.player_of,
            batch.reward_factor,
        )

    def network_states(self) -> dict[str, NetworkState]:
        """Returns all learnt state by the name that checkpoints give it."""
        return {"policies": self.policies, "critics": self.critics}
