"""HASAC: soft actor-critic whose policies learn one after another.

Liu et al. 2024, "Maximum Entropy Heterogeneous-Agent Reinforcement Learning" (ICLR, arXiv 2306.10715), in the notation
of masac.py. A side of n players has one pair of critics Q_1, Q_2, which learn the side's mean reward r and the sum of
the entropies of its policies:

    target         y = r + gamma * discount * (min_k Q'_k(x', a') + sum_j alpha_j H_j(o'_j)),  a' ~ pi(o')
    policy loss    for a random order i_1 .. i_n of the players, drawn in each update, and m = 1 .. n:
                   -E[min_k Q_k(x, a_i1 .. a_in) + alpha_im H_im(o_im)]
                   a_j ~ pi_j^new for j of i_1 .. i_(m-1), which learnt before, else a_j ~ pi_j
    temperature    as in masac.py, once in an update

The order is that of hatd3.py. masac.py differs under `algorithm.team_critic`: there all policies learn
at once, and the mean of their entropies is rewarded in place of the sum.

    N players     B rows of the batch     U length of the joint action
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from learner_node.algorithms.hatd3 import SequentialPolicies
from learner_node.algorithms.masac import Masac


class Hasac(SequentialPolicies, Masac):
    """The critics, policies and temperatures of all players, and their update.

    Example:
        hasac = Hasac(run, torch.zeros(()))
        stats = hasac.update(batch, policy_learning_rate=1e-3, critic_learning_rate=1e-3)
    """

    def entropy_bonus(self, entropy: Tensor, acting: Tensor | None) -> Tensor:
        """Returns what the entropies `[N, B]` add to the players' values: `sum_j alpha_j H_j` over the side `[N, B]`.

        Players of other algorithms have their own alpha_i H_i. acting: 0.0 in the columns of agents that do not act
        `[B, U]`; None if all act.
        """
        return self._sums @ super().entropy_bonus(entropy, acting)

    @cached_property
    def _sums(self) -> Tensor:
        """1.0 where a player's value contains the entropy of another `[N, N]`, else 0.0."""
        players, sequential = self.players.agents, self.layout.sequential
        rows = [
            [one is other or (sequential[i] and one.team == other.team) for other in players]
            for i, one in enumerate(players)
        ]
        return torch.tensor(rows).to(self.temperatures.log)
