"""What one update computes into: memory taken once for batches of a size, and the views of it that the update needs.

N players     C critics, one or two a player     B rows of the batch     H width of the critics' first layer
O, U  length of the joint observation, of the joint action        n players of a cohort, each with u numbers to act
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from common.run.run import NetworkSpec
from common.spec import PlayersSpec
from learner_node.stacked.losses import RowWeights
from learner_node.stacked.networks import cohorts
from learner_node.stacked.passes import CriticPass, PolicyPass


class Own(NamedTuple):
    """The places of one cohort's n players in the policy loss: their own actions, their first critics' first layers."""

    change: Tensor
    """By how much their actions differ from the stored ones `[n, B, u]`."""
    first: Tensor
    """`[n, B, H]`."""
    d_first: Tensor
    """The values' gradients `[n, H, B]`."""
    d_action: Tensor
    """`[n, u, B]`."""


class Workspace:
    """What an update of B rows computes into."""

    def __init__(self, players: PlayersSpec, network: NetworkSpec, critics: int, rows: int, like: Tensor) -> None:
        self.actions = like.new_empty(players.action_dim, rows).t()
        """The targets' next actions, then those of the policy loss `[B, U]`; in memory they lie along the batch."""
        self.policy = PolicyPass(cohorts(players), network.policy_hidden, rows, like)
        self.critic = CriticPass(critics, network.critic_hidden, rows, like)
        agents = len(players.agents)
        self.judge = CriticPass(agents, network.critic_hidden, rows, like) if critics > agents else self.critic
        """The players' first critics alone: they train the policies."""
        inputs = players.obs_dim + players.action_dim
        self.now, self.next = (like.new_ones(rows, inputs + 1) for _ in range(2))
        """Observations, actions, and the 1 that critics' biases are the weights of."""
        self.critics_now, self.critics_next = (self.critic.inputs(rows) for rows in (self.now, self.next))
        self.judges_now = self.judge.inputs(self.now)
        self.joint, self.action = self.now[:, :inputs], self.now[:, players.obs_dim : inputs]
        self.next_obs, self.next_action = self.next[:, : players.obs_dim], self.next[:, players.obs_dim : inputs]
        self.own_obs, self.own_next_obs = self.policy.own_obs(self.now), self.policy.own_obs(self.next)
        change = like.new_empty(players.action_dim, rows)
        self.change = change.t()
        self.shares: RowWeights | None = None
        """What rows count for where all agents act."""
        self.slope: Tensor | None = None
        """The slope of the critics' loss there, where all rows are as important `[C, B]`."""
        turned = like.new_empty(players.action_dim, rows)
        self.d_action = turned.t()
        self.own = [
            Own(
                change[run.action].view(run.size, run.action_dim, rows).transpose(1, 2),
                self.judge.first_layer[run.agents],
                self.judge.d_first_layer[run.agents].transpose(1, 2),
                turned[run.action].view(run.size, run.action_dim, rows),
            )
            for run in cohorts(players)
        ]
