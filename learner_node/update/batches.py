"""The input of an update: a minibatch of transitions, and the weights of its rows in the losses.

N players     B rows of the batch     O, U, S  length of the joint observation, of the joint action, of the global state
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Sequences:
    """The order in time of a batch's rows, and the steps before them, for recurrent networks.

    The rows of the batch are S sequences of T = B / S steps. A sequence belongs to one episode. Where the episode ends
    within it, the rest of its rows are padding, in which no agent is present.
    """

    burn_in: Tensor
    """`LossBatch.obs_action` of the k steps before each sequence `[S * k, O+U+S]`; k may be 0."""
    burn_in_valid: Tensor
    """0 for steps before the start of the episode, else 1 `[S, k]`."""
    continues: Tensor
    """Whether the next row is the next step of the same sequence `[B]`."""


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
    sequences: Sequences | None = None
    """The order of the rows in time; None if they are single transitions."""

    def as_sequences(self, burn_in: int, steps: int) -> LossBatch:
        """Returns the rows that are learnt from, of rows that are sequences of `burn_in + steps` steps each."""

        def by_sequence(rows: Tensor) -> Tensor:
            return rows.reshape(-1, burn_in + steps, rows.shape[1])

        def trained(rows: Tensor) -> Tensor:
            return by_sequence(rows)[:, burn_in:].flatten(0, 1)

        valid = by_sequence(self.present).amax(2)
        continues = valid[:, burn_in:].roll(-1, 1)
        continues[:, -1] = 0.0
        return replace(
            self,
            obs_action=trained(self.obs_action),
            next_obs=trained(self.next_obs),
            reward=trained(self.reward),
            discount=trained(self.discount),
            present=trained(self.present),
            next_state=None if self.next_state is None else trained(self.next_state),
            sequences=Sequences(
                by_sequence(self.obs_action)[:, :burn_in].flatten(0, 1),
                valid[:, :burn_in],
                continues.flatten() > 0,
            ),
        )


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
