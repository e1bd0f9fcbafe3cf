"""Parameters, targets, gradients and optimiser of all policies, or of all critics.

The parameters exist twice. The optimiser updates `shared`, one set a network. The passes read `expanded`, one set a
user (a player's policy, or a critic). sharing.py copies `shared` to `expanded` and sums gradients back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.policy.network import layer_shapes
from common.run.run import NetworkSpec
from common.spec import PlayersSpec
from learner_node.stacked.networks import (
    CriticTensors,
    PolicyTensors,
    cohorts,
    critic_blocks,
    critic_pieces,
    critic_tensors,
    policy_blocks,
    policy_pieces,
    policy_tensors,
)
from learner_node.stacked.sharing import RowLabel, Sharing
from learner_node.update.draws import initial_weights
from learner_node.update.layout import Critic, NetworkLayout
from learner_node.update.optimiser import Adam, ClipRule, GradientClip, WeightDecay

_T = TypeVar("_T", PolicyTensors, CriticTensors)


class ParameterSet(Generic[_T]):
    """The policies, or the critics, of a run: everything that an update of them reads or changes.

    `shared` `[P]` are the learnt parameters, one set a network. `online`, `target` and `gradient` are views of the
    expanded parameters, one set a user.
    """

    def __init__(
        self,
        sharing: Sharing,
        shared_index: Tensor,
        initial: Tensor,
        views: Callable[[Tensor], _T],
        *,
        weight_decay: WeightDecay,
        clip: ClipRule,
        tensor_sizes: Sequence[int],
        network_rates: Sequence[float],
    ) -> None:
        """Starts at `initial` `[P]`, network by network; `shared_index` `[P]` has the index of each number in `shared`.

        tensor_sizes: numbers of each weight matrix and bias vector, in the order of `initial`. network_rates: factor on
        the learning rate of each network.
        """
        self._sharing, self.shared_index = sharing, shared_index
        self.shared = torch.empty_like(initial)
        self.shared[shared_index] = initial
        self._expanded_gradient = initial.new_zeros(sharing.expanded_size)
        self._shared_gradient = (
            self._expanded_gradient if sharing.is_identity else initial.new_zeros(sharing.shared_size)
        )
        self._expanded = self.shared if sharing.is_identity else initial.new_empty(sharing.expanded_size)
        self._expansion = sharing.expansion(self.shared, self._expanded)
        self._reduction = sharing.reduction(self._expanded_gradient, self._shared_gradient)
        self._expansion.expand()
        self.expanded_target = self._expanded.clone()
        rates = _rates_by_parameter(sharing, network_rates, initial) if set(network_rates) != {1.0} else None
        self.adam = Adam(self.shared, weight_decay, rates)
        self.online: _T = views(self._expanded)
        self.target: _T = views(self.expanded_target)
        self.gradient: _T = views(self._expanded_gradient)
        tensor_of = torch.empty_like(shared_index)
        tensor_of[shared_index] = (
            torch.arange(len(tensor_sizes)).repeat_interleave(torch.tensor(tensor_sizes)).to(shared_index)
        )
        self._gradient_clip = GradientClip(self._shared_gradient, sharing.shared_blocks, clip, tensor_of)
        self._first_expanded_index = sharing.first_expanded_index().to(initial.device)
        """For each shared number, the index of its first copy in the expanded parameters."""

    def step(self) -> Tensor:
        """Clips the gradients and does a step of Adam; returns the squared norms before clipping, by network."""
        self._reduction.reduce()
        squared_norms = self._gradient_clip.clip()
        self.adam.step(self.shared, self._shared_gradient)
        self._expansion.expand()
        return squared_norms

    def soft_update(self, tau: float) -> None:
        """Moves the targets: `target = (1 - tau) * target + tau * online` (Lowe et al. 2017, algorithm 1)."""
        self.expanded_target.lerp_(self._expanded, tau)

    @property
    def expanded(self) -> Tensor:
        """The parameters of every user, in the layout of the passes."""
        return self._expanded

    def tensors(self) -> dict[str, Tensor]:
        """Returns a copy of all state on the CPU as tensors by name, each network by network."""
        state = {"online": self.shared, "target": self.expanded_target[self._first_expanded_index]}
        state |= {"adam/mean": self.adam.mean, "adam/square": self.adam.square}
        by_network = {name: tensor[self.shared_index].to("cpu", copy=True) for name, tensor in state.items()}
        return {**by_network, "adam/steps": self.adam.steps.to("cpu", copy=True)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Replaces all state by what `tensors` returned."""
        device = self.shared.device
        target = torch.empty_like(self.shared)
        for parameter, name in (
            (self.shared, "online"),
            (target, "target"),
            (self.adam.mean, "adam/mean"),
            (self.adam.square, "adam/square"),
        ):
            parameter[self.shared_index] = tensors[name].to(device)
        self.adam.steps.copy_(tensors["adam/steps"])
        self._expansion.expand()
        self._sharing.expansion(target, self.expanded_target).expand()


class _Network(NamedTuple):
    """One network: the index in `shared` of each tensor's numbers, its initial parameters, its learning rate factor."""

    shared_index: list[list[Tensor]]
    """The pieces of each weight matrix and bias vector, in the order of the flat layout."""
    initial: npt.NDArray[np.float32]
    learning_rate: float


