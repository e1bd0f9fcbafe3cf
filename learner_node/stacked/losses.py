"""The losses as functions of values, rows' shares and logits, and the gradients they send back.

N players     B rows of the batch     U length of the joint action
values q, target y `[N, B]`; every loss is one number a player `[N]`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["squared", "huber"]


@dataclass(frozen=True)
class LossBatch:
    """Transitions as tensors; `joint` is obs and action side by side, as they stand in the records."""

    joint: Tensor
    """`[B, O+U]`."""
    next_obs: Tensor
    """`[B, O]`."""
    reward: Tensor
    """`[B, agents]`, as are the two below."""
    discount: Tensor
    present: Tensor
    complete: bool = False
    """Whether it is known that every agent acts in every row and in the step after it."""
    importance: Tensor | None = None
    """What each row counts for in the critics' loss `[B]`, to make up for prioritised sampling; None = 1."""


@dataclass(frozen=True)
class RowWeights:
    """What each row of a batch counts for: nothing where a player is absent."""

    rows: Tensor
    """Each row's share of a player's mean `[N, B]`: sums to 1 over the rows it is present in."""
    numbers: Tensor
    """The same for each number of the joint action, times lambda / numbers of its player `[B, U]`."""
    acts: Tensor | None
    """1.0 where the agent of a number acts `[B, U]`; None = everywhere."""
    acts_next: Tensor | None
    """1.0 where it acts in the next step too."""


def td_target(reward: Tensor, discount: Tensor, next_values: Tensor, gamma: float) -> Tensor:
    """Returns `y = reward + gamma * discount * q'` `[N, B]`; reward, discount `[B, N]`, values `[N, B]`."""
    return torch.addcmul(reward.t(), discount.t(), next_values, value=gamma)


def critic_loss(error: Tensor, rows: Tensor, kind: Kind) -> Tensor:
    """Returns the mean loss `[N]` of TD errors `q - y` `[N, B]`: squared, or Huber's with its corner at 1."""
    if kind == "squared":
        return (error.square() * rows).sum(1)
    size = error.abs()
    return (torch.where(size < 1.0, 0.5 * error.square(), size - 0.5) * rows).sum(1)


def critic_loss_slope(rows: Tensor, kind: Kind) -> Tensor:
    """Returns by how much each row's gradient grows with its TD error, Huber's between the corners `[N, B]`."""
    return 2.0 * rows if kind == "squared" else rows


def critic_loss_gradient(error: Tensor, slope: Tensor, kind: Kind, out: Tensor) -> None:
    """Writes the gradient of the values `[N, B]`; slope: by `critic_loss_slope`."""
    if kind == "squared":
        torch.mul(error, slope, out=out)
    else:
        torch.clamp(error, -1.0, 1.0, out=out).mul_(slope)


def policy_value(values: Tensor, shares: RowWeights) -> Tensor:
    """Returns the mean value `[N]` of what each policy would do now; its policy loss is minus this, plus a penalty."""
    return (values * shares.rows).sum(1)


def logit_penalty(logits: Tensor, shares: RowWeights, owner: Tensor) -> Tensor:
    """Returns lambda * mean logits^2 `[N]`; owner: the player of each number of the joint action `[U]`."""
    by_number = (logits.square() * shares.numbers).sum(0)
    return by_number.new_zeros(len(shares.rows)).index_add_(0, owner, by_number)


def add_logit_penalty_gradient(d_logits: Tensor, logits: Tensor, shares: RowWeights) -> None:
    """Adds the penalty's gradient to that of the logits `[B, U]`."""
    d_logits.addcmul_(logits, shares.numbers, value=2.0)
