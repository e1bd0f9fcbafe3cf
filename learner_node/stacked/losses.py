"""The gradients of the losses of critics and policies with respect to values and logits, written by hand.

N players     B rows of the batch     U length of the joint action

The losses themselves are in learner_node/update/losses.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from learner_node.update.batches import RowWeights
from learner_node.update.losses import LossKind


def critic_loss_slope(row_weight: Tensor, kind: LossKind) -> Tensor:
    """Returns the factor from TD errors (Huber: clamped to -1..1) to the gradients of the values `[N, B]`."""
    return 2.0 * row_weight if kind == "squared" else row_weight


def critic_loss_gradient(td_error: Tensor, slope: Tensor, kind: LossKind, out: Tensor) -> None:
    """Writes the gradient of the values `[N, B]`; slope: from `critic_loss_slope`."""
    if kind == "squared":
        torch.mul(td_error, slope, out=out)
    else:
        torch.clamp(td_error, -1.0, 1.0, out=out).mul_(slope)


def add_logit_penalty_gradient(d_logits: Tensor, logits: Tensor, row_weights: RowWeights) -> None:
    """Adds the penalty's gradient to the gradient of the logits `[B, U]`, in place."""
    d_logits.addcmul_(logits, row_weights.penalty, value=2.0)
