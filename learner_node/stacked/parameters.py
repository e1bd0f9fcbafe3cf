"""Networks of one kind: their parameters, targets, gradients and optimiser, stored once and laid out for each user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.policy.network import layer_shapes
from common.run.run import NetworkSpec
from common.spec import PlayersSpec
from learner_node.stacked.layout import Critic, NetworkLayout
from learner_node.stacked.networks import (
    CriticTensors,
    PolicyTensors,
    cohorts,
    critic_blocks,
    critic_pieces,
    critic_tensors,
    initial_weights,
    policy_blocks,
    policy_pieces,
    policy_tensors,
)
from learner_node.stacked.optimiser import Adam, Clip
from learner_node.stacked.sharing import Label, Sharing

_T = TypeVar("_T", PolicyTensors, CriticTensors)


class ParameterSet(Generic[_T]):
    """All networks of one kind.

    `stored` `[P]` is what is learnt; `online`, `target` and `gradient` are views for every user (agent, or critic).
    """

    def __init__(
        self,
        sharing: Sharing,
        order: Tensor,
        initial: Tensor,
        views: Callable[[Tensor], _T],
        *,
        weight_decay: float,
        clip: float,
        network_rates: Sequence[float],
    ) -> None:
        """Starts at `initial` `[P]`, network by network; `order` says where each of its numbers is stored.

        clip: the largest norm of a network's gradient, 0 = any. network_rates: each network's learning rate in units of
        the common one.
        """
        self._sharing, self.order = sharing, order
        self.stored = torch.empty_like(initial)
        self.stored[order] = initial
        self._users_gradient = initial.new_zeros(sharing.users_size)
        self._gradient = self._users_gradient if sharing.is_plain else initial.new_zeros(sharing.stored_size)
        self._users = self.stored if sharing.is_plain else initial.new_empty(sharing.users_size)
        self._expand = sharing.expansion(self.stored, self._users)
        self._reduce = sharing.reduction(self._users_gradient, self._gradient)
        self._expand()
        self.users_target = self._users.clone()
        rates = _by_number(sharing, network_rates, initial) if set(network_rates) != {1.0} else None
        self.adam = Adam(self.stored, weight_decay, rates)
        self.online: _T = views(self._users)
        self.target: _T = views(self.users_target)
        self.gradient: _T = views(self._users_gradient)
        self._clip = Clip(self._gradient, sharing.stored_blocks, clip)
        self._first_use = sharing.first_uses().to(initial.device)
        """Where each stored number first stands among the users' numbers."""

    def step(self) -> Tensor:
        """Clips the gradients and steps the optimiser; returns their squared norms before, network by network."""
        self._reduce()
        squared_norms = self._clip()
        self.adam.step(self.stored, self._gradient)
        self._expand()
        return squared_norms

    def follow(self, rate: float) -> None:
        """Moves the targets a share of the way to the parameters."""
        self.users_target.lerp_(self._users, rate)

    @property
    def users(self) -> Tensor:
        """The parameters of every user, as they lie."""
        return self._users

    def tensors(self) -> dict[str, Tensor]:
        """Returns copies of all state on the CPU, network by network, by name."""
        kept = {"online": self.stored, "target": self.users_target[self._first_use]}
        kept |= {"adam/mean": self.adam.mean, "adam/square": self.adam.square}
        found = {name: tensor[self.order].to("cpu", copy=True) for name, tensor in kept.items()}
        return {**found, "adam/steps": self.adam.steps.to("cpu", copy=True)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes what `tensors` returned."""
        device = self.stored.device
        target = torch.empty_like(self.stored)
        for kept, name in (
            (self.stored, "online"),
            (target, "target"),
            (self.adam.mean, "adam/mean"),
            (self.adam.square, "adam/square"),
        ):
            kept[self.order] = tensors[name].to(device)
        self.adam.steps.copy_(tensors["adam/steps"])
        self._expand()
        self._sharing.expansion(target, self.users_target)()


class _Network(NamedTuple):
    """One network: where its numbers are stored, piece by piece, their start, and its relative learning rate."""

    places: list[Tensor]
    initial: npt.NDArray[np.float32]
    rate: float


def _trained(
    sharing: Sharing,
    networks: Sequence[_Network],
    views: Callable[[Tensor], _T],
    like: Tensor,
    *,
    decay: float,
    clip: float,
) -> ParameterSet[_T]:
    return ParameterSet(
        sharing,
        torch.cat([piece.flatten() for network in networks for piece in network.places]).to(like.device),
        torch.from_numpy(np.concatenate([network.initial for network in networks])).to(like),
        views,
        weight_decay=decay,
        clip=clip,
        network_rates=[network.rate for network in networks],
    )


def trained_policies(
    players: PlayersSpec,
    network: NetworkSpec,
    plan: NetworkLayout,
    rates: Sequence[float],
    *,
    decay: float,
    clip: float,
    seed: int,
    like: Tensor,
) -> ParameterSet[PolicyTensors]:
    """Returns the policies of players, from parameters drawn for each network.

    rates: of each player's learning, in units of the common rate. clip: the largest norm of a gradient, 0 = any.
    """
    owner, apart = plan.policy_networks, network.tell_apart
    biases, *others = policy_blocks(players, network)
    agents = range(len(players.agents))
    users = [[*agents], *(range(*run.agents.indices(len(owner))) for run in cohorts(players))]
    labels: list[list[Label]] = [[(owner[i], i if apart else 0) for i in agents]]
    labels += [[(owner[i], 0) for i in own] for own in users]
    sharing = Sharing([biases, *others], labels, like)
    places = policy_tensors(sharing.places(), players, network)
    networks: list[_Network] = []
    for number in dict.fromkeys(owner):
        mates = [i for i in agents if owner[i] == number]
        pieces = policy_pieces(places, players, mates[0])
        own_biases = [places.first_bias[i] for i in mates] if apart else [pieces[1]]
        initial = initial_weights(
            layer_shapes(players.agents[mates[0]], network), (seed, 0, mates[0]), first_biases=len(own_biases)
        )
        networks.append(_Network([pieces[0], *own_biases, *pieces[2:]], initial, rates[mates[0]]))
    return _trained(
        sharing, networks, lambda flat: policy_tensors(flat, players, network), like, decay=decay, clip=clip
    )


def trained_critics(
    players: PlayersSpec,
    network: NetworkSpec,
    plan: NetworkLayout,
    rates: Sequence[float],
    *,
    decay: float,
    clip: float,
    seed: int,
    like: Tensor,
) -> ParameterSet[CriticTensors]:
    """Returns the critics of players; see `trained_policies`."""
    inputs, widths, critics = players.obs_dim + players.action_dim, network.critic_hidden, plan.critics
    first = _first_labels(critics, inputs, apart=network.tell_apart)
    labels: list[list[Label]] = [first, [(critic.network, 0) for critic in critics]]
    sharing = Sharing(critic_blocks(inputs, len(critics), widths), labels, like)
    places = critic_tensors(sharing.places(), inputs, len(critics), widths)
    networks: list[_Network] = []
    for number in dict.fromkeys(plan.critic_networks):
        mates = [i for i, critic in enumerate(critics) if critic.network == number]
        one = critics[mates[0]]
        pieces = critic_pieces(places, mates[0], one.sees)
        own_biases = [critic_pieces(places, i, one.sees)[1] for i in mates] if network.tell_apart else [pieces[1]]
        shapes = list(pairwise((len(one.sees), *widths, 1)))
        initial = initial_weights(shapes, (seed, 1, mates[0]), first_biases=len(own_biases))
        networks.append(_Network([pieces[0], *own_biases, *pieces[2:]], initial, rates[one.player]))
    return _trained(
        sharing, networks, lambda flat: critic_tensors(flat, inputs, len(critics), widths), like, decay=decay, clip=clip
    )


def _first_labels(critics: Sequence[Critic], inputs: int, *, apart: bool) -> list[Label]:
    """Returns which stored row each row of the first layers is: of each critic inputs, then biases; None = not seen."""
    labels: list[Label] = []
    for i, critic in enumerate(critics):
        places = {column: 1 + place for place, column in enumerate(critic.sees)}
        labels += [(critic.network, places[row]) if row in places else None for row in range(inputs)]
        labels.append((critic.network, -1 - i if apart else 0))
    return labels


def _by_number(sharing: Sharing, network_rates: Sequence[float], like: Tensor) -> Tensor:
    """Returns each stored number's rate, given its network's."""
    rates = [
        torch.tensor([network_rates[owner] for owner in owners]).repeat_interleave(block.width)
        for block, owners in sharing.stored_blocks
    ]
    return torch.cat(rates).to(like)
