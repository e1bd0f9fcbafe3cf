"""The decentralised policies in numpy: flat weights -> joint actions.

One small ReLU network per agent, from its own observation to one logit per number of its action; heads
(`common/heads.py`) turn logits into actions. What an agent executes needs neither the critic, nor torch, nor the other
agents.

Flat layout (float32): agent by agent in spec order, layer by layer, weight `[inputs, outputs]` row-major, then bias.
The learner's torch forward equals this one within 1e-6 relative.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from common.heads import Floats, GreedyHeads
from common.run import NetworkSpec
from common.spec import AgentSpec, JointSpec


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


class Policy:
    """All agents' policies with one set of weights."""

    def __init__(self, joint: JointSpec, network: NetworkSpec, flat: Floats) -> None:
        """Takes flat weights `[weight_count]`; keeps views, so the caller must not change them afterwards."""
        self._joint = joint
        self._heads = GreedyHeads(joint, network.head)
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
        return self._heads(self.logits(obs))
