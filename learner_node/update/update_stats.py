"""Statistics of one update, player by player. Each is computed when it is read, which must be before the next update.

N players     C critics     B rows of the batch     U length of the joint action
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from common.run.run import AlgorithmSpec
from learner_node.update.batches import RowWeights
from learner_node.update.layout import NetworkLayout
from learner_node.update.losses import critic_loss, logit_penalty, policy_value


@dataclass(frozen=True)
class PolicyStats:
    """Intermediate results of the policies' update."""

    logits: Tensor
    """Logits of the policies `[B, U]`; 0 for choices that an action mask forbids."""
    q: Tensor
    """Values of the policies' actions by the players' first critics `[N, B]`; soft values of stochastic players."""
    squared_norms: Tensor
    """Squared norms of the policies' gradients before clipping, network by network."""
    entropy: Tensor | None = None
    """Entropies of the policies [nats], 0 for deterministic players `[N, B]`; None if no player is stochastic."""
    temperature: Tensor | None = None
    """Weights of the entropies, 0 for deterministic players `[N]`; None if no player is stochastic."""


@dataclass(frozen=True)
class UpdateStats:
    """Statistics of one update. Every property is one number a player `[N]` unless noted.

    If rewards are normalised, losses, TD errors and gradients are in units of the normalised rewards, and `q_mean` is
    in units of the rewards.
    """

    layout: NetworkLayout
    algorithm: AlgorithmSpec
    td_error: Tensor
    """TD errors of all critics before the update `[C, B]`."""
    row_weights: RowWeights
    critic_squared_norms: Tensor
    """Squared norms of the critics' gradients before clipping, network by network."""
    policy: PolicyStats | None
    """None in an update of the critics alone."""
    player_of: Tensor
    """The player of each number of the joint action `[U]`."""
    reward_factor: Tensor | None = None
    """Factor on each player's reward, if rewards are normalised; None = 1."""

    @property
    def abs_td_error(self) -> Tensor:
        """Mean over players of the absolute TD errors of their first critics `[B]`: the rows' new priorities."""
        return self._first_td_error.abs().mean(0)

    @property
    def critic_loss(self) -> Tensor:
        """Mean loss of the players' first critics before the update."""
        return critic_loss(self._first_td_error, self.row_weights.loss, self.algorithm.critic_loss)

    @property
    def critic_gradient_norm(self) -> Tensor:
        """Norm of the gradient of the players' first critics, before clipping."""
        networks = [critic.network for critic in self.layout.critics[: len(self.row_weights.loss)]]
        return self.critic_squared_norms.sqrt()[networks]

    @property
    def q_mean(self) -> Tensor:
        """Mean value, by the updated critics, of the policies' actions before the update, in units of the rewards."""
        return self._q_mean if self.reward_factor is None else self._q_mean / self.reward_factor

    @property
    def policy_loss(self) -> Tensor:
        """Policy loss before the update: the penalty on logits minus the mean value, in units of normalised rewards."""
        return logit_penalty(self._policy.logits, self.row_weights, self.player_of) - self._q_mean

    @property
    def policy_gradient_norm(self) -> Tensor:
        """Norm of the gradient of the policies, before clipping."""
        return self._policy.squared_norms.sqrt()[list(self.layout.policy_networks)]

    @property
    def entropy(self) -> Tensor | None:
        """Mean entropy of the policies [nats], before the update; None if no player is stochastic."""
        entropy = self._policy.entropy
        return None if entropy is None else (entropy * self.row_weights.present).sum(1)

    @property
    def temperature(self) -> Tensor | None:
        """Weight of the entropies in the rewards before the update; None if no player is stochastic."""
        return self._policy.temperature

    @property
    def _first_td_error(self) -> Tensor:
        return self.td_error[: len(self.row_weights.loss)]

    @property
    def _q_mean(self) -> Tensor:
        """Mean value of the policies' actions in the units of the update."""
        return policy_value(self._policy.q, self.row_weights)

    @property
    def _policy(self) -> PolicyStats:
        if self.policy is None:
            raise ValueError(
                "this update trained the critics alone; read policy statistics after an update of the policies"
            )
        return self.policy

    def losses(self) -> Losses:
        """Returns the losses as Python numbers, which stay valid after the next update."""
        return Losses(
            *(
                [] if tensor is None else [float(x) for x in tensor.tolist()]
                for tensor in (
                    self.critic_loss,
                    self.policy_loss,
                    self.q_mean,
                    self.critic_gradient_norm,
                    self.policy_gradient_norm,
                    self.entropy,
                    self.temperature,
                )
            )
        )


@dataclass(frozen=True)
class Losses:
    """Losses, mean values and gradient norms of an update, player by player.

    entropy, temperature: of stochastic policies; empty if no player is stochastic.
    """

    critic_loss: list[float]
    policy_loss: list[float]
    q_mean: list[float]
    critic_gradient_norm: list[float]
    policy_gradient_norm: list[float]
    entropy: list[float] = field(default_factory=list)
    temperature: list[float] = field(default_factory=list)