def _make_parameter_set(
    sharing: Sharing,
    networks: Sequence[_Network],
    views: Callable[[Tensor], _T],
    like: Tensor,
    *,
    decay: WeightDecay,
    clip: ClipRule,
) -> ParameterSet[_T]:
    tensors = [
        torch.cat([piece.flatten() for piece in pieces]) for network in networks for pieces in network.shared_index
    ]
    return ParameterSet(
        sharing,
        torch.cat(tensors).to(like.device),
        torch.from_numpy(np.concatenate([network.initial for network in networks])).to(like),
        views,
        weight_decay=decay,
        clip=clip,
        tensor_sizes=[len(tensor) for tensor in tensors],
        network_rates=[network.learning_rate for network in networks],
    )


def make_policies(
    players: PlayersSpec,
    network: NetworkSpec,
    layout: NetworkLayout,
    rates: Sequence[float],
    *,
    decay: WeightDecay,
    clip: ClipRule,
    seed: int,
    like: Tensor,
) -> ParameterSet[PolicyTensors]:
    """Returns the players' policies, with initial parameters drawn for each network from the seed.

    rates: factor on the learning rate of each player's network. decay: weight decay. clip: what gradients are clipped
    to. like: a tensor of the number type and on the device to use.
    """
    network_of, tell_apart = layout.policy_networks, network.tell_apart
    biases, *others = policy_blocks(players, network)
    agents = range(len(players.agents))
    users_by_block = [[*agents], *(range(*cohort.agents.indices(len(network_of))) for cohort in cohorts(players))]
    labels: list[list[RowLabel]] = [[(network_of[i], i if tell_apart else 0) for i in agents]]
    labels += [[(network_of[i], 0) for i in users] for users in users_by_block]
    sharing = Sharing([biases, *others], labels, like)
    shared_index = policy_tensors(sharing.shared_index(), players, network)
    networks: list[_Network] = []
    for number in dict.fromkeys(network_of):
        users = [i for i in agents if network_of[i] == number]
        pieces = policy_pieces(shared_index, players, users[0])
        first_biases = [shared_index.first_bias[i] for i in users] if tell_apart else [pieces[1]]
        initial = initial_weights(
            layer_shapes(players.agents[users[0]], network),
            (seed, 0, users[0]),
            first_biases=len(first_biases),
            initialisation=network.initialisation,
        )
        tensors = [[pieces[0]], first_biases, *([piece] for piece in pieces[2:])]
        networks.append(_Network(tensors, initial, rates[users[0]]))
    return _make_parameter_set(
        sharing, networks, lambda flat: policy_tensors(flat, players, network), like, decay=decay, clip=clip
    )


def make_critics(
    players: PlayersSpec,
    network: NetworkSpec,
    layout: NetworkLayout,
    rates: Sequence[float],
    *,
    decay: WeightDecay,
    clip: ClipRule,
    seed: int,
    like: Tensor,
) -> ParameterSet[CriticTensors]:
    """Returns the players' critics, with initial parameters drawn for each network from the seed.

    rates: factor on the learning rate of each player's network. decay: weight decay. clip: what gradients are clipped
    to. like: a tensor of the number type and on the device to use.
    """
    inputs, widths, critics = players.critic_input_dim, network.critic_hidden, layout.critics
    first = _first_layer_labels(critics, inputs, tell_apart=network.tell_apart)
    labels: list[list[RowLabel]] = [first, [(critic.network, 0) for critic in critics]]
    sharing = Sharing(critic_blocks(inputs, len(critics), widths), labels, like)
    shared_index = critic_tensors(sharing.shared_index(), inputs, len(critics), widths)
    networks: list[_Network] = []
    for number in dict.fromkeys(layout.critic_networks):
        users = [i for i, critic in enumerate(critics) if critic.network == number]
        first_user = critics[users[0]]
        pieces = critic_pieces(shared_index, users[0], first_user.input_columns)
        first_biases = (
            [critic_pieces(shared_index, i, first_user.input_columns)[1] for i in users]
            if network.tell_apart
            else [pieces[1]]
        )
        shapes = list(pairwise((len(first_user.input_columns), *widths, 1)))
        initial = initial_weights(
            shapes, (seed, 1, users[0]), first_biases=len(first_biases), initialisation=network.initialisation
        )
        tensors = [[pieces[0]], first_biases, *([piece] for piece in pieces[2:])]
        networks.append(_Network(tensors, initial, rates[first_user.player]))
    return _make_parameter_set(
        sharing, networks, lambda flat: critic_tensors(flat, inputs, len(critics), widths), like, decay=decay, clip=clip
    )


def _first_layer_labels(critics: Sequence[Critic], inputs: int, *, tell_apart: bool) -> list[RowLabel]:
    """Returns the label of each row of the first layers, critic by critic: inputs (None if not read), then the bias."""
    labels: list[RowLabel] = []
    for i, critic in enumerate(critics):
        row_of = {column: 1 + k for k, column in enumerate(critic.input_columns)}
        labels += [(critic.network, row_of[column]) if column in row_of else None for column in range(inputs)]
        labels.append((critic.network, -1 - i if tell_apart else 0))
    return labels


def _rates_by_parameter(sharing: Sharing, network_rates: Sequence[float], like: Tensor) -> Tensor:
    """Returns the learning rate factor of each shared number `[P]`."""
    rates = [
        torch.tensor([network_rates[owner] for owner in owners]).repeat_interleave(block.width)
        for block, owners in sharing.shared_blocks
    ]
    return torch.cat(rates).to(like)
