"""The workspace of an update: its memory, allocated once for batches of one size, and views of that memory.

N players     C critics, one or two a player     B rows of the batch     H width of the critics' first layer
O, U, S  length of the joint observation, of the joint action, of the global state (0 if critics do not read it)
n players of a cohort, each with u action numbers
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from common.run.run import NetworkSpec
from common.spec import PlayersSpec
from learner_node.stacked.networks import cohorts
from learner_node.stacked.passes import CriticPass, PolicyPass
from learner_node.update.batches import RowWeights


class PolicyActionViews(NamedTuple):
    """Views for one cohort's n players in the policy loss: their actions, and their first critics' first layers."""

    change: Tensor
    """Difference of the policies' actions from the stored ones `[n, B, u]`."""
    first: Tensor
    """First critics' first layers before the ReLU `[n, B, H]`."""
    d_first: Tensor
    """Gradients of the values over `first` `[n, H, B]`."""
    d_action: Tensor
    """Gradients of the players' policy losses over their actions `[n, u, B]`."""


class Workspace:
    """The memory that an update of B rows computes in."""

    def __init__(self, players: PlayersSpec, network: NetworkSpec, critics: int, rows: int, like: Tensor) -> None:
        """Takes the number type and the device from `like`."""
        self.policy_action = like.new_empty(players.action_dim, rows).t()
        """Actions of the target policies, then of the policies in their loss `[B, U]`; contiguous along the batch."""
        self.policy = PolicyPass(cohorts(players), network.policy_hidden, rows, like)
        self.critic = CriticPass(critics, network.critic_hidden, rows, like)
        agents = len(players.agents)
        self.first_critic = CriticPass(agents, network.critic_hidden, rows, like) if critics > agents else self.critic
        """The pass of the first critics alone, which the policy loss uses."""
        inputs, action_stop = players.critic_input_dim, players.obs_dim + players.action_dim
        self.critic_input, self.next_critic_input = (like.new_ones(rows, inputs + 1) for _ in range(2))
        """Observations, actions, states, and a 1 whose weights are the critics' first biases `[B, O+U+S+1]`."""
        self.critic_inputs, self.next_critic_inputs = (
            self.critic.inputs(rows_and_one) for rows_and_one in (self.critic_input, self.next_critic_input)
        )
        self.first_critic_inputs = self.first_critic.inputs(self.critic_input)
        self.obs_action_state = self.critic_input[:, :inputs]
        self.action = self.critic_input[:, players.obs_dim : action_stop]
        self.next_obs = self.next_critic_input[:, : players.obs_dim]
        self.next_action = self.next_critic_input[:, players.obs_dim : action_stop]
        self.next_state = self.next_critic_input[:, action_stop:inputs]
        self.allowed: Tensor | None = None
        """0 for the numbers of the joint action that an action mask forbids, else 1 `[B, U]`; None without masks."""
        if players.mask_columns:
            self.allowed = like.new_ones(players.action_dim, rows).t()
        self.policy_inputs = self.policy.inputs(self.critic_input)
        self.next_policy_inputs = self.policy.inputs(self.next_critic_input)
        action_change_t = like.new_empty(players.action_dim, rows)
        self.action_change = action_change_t.t()
        """Difference of the policies' actions from the stored ones `[B, U]`."""
        self.row_weights: RowWeights | None = None
        """Row weights of complete batches, which are the same for all of them; None before the first."""
        self.critic_loss_slope: Tensor | None = None
        """`critic_loss_slope` of complete batches without importance weights `[C, B]`; None before the first."""
        d_action_t = like.new_empty(players.action_dim, rows)
        self.d_action = d_action_t.t()
        """Gradient of the policy loss over the joint action, without the penalty `[B, U]`."""
        self.policy_action_views = [
            PolicyActionViews(
                action_change_t[cohort.action].view(cohort.size, cohort.action_dim, rows).transpose(1, 2),
                self.first_critic.first_layer[cohort.agents],
                self.first_critic.d_first_layer[cohort.agents].transpose(1, 2),
                d_action_t[cohort.action].view(cohort.size, cohort.action_dim, rows),
            )
            for cohort in cohorts(players)
        ]
