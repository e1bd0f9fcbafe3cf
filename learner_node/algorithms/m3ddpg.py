"""M3DDPG: every critic's value as it is when the other players change their actions a little for the worse.

Li et al. 2019, "Robust Multi-Agent Reinforcement Learning via Minimax Deep Deterministic Policy Gradient" (AAAI), in
the notation of maddpg.py. A player maximises its return against others that minimise it, so that its policy still works
when the others change theirs. The minimum is replaced by one step down the gradient of the critic (the paper's
multi-agent adversarial learning):

    target         y_i = r_i + gamma * discount_i * Q'_i(x', a'_1 + e'_1 .. a'_i .. a'_N + e'_N),  a' = mu'(o')
                   e'_j = -eps_j * g_j / |g_j|, g_j the gradient of Q'_i(x', a') by a_j, for all j other than i
    critic loss    E[(Q_i(x, a) - y_i)^2]
    policy loss    -E[Q_i(x, a_1 + e_1 .. mu_i(o_i) .. a_N + e_N)], with e from Q_i(x, a_1 .. mu_i(o_i) .. a_N)

No gradient flows through e. Players of one critic (`algorithm.team_critic`) count as one player i. eps_j is
`algorithm.perturbation` if j is an opponent of i, and `algorithm.teammate_perturbation` if j is on i's side. Actions,
and so eps and g, are in units of half their range.

Departure from the paper: steps have a fixed length, as in the authors' code. The paper's are `alpha_j * g_j`, whose
length follows the scale of the rewards. As in the paper, changed actions may leave their bounds.

    G networks of a group     K users of each network     B rows of the batch     N players     I inputs of a critic
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from common.run.run import AlgorithmSpec
from common.spec import PlayersSpec
from learner_node.networks.grouped import GroupedNetworks, InputChange
from learner_node.networks.groups import CriticGroups
from learner_node.update.layout import NetworkLayout

SHORT = 1e-24
"""Squared length of a gradient below which a step is shorter than eps; a gradient of 0 makes no step."""


class _Steps(NamedTuple):
    """The steps of the players in the critics of one group."""

    weights: Tensor
    """Squared half range of each input that is a number of a player's action, else 0 `[G, K, I, N]`."""
    lengths: Tensor
    """Length of each player's step, 0 for the critic's own players `[G, K, N]`."""
    are_zero: bool


class WorstCase:
    """What critics read where the other players act for the worse.

    Example:
        worst_case = WorstCase(players, layout, groups, algorithm, half_range, values=values)
        inputs = worst_case.inputs(critics.target, inputs, acting)
    """

    def __init__(
        self,
        players: PlayersSpec,
        layout: NetworkLayout,
        groups: CriticGroups,
        algorithm: AlgorithmSpec,
        half_range: Tensor,
        *,
        values: Callable[[Tensor], Tensor],
    ) -> None:
        """half_range: half the range of each number of the joint action `[U]`, with the number type and the device.

        values: returns the values of critics `[..., B]` from their outputs `[..., B, M]`.
        """
        self._players, self._groups, self._values = players, groups, values
        # The inputs of the critics that read player numbers from 1 in the place of actions, and 0 elsewhere.
        numbers = half_range.new_tensor([i + 1 for i, one in enumerate(players.agents) for _ in range(one.action_dim)])
        owners, scales = self._inputs_of(numbers[None]), self._inputs_of(half_range[None])
        first_to_last = torch.arange(1, 1 + len(players.agents)).to(half_range)
        self._steps: list[_Steps] = []
        for group, owner, scale in zip(groups.groups, owners, scales, strict=True):
            lengths = [[self._lengths(layout, algorithm, user) for user in users] for users in group.users]
            weights = (owner[..., None] == first_to_last) * scale[..., None].square()
            steps = half_range.new_tensor(lengths)
            self._steps.append(_Steps(weights, steps, not bool(steps.any())))

    def inputs(
        self,
        critics: Sequence[GroupedNetworks],
        inputs: Sequence[Tensor],
        acting: Tensor | None,
        changes: Sequence[InputChange | None],
    ) -> list[Tensor]:
        """Returns what critics read, group by group `[G, B * K, inputs]`, with other players' actions for the worse.

        critics, inputs: of each group the first networks, or all. acting: 0.0 in the columns of agents that do not act
        `[B, U]`, whose actions stay zeros; None if all act. changes: those of own actions that the critics read too.
        """
        may_act = [None] * len(inputs) if acting is None else self._inputs_of(acting)
        return [
            rows if steps.are_zero else self._changed(critic, rows, change, steps, allowed)
            for critic, rows, change, steps, allowed in zip(critics, inputs, changes, self._steps, may_act, strict=True)
        ]

    def _changed(
        self,
        critic: GroupedNetworks,
        rows: Tensor,
        change: InputChange | None,
        steps: _Steps,
        may_act: Tensor | None,
    ) -> Tensor:
        weights, lengths = steps.weights[: len(rows)], steps.lengths[: len(rows)]
        networks, users, columns, _ = weights.shape
        with torch.enable_grad():
            read = rows.detach().requires_grad_()
            fixed = None if change is None else InputChange(change.change.detach(), change.columns)
            (gradient,) = torch.autograd.grad(self._values(critic(read, fixed)).sum(), read)
        # The memories of recurrent critics follow the other inputs, and stay.
        g = gradient[..., :columns].reshape(networks, -1, users, columns)
        squares = torch.einsum("gbki,gkin->gbkn", g.square(), weights)
        scales = lengths[:, None] * squares.clamp_min(SHORT).rsqrt()
        step = (g * torch.einsum("gbkn,gkin->gbki", scales, weights)).flatten(1, 2)
        if may_act is not None:
            step = step * may_act[: len(rows)]
        return rows - torch.nn.functional.pad(step, (0, rows.shape[2] - columns))

    def _inputs_of(self, action: Tensor) -> list[Tensor]:
        """Returns the inputs of each group `[G, B * K, I]` for joint actions `[B, U]`; all other inputs are 0."""
        obs, state = (action.new_zeros(len(action), size) for size in (self._players.obs_dim, self._players.state_dim))
        return self._groups.inputs(torch.cat([obs, action, state], 1))

    def _lengths(self, layout: NetworkLayout, algorithm: AlgorithmSpec, critic: int) -> list[float]:
        """Returns the length of the step of each player in a critic `[N]`."""
        player = layout.critics[critic].player
        users = self._groups.players_of[critic]
        side = self._players.agents[player].team
        return [
            0.0
            if i in users or not layout.minimax[player]
            else algorithm.teammate_perturbation
            if other.team == side
            else algorithm.perturbation
            for i, other in enumerate(self._players.agents)
        ]
