"""FACMAC: one critic a side, which mixes utilities of its members. What the algorithm `facmac` changes in maddpg.

Peng et al. 2021, "FACMAC: Factored Multi-Agent Centralised Policy Gradients" (arXiv 2003.06709, sections 4.1 and 4.2),
in the notation of algorithms/maddpg.py. A side of n players with mean reward r has utilities Q_i(o_i, a_i), which read
one player each, and one value

    Q_tot(x, a) = w_2(s) . elu(W_1(s) (Q_1(o_1, a_1) .. Q_n(o_n, a_n)) + b_1(s)) + b_2(s),  W_1, w_2 >= 0
    critic loss   E[(Q_tot(x, a) - y)^2],  y = r + gamma * discount * Q'_tot(x', mu'(o'))
    policy loss   -E[Q_tot(x, mu_1(o_1) .. mu_n(o_n))], all actions by the current policies

The mixing network is that of QMIX (Rashid et al. 2018, arXiv 1803.11485): other networks compute its weights from s,
and absolute values keep the weights above 0, so that Q_tot never falls as a utility rises. The policies learn from the
gradient of Q_tot over all actions at once; maddpg replaces one player's action at a time.

Departures: s is the joint observation of all sides with the actions of the other sides, and the global state if critics
read it, because Q_tot would otherwise have to average over what the other sides do. Utilities have no recurrent layer.

    G networks of a group     R rows of a network     n members of the side
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from common.policy.network import Layer
from common.run.run import NetworkSpec
from learner_node.networks.grouped import GroupedNetworks, InputChange
from learner_node.networks.grouped_mlp import GroupedMlp, initial_parameters
from learner_node.networks.mixing_input import MIXING_UNITS, MixingInput


class MixingCritics(GroupedNetworks):
    """G critics of sides with equal inputs: inputs `[G, R, inputs]`, outputs `[G, R, 1]`."""

    def __init__(self, inputs: MixingInput, networks: int, network: NetworkSpec, like: Tensor) -> None:
        """Starts at zero. networks: number of networks G. network: widths, activation and norm of the utilities."""
        super().__init__()
        self._initialisation = network.initialisation
        self._users = [len(users) for users in inputs.utilities]
        self._columns = [
            torch.tensor([column for columns in users for column in columns], device=like.device)
            for users in inputs.utilities
        ]
        self._state = torch.tensor(inputs.state, device=like.device)
        self.utilities = nn.ModuleList(
            GroupedMlp(
                networks,
                shapes,
                len(users) if network.tell_apart else 1,
                like,
                activation=network.activation,
                layer_norm=network.critic_layer_norm,
                weight_norm=network.critic_weight_norm,
            )
            for users, shapes in zip(inputs.utilities, inputs.utility_shapes(network), strict=True)
        )
        first_weights, first_biases, last_weights, last_bias = inputs.mixing_shapes
        self.first_weights = GroupedMlp(networks, first_weights, 1, like)
        self.first_biases = GroupedMlp(networks, first_biases, 1, like)
        self.last_weights = GroupedMlp(networks, last_weights, 1, like)
        self.last_bias = GroupedMlp(networks, last_bias, 1, like)

    def forward(self, x: Tensor, change: InputChange | None = None) -> Tensor:
        """Returns Q_tot `[G, R, 1]` for inputs `[G, R, inputs]`, changed by `change` if given."""
        if change is not None:
            x = x.scatter_add(2, change.columns[:, None].expand_as(change.change), change.change)
        return self.mix(self.utilities_of(x), x.index_select(2, self._state))

    def utilities_of(self, x: Tensor) -> Tensor:
        """Returns the utilities Q_i(o_i, a_i) of all members `[G, R, n]`, network by network."""
        found = []
        for utility, columns, users in zip(self.utilities, self._columns, self._users, strict=True):
            rows = x.index_select(2, columns).view(len(x), -1, len(columns) // users)
            found.append(utility(rows).view(len(x), -1, users))
        return found[0] if len(found) == 1 else torch.cat(found, 2)

    def mix(self, utilities: Tensor, state: Tensor) -> Tensor:
        """Returns Q_tot `[G, R, 1]` of utilities `[G, R, n]` and states `[G, R, s]`; it rises with each utility."""
        weights = self.first_weights(state).abs().unflatten(2, (-1, MIXING_UNITS))
        hidden = nn.functional.elu((utilities[..., None] * weights).sum(2) + self.first_biases(state))
        value: Tensor = (hidden * self.last_weights(state).abs()).sum(2, keepdim=True) + self.last_bias(state)
        return value

    def initial(self, seed: Sequence[int]) -> npt.NDArray[np.float32]:
        """Draws the initial parameters of one network `[P]`, layer by layer."""
        return initial_parameters(self, seed, self._initialisation)

    def of_user(self, network: int, user: int) -> list[Layer]:  # noqa: ARG002  (there is no sequence of layers)
        """Returns no layers: the network is not an MLP."""
        return []
