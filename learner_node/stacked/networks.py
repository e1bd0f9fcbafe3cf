"""The stacked networks: the layers of all policies, and of all critics, as views of one flat buffer each.

    N players     C critics (one or two a player)     H width of a hidden layer
    O, U  length of the joint observation, of the joint action     o, u  length of one player's observation, action
    S     length of the global state, 0 if critics do not read it

Layers of equal sizes are one tensor, so that a layer of all players is one batched product. All critics read the same
joint input, without copies. First and last layers of policies are stacked by cohort (neighbouring players of equal
sizes), whose observations and actions are views of the joint rows. Nothing is padded, so no player's loss or gradient
can depend on another player's size.

Last layers are stored [outputs, H], as in torch: with few outputs their gradient is four times as fast that way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
from torch import Tensor

from common.run.run import NetworkSpec
from common.spec import PlayersSpec
from learner_node.update.optimiser import Block


class Affine:
    """One stacked layer: weight `[N, inputs, outputs]`, its transpose, and bias `[N, 1, outputs]`."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight = weight
        self.weight_t = weight.transpose(1, 2)
        self.bias = bias


@dataclass(frozen=True)
class Cohort:
    """Neighbouring players with observations and actions of equal sizes."""

    agents: slice
    size: int
    obs: slice
    """Columns of their observations, side by side, in the joint observation."""
    action: slice
    """Columns of their actions, side by side, in the joint action."""
    obs_dim: int
    action_dim: int


@dataclass(frozen=True)
class PolicyTensors:
    """Views of the flat parameters (or gradients) of all policies."""

    first_weights: tuple[Tensor, ...]
    """By cohort `[n, o, H]`."""
    first_bias: Tensor
    """`[N, 1, H]`."""
    first_biases: tuple[Tensor, ...]
    """Views of `first_bias` by cohort `[n, 1, H]`."""
    hidden: tuple[Affine, ...]
    last_weights: tuple[Tensor, ...]
    """By cohort `[n, u, H]`."""
    last_biases: tuple[Tensor, ...]
    """By cohort `[n, u, 1]`."""


@dataclass(frozen=True)
class CriticTensors:
    """Views of the flat parameters (or gradients) of all critics."""

    first_weight: Tensor
    """`[C, O+U+S+1, H]`: the last row of each critic is its bias, the weights of an input that is always 1."""
    hidden: tuple[Affine, ...]
    last_weight: Tensor
    """`[C, 1, H]`."""
    last_bias: Tensor
    """`[C, 1, 1]`."""

    def first_critics(self, count: int) -> CriticTensors:
        """Returns views of the first `count` critics."""
        return CriticTensors(
            self.first_weight[:count],
            tuple(Affine(layer.weight[:count], layer.bias[:count]) for layer in self.hidden),
            self.last_weight[:count],
            self.last_bias[:count],
        )


def cohorts(players: PlayersSpec) -> tuple[Cohort, ...]:
    """Returns the players of a run, split into cohorts."""
    found: list[Cohort] = []
    start = 0
    for (obs_dim, action_dim), cohort in groupby(players.agents, lambda agent: (agent.obs_dim, agent.action_dim)):
        members = list(cohort)
        agents = slice(start, start + len(members))
        obs = slice(members[0].obs_start, members[-1].obs_slice.stop)
        action = slice(members[0].action_start, members[-1].action_slice.stop)
        found.append(Cohort(agents, len(members), obs, action, obs_dim, action_dim))
        start = agents.stop
    return tuple(found)


