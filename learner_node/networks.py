"""All agents' networks, stacked: the layers of all policies, and of all critics, laid over one flat buffer each.

    N agents     C critics (one or two an agent)     H width of a hidden layer
    O, U         length of the joint observation, of the joint action        o, u  the same of one agent

What is alike is one tensor: the hidden layers of all agents are one batched product; every critic reads the same joint
input, so their first layers are ONE product [B, O+U] @ [O+U, C*H]. What differs is never padded: policies' first and
last layers are stacked over cohorts, runs of neighbouring agents of equal sizes, whose observations and actions are
views of the joint rows. So no agent's loss or gradient can depend on another agent's size.

Last layers are stored [outputs, H], as torch does: with few outputs their gradient is four times as fast that way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.policy import layer_shapes
from common.run import NetworkSpec
from common.spec import JointSpec

Blocks = Sequence[tuple[slice, Tensor]]
"""All parameters (or gradients) of one kind as (owners, `[x, owners, y]`): what belongs to whose network."""


class Affine:
    """One stacked layer: weight `[N, inputs, outputs]`, its transpose, and bias `[N, 1, outputs]`."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight = weight
        self.weight_t = weight.transpose(1, 2)
        self.bias = bias


@dataclass(frozen=True)
class Cohort:
    """A run of neighbouring agents with observations and actions of equal sizes."""

    agents: slice
    size: int
    obs: slice
    """Where their observations stand, side by side, in the joint observation."""
    action: slice
    obs_dim: int
    action_dim: int


@dataclass(frozen=True)
class PolicyTensors:
    """Views into the flat parameters (or gradients) of all policies."""

    first_weights: tuple[Tensor, ...]
    """Per cohort `[n, o, H]`."""
    first_bias: Tensor
    """`[N, 1, H]`."""
    hidden: tuple[Affine, ...]
    last_weights: tuple[Tensor, ...]
    """Per cohort `[n, u, H]`."""
    last_biases: tuple[Tensor, ...]
    """Per cohort `[n, u, 1]`."""
    blocks: Blocks


@dataclass(frozen=True)
class CriticTensors:
    """Views into the flat parameters (or gradients) of all critics."""

    first_weight: Tensor
    """`[O+U, C*H]`."""
    first_bias: Tensor
    """`[C*H]`."""
    hidden: tuple[Affine, ...]
    last_weight: Tensor
    """`[C, 1, H]`."""
    last_bias: Tensor
    """`[C, 1, 1]`."""
    blocks: Blocks


def cohorts(joint: JointSpec) -> tuple[Cohort, ...]:
    """Splits the agents of a world into runs of equal sizes."""
    found: list[Cohort] = []
    start = 0
    for (obs_dim, action_dim), run in groupby(joint.agents, lambda agent: (agent.obs_dim, agent.action_dim)):
        members = list(run)
        agents = slice(start, start + len(members))
        obs = slice(members[0].obs_start, members[-1].obs_slice.stop)
        action = slice(members[0].action_start, members[-1].action_slice.stop)
        found.append(Cohort(agents, len(members), obs, action, obs_dim, action_dim))
        start = agents.stop
    return tuple(found)


