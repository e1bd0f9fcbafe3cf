"""All agents' networks, stacked: one tensor per layer, one flat buffer per kind, forward and backward by hand.

    N agents     C critics (one or two an agent)     B rows of the batch     H width of a hidden layer
    O, U         length of the joint observation, of the joint action        o, u  the same of one agent

What is alike is multiplied at once: the hidden layers of all agents are one batched product; every critic reads the
same joint input, so their first layers are ONE product [B, O+U] @ [O+U, C*H]. What differs is never padded: policies'
first and last layers are stacked over cohorts, runs of neighbouring agents of equal sizes, whose observations and
actions are views of the joint rows. So no agent's loss or gradient can depend on another agent's size.

The backward passes are written out because autograd would also compute gradients nobody needs (of the critics'
parameters in the policy pass, of observations). Output weights are stored [outputs, H], as torch does: with few
outputs, the product that makes their gradient is four times as fast that way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.run import NetworkSpec
from common.spec import AgentSpec, JointSpec


@dataclass(frozen=True)
class Affine:
    """One stacked layer: weight `[N, inputs, outputs]`, bias `[N, outputs]`."""

    weight: Tensor
    bias: Tensor


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

    cohorts: tuple[Cohort, ...]
    first_weights: tuple[Tensor, ...]
    """Per cohort `[n, o, H]`."""
    first_bias: Tensor
    """`[N, H]`."""
    hidden: tuple[Affine, ...]
    last_weights: tuple[Tensor, ...]
    """Per cohort `[n, u, H]`."""
    last_biases: tuple[Tensor, ...]
    """Per cohort `[n, u]`."""
    blocks: tuple[tuple[slice, Tensor], ...]
    """All parameters as (owners, `[x, owners, y]`): what belongs to whom."""


@dataclass(frozen=True)
class CriticTensors:
    """Views into the flat parameters (or gradients) of all critics."""

    first_weight: Tensor
    """`[O+U, C*H]`."""
    first_bias: Tensor
    """`[C, H]`."""
    hidden: tuple[Affine, ...]
    last_weight: Tensor
    """`[C, 1, H]`."""
    last_bias: Tensor
    """`[C, 1]`."""
    blocks: tuple[tuple[slice, Tensor], ...]


def cohorts(joint: JointSpec) -> tuple[Cohort, ...]:
    """Splits the agents of a world into runs of equal sizes."""
    found: list[Cohort] = []
    agents: Iterable[tuple[int, AgentSpec]] = enumerate(joint.agents)
    for (obs_dim, action_dim), run in groupby(agents, lambda item: (item[1].obs_dim, item[1].action_dim)):
        members = list(run)
        start, first, last = members[0][0], members[0][1], members[-1][1]
        found.append(
            Cohort(
                slice(start, start + len(members)),
                len(members),
                slice(first.obs_start, last.obs_slice.stop),
                slice(first.action_start, last.action_slice.stop),
                obs_dim,
                action_dim,
            )
        )
    return tuple(found)


class _Carver:
    """Hands out consecutive pieces of the columns of a block `[owners, columns]`."""

    def __init__(self, block: Tensor) -> None:
        self._block = block
        self._at = 0

    def take(self, *shape: int) -> Tensor:
        """Returns the next piece of every row as a view `[owners, *shape]`."""
        size = 1
        for length in shape:
            size *= length
        piece = self._block[:, self._at : self._at + size]
        self._at += size
        return piece.unflatten(1, shape)


def _hidden_size(hidden: Sequence[int]) -> int:
    return hidden[0] + sum((i + 1) * o for i, o in pairwise(hidden))


def policy_size(joint: JointSpec, network: NetworkSpec) -> int:
    """Returns how many parameters all policies have together."""
    hidden = network.policy_hidden
    ends = (c.size * (c.obs_dim * hidden[0] + c.action_dim * (hidden[-1] + 1)) for c in cohorts(joint))
    return len(joint.agents) * _hidden_size(hidden) + sum(ends)


def policy_tensors(flat: Tensor, joint: JointSpec, network: NetworkSpec) -> PolicyTensors:
    """Lays the layers of all policies over a flat buffer `[policy_size]`."""
    hidden, runs = network.policy_hidden, cohorts(joint)
    agents = len(joint.agents)
    middle = flat[: agents * _hidden_size(hidden)].view(agents, -1)
    carver = _Carver(middle)
    first_bias = carver.take(hidden[0])
    layers = tuple(Affine(carver.take(i, o), carver.take(o)) for i, o in pairwise(hidden))
    blocks = [(slice(0, agents), middle[None])]
    firsts, lasts, biases = [], [], []
    at = middle.numel()
    for run in runs:
        size = run.size * (run.obs_dim * hidden[0] + run.action_dim * (hidden[-1] + 1))
        ends = flat[at : at + size].view(run.size, -1)
        at += size
        carver = _Carver(ends)
        firsts.append(carver.take(run.obs_dim, hidden[0]))
        lasts.append(carver.take(run.action_dim, hidden[-1]))
        biases.append(carver.take(run.action_dim))
        blocks.append((run.agents, ends[None]))
    return PolicyTensors(runs, tuple(firsts), first_bias, layers, tuple(lasts), tuple(biases), tuple(blocks))


def critic_size(inputs: int, critics: int, hidden: Sequence[int]) -> int:
    """Returns how many parameters all critics have together."""
    return critics * (inputs * hidden[0] + _hidden_size(hidden) + hidden[-1] + 1)


def critic_tensors(flat: Tensor, inputs: int, critics: int, hidden: Sequence[int]) -> CriticTensors:
    """Lays the layers of all critics over a flat buffer `[critic_size]`."""
    first = flat[: inputs * critics * hidden[0]].view(inputs, critics, hidden[0])
    rest = flat[first.numel() :].view(critics, -1)
    carver = _Carver(rest)
    first_bias = carver.take(hidden[0])
    layers = tuple(Affine(carver.take(i, o), carver.take(o)) for i, o in pairwise(hidden))
    blocks = ((slice(0, critics), first), (slice(0, critics), rest[None]))
    return CriticTensors(
        first.flatten(1), first_bias, layers, carver.take(1, hidden[-1]), carver.take(1), blocks
    )


def policy_order(joint: JointSpec, network: NetworkSpec) -> Tensor:
    """Returns where each number of common/policy.py's flat layout stands in the stacked buffer `[policy_size]`."""
    places = policy_tensors(torch.arange(policy_size(joint, network)), joint, network)
    order: list[Tensor] = []
    for i, run in enumerate(places.cohorts):
        for k in range(run.size):
            agent = run.agents.start + k
            order += [places.first_weights[i][k], places.first_bias[agent]]
            order += _hidden_of(places.hidden, agent)
            order += [places.last_weights[i][k].t(), places.last_biases[i][k]]
    return torch.cat([piece.flatten() for piece in order])


