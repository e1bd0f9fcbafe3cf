"""The decentralised policies in numpy: flat weights -> joint actions.

One small ReLU network per agent, from its own observation to one logit per number of its action. Heads turn logits
into actions: a Box part is `middle + half_range * tanh(logit)`, a Categorical part the one-hot argmax. What an agent
executes needs neither the critic, nor torch, nor the other agents.

Flat layout (float32): agent by agent in spec order, layer by layer, weight `[inputs, outputs]` row-major, then bias.
The learner's torch forward equals this one within 1e-6 relative.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from common.run import NetworkSpec
from common.spec import AgentSpec, Box, JointSpec

Floats = npt.NDArray[np.float32]


class Layer(NamedTuple):
    """One affine layer: weight `[inputs, outputs]`, bias `[outputs]`."""

    weight: Floats
    bias: Floats


def layer_shapes(agent: AgentSpec, network: NetworkSpec) -> list[tuple[int, int]]:
    """Returns (inputs, outputs) of each layer of an agent's policy."""
    return list(pairwise((agent.obs_dim, *network.policy_hidden, agent.action_dim)))


def weight_count(joint: JointSpec, network: NetworkSpec) -> int:
    """Returns how many numbers the flat weights of all policies hold."""
    return sum((i + 1) * o for agent in joint.agents for i, o in layer_shapes(agent, network))


def unflatten(flat: Floats, joint: JointSpec, network: NetworkSpec) -> list[list[Layer]]:
    """Returns each agent's layers as views into the flat weights; ValueError when the length does not fit."""
    if flat.shape != (weight_count(joint, network),):
        raise ValueError(f"flat weights have shape {flat.shape}, the policies need ({weight_count(joint, network)},)")
    policies: list[list[Layer]] = []
    at = 0
    for agent in joint.agents:
        layers: list[Layer] = []
        for inputs, outputs in layer_shapes(agent, network):
            middle, end = at + inputs * outputs, at + (inputs + 1) * outputs
            layers.append(Layer(flat[at:middle].reshape(inputs, outputs), flat[middle:end]))
            at = end
        policies.append(layers)
    return policies


def box_range(part: Box) -> tuple[Floats, Floats]:
    """Returns middle and half range of a Box part, each `[size]`."""
    low, high = np.array(part.low, np.float32), np.array(part.high, np.float32)
    two = np.float32(2)
    return (high + low) / two, (high - low) / two


class Policy:
    """All agents' policies with one set of weights."""

    def __init__(self, joint: JointSpec, network: NetworkSpec, flat: Floats) -> None:
        """Takes flat weights `[weight_count]`; keeps views, so the caller must not change them afterwards."""
        self._joint = joint
        self._layers = unflatten(flat, joint, network)

    def logits(self, obs: Floats) -> Floats:
        """Returns the networks' outputs `[copies, sum action]` for joint observations `[copies, sum obs]`."""
        out = np.empty((len(obs), self._joint.action_dim), np.float32)
        for agent, layers in zip(self._joint.agents, self._layers, strict=True):
            x = obs[:, agent.obs_slice]
            for layer in layers[:-1]:
                x = x @ layer.weight
                x += layer.bias
                np.maximum(x, 0.0, out=x)
            np.matmul(x, layers[-1].weight, out=out[:, agent.action_slice])
            out[:, agent.action_slice] += layers[-1].bias
        return out

    def act(self, obs: Floats) -> Floats:
        """Returns the joint actions `[copies, sum action]` without exploration."""
        return greedy(self._joint, self.logits(obs))


def greedy(joint: JointSpec, logits: Floats) -> Floats:
    """Applies the heads to logits `[copies, sum action]`: bounded Box values, one-hot argmax of Categorical parts."""
    actions = np.empty_like(logits)
    for agent in joint.agents:
        own, out = logits[:, agent.action_slice], actions[:, agent.action_slice]
        for part, columns in zip(agent.parts, agent.part_slices, strict=True):
            if isinstance(part, Box):
                middle, half = box_range(part)
                out[:, columns] = middle + half * np.tanh(own[:, columns])
            else:
                out[:, columns] = one_hot(own[:, columns].argmax(axis=1), part.n)
    return actions


def one_hot(choices: npt.NDArray[np.intp], n: int) -> Floats:
    """Returns `[copies, n]` with 1.0 at each copy's choice."""
    out = np.zeros((len(choices), n), np.float32)
    out[np.arange(len(choices)), choices] = 1.0
    return out
