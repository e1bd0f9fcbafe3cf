"""HATD3: the policies of a side learn one after another, each from the newest policies of those before it.

Zhong et al. 2024, "Heterogeneous-Agent Reinforcement Learning" (JMLR 25, arXiv 2304.09870), HATD3, in the notation of
maddpg.py. A side of n players has one pair of critics Q_1, Q_2, which learn the side's mean reward r as in matd3:

    target         y = r + gamma * discount * min_k Q'_k(x', mu'(o') + clipped noise)
    critic loss    E[(Q_k(x, a) - y)^2]
    policy loss    for a random order i_1 .. i_n of the players, drawn in each update, and m = 1 .. n:
                   -E[Q_1(x, a_i1 .. a_in)], a_j = mu_j^new(o_j) for j of i_1 .. i_(m-1), which learnt before,
                   else a_j = mu_j(o_j)

In maddpg.py all players learn at once from the policies before the update: each step is right if the others stay as
they are, and together the steps can overshoot. Here each player learns from what the players before it have learnt in
this update (the paper's advantage decomposition).

Each player has its own policy; `network.share_policies` does not apply, since a shared policy has no place in an order.

Sides may mix algorithms: players of the other sides all learn in the first step, and act in this side's critics as
`algorithm.teammates` says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from common.spec import PlayersSpec
from learner_node.algorithms.maddpg import Maddpg
from learner_node.update.layout import NetworkLayout


class PolicyOrder:
    """The order in which policies learn: at random within a sequential side; all other policies are first."""

    def __init__(self, players: PlayersSpec, layout: NetworkLayout, device: torch.device) -> None:
        sides = [player.team for player in players.agents]
        is_sequential = torch.tensor(layout.sequential, device=device)
        same_side = torch.tensor([[one == other for other in sides] for one in sides], device=device)
        self._before = same_side & is_sequential
        """Whether the position of a player depends on that of another `[N, N]`."""
        networks = layout.policy_networks
        first_users = [networks.index(network) for network in range(1 + max(networks))]
        self._first_users = torch.tensor(first_users, device=device)
        self.count = max(sides.count(side) if layout.sequential[sides.index(side)] else 1 for side in sides)
        """Number of positions, the steps of an update."""

    def draw(self, generator: torch.Generator) -> Tensor:
        """Draws the position of each policy, from 0 `[policies]`."""
        # The order is drawn where the update computes, because a CUDA graph cannot read it back.
        drawn = torch.rand(len(self._before), device=self._before.device, generator=generator)
        by_player = ((drawn[:, None] > drawn) & self._before).sum(1)
        return by_player.index_select(0, self._first_users)


class SequentialPolicies(Maddpg):
    """Policies that learn one after another, for algorithms that derive from this class and another one."""

    @cached_property
    def order(self) -> PolicyOrder:
        """The order in which policies learn."""
        return PolicyOrder(self.players, self.layout, self.generator.device)

    def descend_policies(self, loss: Tensor, next_loss: Callable[[], Tensor]) -> Tensor:
        """Does one step of each policy at its position; returns the squared norms of their gradients, by network.

        loss: that of all policies before the update. next_loss: computes it with the policies as they are then. For
        each position all gradients are computed, since the policies are one module, and those of its policies are used.
        """
        positions = self.order.draw(self.generator)
        squared_norms = self.policies.descend_at(0, positions, loss)
        for position in range(1, self.order.count):
            later = self.policies.descend_at(position, positions, next_loss())
            squared_norms = torch.where(positions == position, later, squared_norms)
        return squared_norms


class Hatd3(SequentialPolicies):
    """The critics and policies of all players, and their update.

    Example:
        hatd3 = Hatd3(run, torch.zeros(()))
        stats = hatd3.update(batch, policy_learning_rate=1e-3, critic_learning_rate=1e-3)
    """
