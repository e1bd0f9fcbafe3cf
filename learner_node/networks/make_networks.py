"""The networks of a run with their initial parameters: policies, and critics as `network.critic` names them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from common.policy.network import layer_shapes
from common.run.run import MLP, SET_CRITICS, AlgorithmSpec, NetworkSpec
from common.spec import PlayersSpec
from learner_node.networks.agent_sets import AgentSets
from learner_node.networks.critic_input import critic_input
from learner_node.networks.grouped import GroupedNetworks
from learner_node.networks.grouped_gru import GroupedGru, gru_shapes
from learner_node.networks.grouped_mlp import GroupedLayer, GroupedMlp, initial_parameters
from learner_node.networks.groups import Group
from learner_node.networks.mixing_critics import MixingCritics
from learner_node.networks.mixing_input import mixing_input
from learner_node.networks.network_set import NetworkSet
from learner_node.networks.set_critics import SetCritics
from learner_node.networks.user_critics import UserCritics, flat_parameters, make_critic
from learner_node.update.layout import NetworkLayout
from learner_node.update.optimiser import ClipRule, WeightDecay

_MakeGroup = Callable[[Group], tuple[GroupedNetworks, list[Tensor]]]
"""Returns the module of a group, and the initial parameters of each of its networks."""


def make_policies(
    players: PlayersSpec,
    groups: Sequence[Group],
    network: NetworkSpec,
    algorithm: AlgorithmSpec,
    *,
    seed: int,
    like: Tensor,
) -> NetworkSet:
    """Returns the policies of all players."""
    shapes = [layer_shapes(player, network) for player in players.agents]
    make = partial(_layered, network, shapes, layer_norm=network.policy_layer_norm, seed=(seed, 0), like=like)
    sides = [player.team for player in players.agents]
    return _make_set(
        groups, make, sides, algorithm, WeightDecay(algorithm.policy_weight_decay, algorithm.decoupled_weight_decay)
    )


def make_critics(
    players: PlayersSpec,
    layout: NetworkLayout,
    groups: Sequence[Group],
    network: NetworkSpec,
    algorithm: AlgorithmSpec,
    *,
    seed: int,
    like: Tensor,
) -> NetworkSet:
    """Returns the critics of all players, of the kind that `network.critic` names."""
    make: _MakeGroup
    if network.critic == MLP:
        outputs = layout.critic_outputs
        shapes = [
            list(pairwise((len(critic.input_columns), *network.critic_hidden, outputs))) for critic in layout.critics
        ]
        make = partial(
            _layered,
            network,
            shapes,
            layer_norm=network.critic_layer_norm,
            weight_norm=network.critic_weight_norm,
            seed=(seed, 1),
            like=like,
        )
    elif network.critic in SET_CRITICS:
        sets = AgentSets(players, layout, network)
        make = partial(_set_critics, sets, network, layout.critic_outputs, seed=(seed, 1), like=like)
    else:
        make = partial(_user_critics, players, layout, network, seed=(seed, 1), like=like)
    if layout.critic_outputs > 1:
        make = partial(_with_equal_bins, make)
    if any(layout.mixing):
        make = partial(_mixing_or_else, make, players, layout, network, seed=(seed, 1), like=like)
    sides = [players.agents[critic.player].team for critic in layout.critics]
    return _make_set(
        groups, make, sides, algorithm, WeightDecay(algorithm.critic_weight_decay, algorithm.decoupled_weight_decay)
    )


def _layered(
    network: NetworkSpec,
    shapes: Sequence[Sequence[tuple[int, int]]],
    group: Group,
    *,
    layer_norm: bool,
    weight_norm: bool = False,
    seed: tuple[int, int],
    like: Tensor,
) -> tuple[GroupedNetworks, list[Tensor]]:
    """shapes: the layers of each user (policy or critic)."""
    make = GroupedGru if network.recurrent else GroupedMlp
    maps = [gru_shapes(one) if network.recurrent else one for one in shapes]
    first_users = [users[0] for users in group.users]
    sets = len(group.users[0]) if network.tell_apart else 1
    module = make(
        len(group.networks),
        maps[first_users[0]],
        sets,
        like,
        activation=network.activation,
        layer_norm=layer_norm,
        weight_norm=weight_norm,
    )
    drawn = [initial_parameters(module, (*seed, user), network.initialisation) for user in first_users]
    return module, [torch.from_numpy(numbers).to(like) for numbers in drawn]


def _with_equal_bins(make: _MakeGroup, group: Group) -> tuple[GroupedNetworks, list[Tensor]]:
    """Returns the critics of a group with last layers of zeros, so that all values start at 0 (Hafner et al. 2023)."""
    module, parameters = make(group)
    *_, last = (layer for layer in module.modules() if isinstance(layer, GroupedLayer))
    for numbers in parameters:
        numbers[-sum(parameter[0].numel() for parameter in last.parameters()) :] = 0.0
    return module, parameters


def _mixing_or_else(
    make: _MakeGroup,
    players: PlayersSpec,
    layout: NetworkLayout,
    network: NetworkSpec,
    group: Group,
    *,
    seed: tuple[int, int],
    like: Tensor,
) -> tuple[GroupedNetworks, list[Tensor]]:
    """Returns the critics of a group of sides that learn by facmac, or those of any other group by `make`."""
    first_users = [users[0] for users in group.users]
    if not layout.mixing[layout.critics[first_users[0]].player]:
        return make(group)
    inputs = mixing_input(players, layout, network, first_users[0])
    module = MixingCritics(inputs, len(group.networks), network, like)
    return module, [torch.from_numpy(module.initial((*seed, user))).to(like) for user in first_users]


def _set_critics(
    sets: AgentSets, network: NetworkSpec, outputs: int, group: Group, *, seed: tuple[int, int], like: Tensor
) -> tuple[GroupedNetworks, list[Tensor]]:
    module = SetCritics(sets.of(group.users), len(group.networks), network, like, outputs=outputs)
    drawn = [module.initial((*seed, users[0])) for users in group.users]
    return module, [torch.from_numpy(numbers).to(like) for numbers in drawn]


def _user_critics(
    players: PlayersSpec,
    layout: NetworkLayout,
    network: NetworkSpec,
    group: Group,
    *,
    seed: tuple[int, int],
    like: Tensor,
) -> tuple[GroupedNetworks, list[Tensor]]:
    modules = []
    for users in group.users:
        inputs = critic_input(players, layout, users[0])
        modules.append(make_critic(network.critic, inputs, network.critic_hidden, (*seed, users[0]), like))
    return UserCritics(modules), [flat_parameters(module) for module in modules]


def _make_set(
    groups: Sequence[Group], make: _MakeGroup, sides: Sequence[str], algorithm: AlgorithmSpec, weight_decay: WeightDecay
) -> NetworkSet:
    """Returns the networks of one kind; sides: the side of each user (policy or critic)."""
    modules: list[GroupedNetworks] = []
    initial: dict[int, Tensor] = {}
    rates: dict[int, float] = {}
    for group in groups:
        module, parameters = make(group)
        modules.append(module)
        initial |= zip(group.networks, parameters, strict=True)
        for number, users in zip(group.networks, group.users, strict=True):
            rates[number] = algorithm.side_learning_rates.get(sides[users[0]], 1.0)
    return NetworkSet(
        groups,
        modules,
        [initial[number] for number in sorted(initial)],
        [rates[number] for number in sorted(rates)],
        weight_decay=weight_decay,
        clip=ClipRule(algorithm.gradient_clip, by_tensor=algorithm.gradient_clip_by == "tensor"),
    )
