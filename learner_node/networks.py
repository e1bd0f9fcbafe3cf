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

from common.run import NetworkSpec
from common.spec import JointSpec

Blocks = Sequence[tuple[slice, Tensor]]
"""All parameters (or gradients) of one kind as (owners, `[x, owners, y]`): what belongs to whose network."""


class Affine:
    """One stacked layer: weight `[N, inputs, outputs]`, its transpose, and bias `[N*outputs]`."""

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
    """`[N*H]`."""
    hidden: tuple[Affine, ...]
    last_weights: tuple[Tensor, ...]
    """Per cohort `[n, u, H]`."""
    last_biases: tuple[Tensor, ...]
    """Per cohort `[n, u]`."""
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
    """`[C, 1]`."""
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


class _Carver:
    """Hands out consecutive pieces of a flat buffer as blocks `[x, owners, y]`, and pieces of their rows."""

    def __init__(self, flat: Tensor) -> None:
        self._flat = flat
        self._at = 0
        self.blocks: list[tuple[slice, Tensor]] = []

    def block(self, x: int, owners: slice, y: int) -> Tensor:
        """Returns the next block."""
        count = owners.stop - owners.start
        piece = self._flat[self._at : self._at + x * count * y].view(x, count, y)
        self._at += piece.numel()
        self.blocks.append((owners, piece))
        return piece

    def hidden(self, owners: slice, hidden: Sequence[int]) -> tuple[Affine, ...]:
        """Returns the layers between the first and the last."""
        layers = []
        for inputs, outputs in pairwise(hidden):
            weight = self.block(1, owners, inputs * outputs)[0].unflatten(1, (inputs, outputs))
            layers.append(Affine(weight, self.block(1, owners, outputs).view(-1)))
        return tuple(layers)


def split(rows: Tensor, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Cuts `[owners, columns]` into views `[owners, *shape]`, side by side."""
    pieces = rows.split([math.prod(shape) for shape in shapes], dim=1)
    return [piece.unflatten(1, shape) for piece, shape in zip(pieces, shapes, strict=True)]


def policy_size(joint: JointSpec, network: NetworkSpec) -> int:
    """Returns how many parameters all policies have together."""
    widths = network.policy_hidden
    return sum(
        sum((i + 1) * o for i, o in pairwise((agent.obs_dim, *widths, agent.action_dim))) for agent in joint.agents
    )


def policy_tensors(flat: Tensor, joint: JointSpec, network: NetworkSpec) -> PolicyTensors:
    """Lays the layers of all policies over a flat buffer `[policy_size]`."""
    widths, everyone = network.policy_hidden, slice(0, len(joint.agents))
    carver = _Carver(flat)
    first_bias = carver.block(1, everyone, widths[0]).view(-1)
    hidden = carver.hidden(everyone, widths)
    ends = []
    for run in cohorts(joint):
        shapes = (run.obs_dim, widths[0]), (run.action_dim, widths[-1]), (run.action_dim,)
        rows = carver.block(1, run.agents, sum(math.prod(shape) for shape in shapes))[0]
        ends.append(split(rows, *shapes))
    first_weights, last_weights, last_biases = zip(*ends, strict=True)
    return PolicyTensors(first_weights, first_bias, hidden, last_weights, last_biases, carver.blocks)


def critic_size(inputs: int, critics: int, widths: Sequence[int]) -> int:
    """Returns how many parameters all critics have together."""
    return critics * sum((i + 1) * o for i, o in pairwise((inputs, *widths, 1)))


def critic_tensors(flat: Tensor, inputs: int, critics: int, widths: Sequence[int]) -> CriticTensors:
    """Lays the layers of all critics over a flat buffer `[critic_size]`."""
    everyone = slice(0, critics)
    carver = _Carver(flat)
    first = carver.block(inputs + 1, everyone, widths[0]).flatten(1)
    hidden = carver.hidden(everyone, widths)
    last_weight, last_bias = split(carver.block(1, everyone, widths[-1] + 1)[0], (1, widths[-1]), (1,))
    return CriticTensors(first[:inputs], first[inputs], hidden, last_weight, last_bias, carver.blocks)


def policy_order(joint: JointSpec, network: NetworkSpec) -> Tensor:
    """Returns where each number of common/policy.py's flat layout stands in the stacked buffer `[policy_size]`."""
    places = policy_tensors(torch.arange(policy_size(joint, network)), joint, network)
    first_bias = places.first_bias.view(len(joint.agents), -1)
    order: list[Tensor] = []
    for i, run in enumerate(cohorts(joint)):
        for k, agent in enumerate(range(run.agents.start, run.agents.stop)):
            order += [places.first_weights[i][k], first_bias[agent]]
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
    return [
        tensor for layer in layers for tensor in (layer.weight[owner], layer.bias.view(len(layer.weight), -1)[owner])
    ]


def initial_weights(shapes: Sequence[tuple[int, int]], seed: Sequence[int]) -> npt.NDArray[np.float32]:
    """Draws one network's weights and biases uniformly within 1 / sqrt(inputs), layer by layer.

    That is torch's default for linear layers; unlike orthogonal matrices it keeps first logits small, so bounded
    policies do not start at their bounds. numpy draws it because its streams are the same on every device and in
    every version of torch.
    """
    generator = np.random.default_rng(seed)
    pieces = [generator.uniform(-1.0, 1.0, (i + 1) * o) / np.sqrt(i) for i, o in shapes]
    return np.concatenate(pieces).astype(np.float32)