def critic_order(inputs: int, critics: int, hidden: Sequence[int]) -> Tensor:
    """Returns the same for critics laid out one by one: layer by layer, weight `[inputs, outputs]`, then bias."""
    places = critic_tensors(torch.arange(critic_size(inputs, critics, hidden)), inputs, critics, hidden)
    order: list[Tensor] = []
    for c in range(critics):
        order += [places.first_weight[:, c * hidden[0] : (c + 1) * hidden[0]], places.first_bias[c]]
        order += _hidden_of(places.hidden, c)
        order += [places.last_weight[c].t(), places.last_bias[c]]
    return torch.cat([piece.flatten() for piece in order])


def _hidden_of(layers: Sequence[Affine], owner: int) -> list[Tensor]:
    return [tensor[owner] for layer in layers for tensor in (layer.weight, layer.bias)]


def initial_weights(shapes: Sequence[tuple[int, int]], seed: Sequence[int]) -> npt.NDArray[np.float32]:
    """Draws one network's weights and biases uniformly within 1 / sqrt(inputs), layer by layer.

    That is torch's default for linear layers and what the runs in docs/results.md were tuned with; unlike orthogonal
    matrices it keeps first logits small, so bounded policies do not start at their bounds. numpy draws it because its
    streams are the same on every device and in every version of torch.
    """
    generator = np.random.default_rng(seed)
    pieces = [generator.uniform(-1.0, 1.0, (i + 1) * o) / np.sqrt(i) for i, o in shapes]
    return np.concatenate(pieces).astype(np.float32)