def _cut(rows: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Returns the columns of `[networks, columns]` as views `[networks, *shape]`, one for each shape."""
    pieces = torch.split(rows, [math.prod(shape) for shape in shapes], dim=1)
    return [piece.view(-1, *shape) for piece, shape in zip(pieces, shapes, strict=True)]


def _hidden_shapes(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the shapes of weight and bias of each layer between the first and the last."""
    return [shape for i, o in pairwise(widths) for shape in ((i, o), (1, o))]


def _affines(tensors: Sequence[Tensor]) -> tuple[Affine, ...]:
    return tuple(Affine(weight, bias) for weight, bias in zip(tensors[::2], tensors[1::2], strict=True))


def policy_blocks(players: PlayersSpec, network: NetworkSpec) -> list[Block]:
    """Returns the blocks of all policies' parameters in their flat buffer.

    In order: the first biases, a row for each player; the hidden layers, a row for each player; then for each cohort
    the first weights and the last layer, a row for each player.
    """
    widths, agents = network.policy_hidden, len(players.agents)
    sizes = [(agents, widths[0]), (agents, sum(map(math.prod, _hidden_shapes(widths))))]
    sizes += [(cohort.size, sum(map(math.prod, _end_shapes(cohort, widths)))) for cohort in cohorts(players)]
    return _side_by_side(sizes)


def policy_tensors(flat: Tensor, players: PlayersSpec, network: NetworkSpec) -> PolicyTensors:
    """Returns the layers of all policies as views of a flat buffer."""
    widths = network.policy_hidden
    first_bias, hidden, *ends = (block.of(flat) for block in policy_blocks(players, network))
    layers = _affines(_cut(hidden, _hidden_shapes(widths)))
    cut = [_cut(rows, _end_shapes(cohort, widths)) for cohort, rows in zip(cohorts(players), ends, strict=True)]
    first_weights, last_weights, last_biases = zip(*cut, strict=True)
    first_bias = first_bias[:, None]
    first_biases = tuple(first_bias[cohort.agents] for cohort in cohorts(players))
    return PolicyTensors(first_weights, first_bias, first_biases, layers, last_weights, last_biases)


def critic_blocks(inputs: int, critics: int, widths: Sequence[int]) -> list[Block]:
    """Returns the blocks of all critics' parameters in their flat buffer.

    In order: the first layers, critic by critic, a row for each input and a last one for the biases; then the other
    layers, a row for each critic.
    """
    rest = sum(map(math.prod, _rest_shapes(widths)))
    return _side_by_side([((inputs + 1) * critics, widths[0]), (critics, rest)])


def critic_tensors(flat: Tensor, inputs: int, critics: int, widths: Sequence[int]) -> CriticTensors:
    """Returns the layers of all critics as views of a flat buffer."""
    first, rest = (block.of(flat) for block in critic_blocks(inputs, critics, widths))
    *hidden, last_weight, last_bias = _cut(rest, _rest_shapes(widths))
    return CriticTensors(first.view(critics, inputs + 1, widths[0]), _affines(hidden), last_weight, last_bias)


def policy_pieces(policies: PolicyTensors, players: PlayersSpec, player: int) -> list[Tensor]:
    """Returns one player's tensors in the order of common/policy/network.py's flat layout."""
    for i, cohort in enumerate(cohorts(players)):
        if cohort.agents.start <= player < cohort.agents.stop:
            k = player - cohort.agents.start
            first, last = policies.first_weights[i][k], policies.last_weights[i][k]
            inner = _hidden_of(policies.hidden, player)
            return [first, policies.first_bias[player], *inner, last.t(), policies.last_biases[i][k]]
    raise IndexError(player)


def critic_pieces(critics: CriticTensors, critic: int, input_columns: Sequence[int]) -> list[Tensor]:
    """Returns one critic's tensors: layer by layer, weight `[inputs, outputs]`, then bias.

    input_columns: the columns of the joint observation and action that the critic reads, in its order.
    """
    first, bias = critics.first_weight[critic, list(input_columns)], critics.first_weight[critic, -1]
    inner = _hidden_of(critics.hidden, critic)
    return [first, bias, *inner, critics.last_weight[critic].t(), critics.last_bias[critic]]


def _hidden_of(layers: Sequence[Affine], owner: int) -> list[Tensor]:
    return [tensor[owner] for layer in layers for tensor in (layer.weight, layer.bias)]


def _end_shapes(cohort: Cohort, widths: Sequence[int]) -> list[tuple[int, int]]:
    return [(cohort.obs_dim, widths[0]), (cohort.action_dim, widths[-1]), (cohort.action_dim, 1)]


def _rest_shapes(widths: Sequence[int]) -> list[tuple[int, int]]:
    return [*_hidden_shapes(widths), (1, widths[-1]), (1, 1)]


def _side_by_side(sizes: Sequence[tuple[int, int]]) -> list[Block]:
    blocks: list[Block] = []
    start = 0
    for rows, width in sizes:
        blocks.append(Block(start, rows, width))
        start += rows * width
    return blocks