def _cut(rows: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Sees `[owners, columns]` as tensors `[owners, *shape]` side by side."""
    pieces = torch.split(rows, [math.prod(shape) for shape in shapes], dim=1)
    return [piece.view(-1, *shape) for piece, shape in zip(pieces, shapes, strict=True)]


def _hidden_shapes(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the shapes of weight and bias of each layer between the first and the last."""
    return [shape for i, o in pairwise(widths) for shape in ((i, o), (1, o))]


def _affines(tensors: Sequence[Tensor]) -> tuple[Affine, ...]:
    return tuple(Affine(weight, bias) for weight, bias in zip(tensors[::2], tensors[1::2], strict=True))


def policy_size(joint: JointSpec, network: NetworkSpec) -> int:
    """Returns how many parameters all policies have together."""
    return sum((i + 1) * o for agent in joint.agents for i, o in layer_shapes(agent, network))


def policy_tensors(flat: Tensor, joint: JointSpec, network: NetworkSpec) -> PolicyTensors:
    """Lays the layers of all policies over a flat buffer `[policy_size]`.

    A row an agent: first what all agents have alike, then cohort by cohort what only cohorts have alike.
    """
    widths, agents = network.policy_hidden, len(joint.agents)
    shapes = [(1, widths[0]), *_hidden_shapes(widths)]
    alike = flat[: agents * sum(map(math.prod, shapes))].view(agents, -1)
    first_bias, *hidden = _cut(alike, shapes)
    at, ends = alike.numel(), []
    blocks = [(slice(0, agents), alike[None])]
    for run in cohorts(joint):
        shapes = [(run.obs_dim, widths[0]), (run.action_dim, widths[-1]), (run.action_dim, 1)]
        rows = flat[at : at + run.size * sum(map(math.prod, shapes))].view(run.size, -1)
        at += rows.numel()
        blocks.append((run.agents, rows[None]))
        ends.append(_cut(rows, shapes))
    first_weights, last_weights, last_biases = zip(*ends, strict=True)
    return PolicyTensors(first_weights, first_bias, _affines(hidden), last_weights, last_biases, tuple(blocks))


def critic_size(inputs: int, critics: int, widths: Sequence[int]) -> int:
    """Returns how many parameters all critics have together."""
    return critics * sum((i + 1) * o for i, o in pairwise((inputs, *widths, 1)))


def critic_tensors(flat: Tensor, inputs: int, critics: int, widths: Sequence[int]) -> CriticTensors:
    """Lays the layers of all critics over a flat buffer `[critic_size]`.

    The first layers of all critics side by side, their biases as the last row; then a row a critic.
    """
    everyone, size = slice(0, critics), (inputs + 1) * critics * widths[0]
    first = flat[:size].view(inputs + 1, critics, widths[0])
    rows = flat[size:].view(critics, -1)
    *hidden, last_weight, last_bias = _cut(rows, [*_hidden_shapes(widths), (1, widths[-1]), (1, 1)])
    side_by_side = first.flatten(1)
    blocks = ((everyone, first), (everyone, rows[None]))
    return CriticTensors(side_by_side[:inputs], side_by_side[inputs], _affines(hidden), last_weight, last_bias, blocks)


def policy_order(joint: JointSpec, network: NetworkSpec) -> Tensor:
    """Returns where each number of common/policy.py's flat layout stands in the stacked buffer `[policy_size]`."""
    places = policy_tensors(torch.arange(policy_size(joint, network)), joint, network)
    order: list[Tensor] = []
    for i, run in enumerate(cohorts(joint)):
        for k, agent in enumerate(range(run.agents.start, run.agents.stop)):
            order += [places.first_weights[i][k], places.first_bias[agent]]
            order += _hidden_of(places.hidden, agent)
            order += [places.last_weights[i][k].t(), places.last_biases[i][k]]
    return torch.cat([piece.flatten() for piece in order])


def critic_order(inputs: int, critics: int, widths: Sequence[int]) -> Tensor:
    """Returns the same for critics laid out one by one: layer by layer, weight `[inputs, outputs]`, then bias."""
    places = critic_tensors(torch.arange(critic_size(inputs, critics, widths)), inputs, critics, widths)
    order: list[Tensor] = []
    for c in range(critics):
        columns = slice(c * widths[0], (c + 1) * widths[0])
        order += [places.first_weight[:, columns], places.first_bias[columns]]
        order += _hidden_of(places.hidden, c)
        order += [places.last_weight[c].t(), places.last_bias[c]]
    return torch.cat([piece.flatten() for piece in order])


def _hidden_of(layers: Sequence[Affine], owner: int) -> list[Tensor]:
    return [tensor[owner] for layer in layers for tensor in (layer.weight, layer.bias)]


def initial_weights(shapes: Sequence[tuple[int, int]], seed: Sequence[int]) -> npt.NDArray[np.float32]:
    """Draws one network's weights and biases uniformly within 1 / sqrt(inputs), layer by layer.

    That is torch's default for linear layers; unlike orthogonal matrices it keeps first logits small, so bounded
    policies do not start at their bounds. numpy draws it because its streams are the same on every device and in
    every version of torch.
    """
    generator = np.random.default_rng(seed)
    pieces = [generator.uniform(-1.0, 1.0, (i + 1) * o) / np.sqrt(i) for i, o in shapes]
    return np.concatenate(pieces).astype(np.float32)
