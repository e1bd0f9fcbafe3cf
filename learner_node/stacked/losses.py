"""The losses of critics and policies, and their gradients with respect to values and logits.

N players     B rows of the batch     U length of the joint action
q values, y targets `[N, B]`; every loss has one number a player `[N]`

The equations and their sources are in learner_node/algorithms/maddpg.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LossKind = Literal["squared", "huber"]


@dataclass(frozen=True)
class LossBatch:
    """A minibatch of transitions as tensors, all views of the same records."""

    obs_action: Tensor
    """Joint observations and actions side by side, followed by global states if critics read them `[B, O+U+S]`."""
    next_obs: Tensor
    """`[B, O]`."""
    reward: Tensor
    """`[B, agents]`."""
    discount: Tensor
    """0 where the agent terminated, else 1 `[B, agents]`."""
    present: Tensor
    """1 where the agent acts, 0 where it is absent `[B, agents]`."""
    complete: bool = False
    """Whether every agent acts in every row and in the step after it. False is always allowed, and slower."""
    importance: Tensor | None = None
    """Importance-sampling weight of each row in the critic loss `[B]` (Schaul et al. 2016); None = 1."""
    reward_factor: Tensor | None = None
    """Factor on each player's reward `[N]`, if rewards are normalised; None = 1."""
    next_state: Tensor | None = None
    """Next global states `[B, S]`; None if critics do not read them."""


@dataclass(frozen=True)
class RowWeights:
    """The weight of each row of a batch in the losses: 0 where a player is absent."""

    loss: Tensor
    """Weight of each row in a player's loss `[N, B]`: 1 / number of rows with the player; 0 where it is absent."""
    penalty: Tensor
    """Weight of each squared logit in the penalty `[B, U]`: row weight times lambda / length of the player's action."""
    acting: Tensor | None
    """1.0 in the columns of agents that act `[B, U]`; None if all act."""
    next_acting: Tensor | None
    """1.0 in the columns of agents that act in the next step too `[B, U]`; None if all do."""


def td_target(reward: Tensor, discount: Tensor, next_q: Tensor, gamma: float) -> Tensor:
    """Returns `y = reward + gamma * discount * q'` `[N, B]`, from reward and discount `[B, N]` and q' `[N, B]`."""
    return torch.addcmul(reward.t(), discount.t(), next_q, value=gamma)


def critic_loss(td_error: Tensor, row_weight: Tensor, kind: LossKind) -> Tensor:
    """Returns the mean loss `[N]` of TD errors `q - y` `[N, B]`: squared, or Huber's with its corner at 1."""
    if kind == "squared":
        return (td_error.square() * row_weight).sum(1)
    magnitude = td_error.abs()
    return (torch.where(magnitude < 1.0, 0.5 * td_error.square(), magnitude - 0.5) * row_weight).sum(1)


def critic_loss_slope(row_weight: Tensor, kind: LossKind) -> Tensor:
    """Returns the factor from TD errors (Huber: clamped to -1..1) to the gradients of the values `[N, B]`."""
    return 2.0 * row_weight if kind == "squared" else row_weight


def critic_loss_gradient(td_error: Tensor, slope: Tensor, kind: LossKind, out: Tensor) -> None:
    """Writes the gradient of the values `[N, B]`; slope: from `critic_loss_slope`."""
    if kind == "squared":
        torch.mul(td_error, slope, out=out)
    else:
        torch.clamp(td_error, -1.0, 1.0, out=out).mul_(slope)


def policy_value(q: Tensor, row_weights: RowWeights) -> Tensor:
    """Returns the mean value `[N]` of the policies' current actions: the policy loss is minus this plus a penalty."""
    return (q * row_weights.loss).sum(1)


def logit_penalty(logits: Tensor, row_weights: RowWeights, owner: Tensor) -> Tensor:
    """Returns `lambda * mean logits^2` `[N]`; owner: the player of each number of the joint action `[U]`."""
    by_number = (logits.square() * row_weights.penalty).sum(0)
    return by_number.new_zeros(len(row_weights.loss)).index_add_(0, owner, by_number)


def add_logit_penalty_gradient(d_logits: Tensor, logits: Tensor, row_weights: RowWeights) -> None:
    """Adds the penalty's gradient to the gradient of the logits `[B, U]`, in place."""
    d_logits.addcmul_(logits, row_weights.penalty, value=2.0)
