"""The input of an update: a minibatch of transitions, and the weights of its rows in the losses.

N players     B rows of the batch     O, U, S  length of the joint observation, of the joint action, of the global state
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
    """Weight of each row in a player's loss `[N, B]`: 1 / number of rows with the player; 0 where it is absent. Where a
    side has one critic, its players count as present while one of them is."""
    present: Tensor
    """Weight of each row in a mean over the rows in which the player itself is present `[N, B]`, 0 elsewhere."""
    penalty: Tensor
    """Weight of each squared logit in the penalty `[B, U]`: row weight times lambda / length of the player's action."""
    acting: Tensor | None
    """1.0 in the columns of agents that act `[B, U]`; None if all act."""
    next_acting: Tensor | None
    """1.0 in the columns of agents that act in the next step too `[B, U]`; None if all do."""
