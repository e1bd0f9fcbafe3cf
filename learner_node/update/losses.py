"""The TD targets, and the values of the losses of critics and policies.

N players     B rows of the batch     U length of the joint action
q values, y targets `[N, B]`; every loss has one number a player `[N]`

The equations and their sources are in learner_node/algorithms/maddpg.py.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from learner_node.update.batches import RowWeights

LossKind = Literal["squared", "huber", "hl_gauss"]


def td_target(reward: Tensor, discount: Tensor, next_q: Tensor, gamma: float) -> Tensor:
    """Returns `y = reward + gamma * discount * q'` `[N, B]`, from reward and discount `[B, N]` and q' `[N, B]`."""
    return torch.addcmul(reward.t(), discount.t(), next_q, value=gamma)


def critic_loss(td_error: Tensor, row_weight: Tensor, kind: LossKind) -> Tensor:
    """Returns the mean loss `[N]` of TD errors `q - y` `[N, B]`: squared, or Huber's with its corner at 1.

    For hl_gauss it is that of squared errors, in units that can be compared with those of other runs.
    """
    if kind != "huber":
        return (td_error.square() * row_weight).sum(1)
    magnitude = td_error.abs()
    return (torch.where(magnitude < 1.0, 0.5 * td_error.square(), magnitude - 0.5) * row_weight).sum(1)


def policy_value(q: Tensor, row_weights: RowWeights) -> Tensor:
    """Returns the mean value `[N]` of the policies' current actions: the policy loss is minus this plus a penalty."""
    return (q * row_weights.loss).sum(1)


def logit_penalty(logits: Tensor, row_weights: RowWeights, owner: Tensor) -> Tensor:
    """Returns `lambda * mean logits^2` `[N]`; owner: the player of each number of the joint action `[U]`."""
    by_number = (logits.square() * row_weights.penalty).sum(0)
    return by_number.new_zeros(len(row_weights.loss)).index_add_(0, owner, by_number)
