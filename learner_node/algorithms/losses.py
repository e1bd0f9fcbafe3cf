"""The losses as functions of values, rows' shares and logits, and the gradients they send back.

N agents     B rows of the batch     U length of the joint action
values q, target y `[N, B]`; every loss is one number an agent `[N]`
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Transitions as tensors; `joint` is obs and action side by side, as they stand in the records."""

    joint: Tensor
    """`[B, O+U]`."""
    next_obs: Tensor
    """`[B, O]`."""
    reward: Tensor
    """`[B, N]`, as are the two below."""
    discount: Tensor
    present: Tensor
    complete: bool = False
    """Whether it is known that every agent acts in every row and in the step after it."""


@dataclass(frozen=True)
class Shares:
    """What each row of a batch counts for: nothing where an agent is absent."""

    rows: Tensor
    """Each row's share of an agent's mean `[N, B]`: sums to 1 over the rows it is present in."""
    numbers: Tensor
    """The same for each number of the joint action, times lambda / numbers of its agent `[B, U]`."""
    acts: Tensor | None
    """1.0 where the agent of a number acts `[B, U]`; None = everywhere."""
    acts_next: Tensor | None
    """1.0 where it acts in the next step too."""


def shares_of(batch: Batch, owner: Tensor, penalty: Tensor) -> Shares:
    """Returns what the rows of a batch count for.

    owner: the agent of each number of the joint action `[U]`; penalty: lambda / numbers of that agent `[U]`.
    """
    mask = batch.present.t()
    rows = mask / mask.sum(1, keepdim=True).clamp_(min=1.0)
    numbers = rows.t().index_select(1, owner) * penalty
    if batch.complete:
        return Shares(rows, numbers, None, None)
    alive = batch.present * (batch.discount > 0)
    return Shares(rows, numbers, batch.present.index_select(1, owner), alive.index_select(1, owner))


def td_target(batch: Batch, next_values: Tensor, gamma: float) -> Tensor:
    """Returns `y = reward + gamma * discount * q'` `[N, B]` from the values of the next step `[N, B]`."""
    return torch.addcmul(batch.reward.t(), batch.discount.t(), next_values, value=gamma)


def critic_loss(error: Tensor, shares: Shares) -> Tensor:
    """Returns the mean squared TD error `[N]` of errors `q - y` `[N, B]`."""
    return (error.square() * shares.rows).sum(1)


def critic_loss_gradient(error: Tensor, shares: Shares) -> Tensor:
    """Returns the gradient of the values `[N, B]`."""
    return torch.mul(error, shares.rows).mul_(2.0)


def policy_value(values: Tensor, shares: Shares) -> Tensor:
    """Returns the mean value `[N]` of what each policy would do now; its policy loss is minus this, plus a penalty."""
    return (values * shares.rows).sum(1)


def logit_penalty(logits: Tensor, shares: Shares, owner: Tensor) -> Tensor:
    """Returns lambda * mean logits^2 `[N]`."""
    by_number = (logits.square() * shares.numbers).sum(0)
    return by_number.new_zeros(len(shares.rows)).index_add_(0, owner, by_number)


def add_logit_penalty_gradient(d_logits: Tensor, logits: Tensor, shares: Shares) -> None:
    """Adds the penalty's gradient to that of the logits `[B, U]`."""
    d_logits.addcmul_(logits, shares.numbers, value=2.0)


@dataclass(frozen=True)
class Losses:
    """What one update measured, agent by agent `[N]`, computed when asked for: before the next update."""

    critic_gradient_norm: Tensor
    policy_gradient_norm: Tensor
    _error: Tensor
    _values: Tensor
    _logits: Tensor
    _shares: Shares
    _owner: Tensor

    @property
    def critic_loss(self) -> Tensor:
        """The critics' mean squared TD error before the update."""
        return critic_loss(self._error, self._shares)

    @property
    def value(self) -> Tensor:
        """Mean value by the updated critics of the actions by the policies before the update."""
        return policy_value(self._values, self._shares)

    @property
    def policy_loss(self) -> Tensor:
        """Minus that value, plus the penalty on logits."""
        return logit_penalty(self._logits, self._shares, self._owner) - self.value
