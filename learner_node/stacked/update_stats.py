"""What one update measured, player by player, computed only when asked for: before the next update.

N players     C critics     B rows of the batch     U length of the joint action
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from common.run.run import AlgorithmSpec
from learner_node.stacked.layout import NetworkLayout
from learner_node.stacked.losses import RowWeights, critic_loss, logit_penalty, policy_value


@dataclass(frozen=True)
class PolicyStats:
    """What the policies' half of an update leaves behind."""

    logits: Tensor
    """`[B, U]`."""
    values: Tensor
    """By the players' first critics `[N, B]`."""
    squared_norms: Tensor
    """Of the gradients before clipping, network by network."""


@dataclass(frozen=True)
class UpdateStats:
    """One update; every property is one number a player `[N]` unless said."""

    plan: NetworkLayout
    algorithm: AlgorithmSpec
    error: Tensor
    """The critics' TD errors `[C, B]` before the update."""
    shares: RowWeights
    critic_squared_norms: Tensor
    """Of the critics' gradients before clipping, network by network."""
    policy: PolicyStats | None
    """None in an update in which policies did not move."""
    player_of: Tensor
    """The player of each number of the joint action `[U]`."""

    @property
    def td_error(self) -> Tensor:
        """Mean over players of the size of their first critics' TD errors `[B]`: what priorities follow."""
        return self._first_error.abs().mean(0)

    @property
    def critic_loss(self) -> Tensor:
        """Mean loss of the players' first critics before the update."""
        return critic_loss(self._first_error, self.shares.rows, self.algorithm.critic_loss)

    @property
    def critic_gradient_norm(self) -> Tensor:
        """Of the players' first critics, before clipping."""
        networks = [critic.network for critic in self.plan.critics[: len(self.shares.rows)]]
        return self.critic_squared_norms.sqrt()[networks]

    @property
    def value(self) -> Tensor:
        """Mean value by the updated critics of the actions by the policies before the update."""
        return policy_value(self._policy.values, self.shares)

    @property
    def policy_loss(self) -> Tensor:
        """Minus that value, plus the penalty on logits."""
        return logit_penalty(self._policy.logits, self.shares, self.player_of) - self.value

    @property
    def policy_gradient_norm(self) -> Tensor:
        """Of the policies, before clipping."""
        return self._policy.squared_norms.sqrt()[list(self.plan.policy_networks)]

    @property
    def _first_error(self) -> Tensor:
        return self.error[: len(self.shares.rows)]

    @property
    def _policy(self) -> PolicyStats:
        if self.policy is None:
            raise ValueError("the policies did not move in this update; ask after one in which they did")
        return self.policy

    def figures(self) -> Losses:
        """Returns the losses as plain numbers, which stay."""
        return Losses(
            *(
                [float(x) for x in tensor.tolist()]
                for tensor in (
                    self.critic_loss,
                    self.policy_loss,
                    self.value,
                    self.critic_gradient_norm,
                    self.policy_gradient_norm,
                )
            )
        )


@dataclass(frozen=True)
class Losses:
    """An update's losses, player by player."""

    critic_loss: list[float]
    policy_loss: list[float]
    q_mean: list[float]
    critic_gradient_norm: list[float]
    policy_gradient_norm: list[float]
