"""The decentralised policies in numpy: from flat weights and observations to joint actions.

Each player has one small network from its own observation to one logit per number of its action; heads
(`common/policy/heads.py`) turn logits into actions. Execution needs no critic, no torch and no other player.

    obs -> hidden layers -> linear -> logits         hidden layer: linear -> layer norm (if set) -> activation
                                 `--> standard deviations, one for each Box number of a stochastic player

A stochastic player (`masac`, `isac`) has further outputs after its logits (common/policy/gaussian.py). Without
exploration it acts by its logits alone, as all players do.

Flat layout (float32): player by player in spec order, layer by layer. A layer has its weight `[inputs, outputs]`
row-major, its bias `[outputs]`, and, in hidden layers with layer normalisation, the norm's gain `[outputs]` and the
norm's bias `[outputs]`. The learner's torch forward pass agrees with this one within 1e-6 relative.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from common.policy.activations import ACTIVATIONS, layer_norm
from common.policy.gaussian import std
from common.policy.heads import Floats, GreedyHeads
from common.policy.masks import ActionMasks
from common.run.run import Activation, NetworkSpec
from common.spec import PlayerSpec, PlayersSpec

Draw = Callable[[int], npt.NDArray[np.float64]]
"""Returns random numbers `[copies, n]` for n numbers of the joint action."""


class LayerNorm(NamedTuple):
    """The learnt numbers of one layer normalisation: gain and bias `[units]`."""

    gain: Floats
    bias: Floats


class Layer(NamedTuple):
    """One layer of a network: a linear map, then layer normalisation and an activation, if it has them."""

    weight: Floats
    """`[inputs, outputs]`."""
    bias: Floats
    """`[outputs]`."""
    norm: LayerNorm | None = None
    activation: Activation | None = None
    """None for the last layer of a network."""

    def forward(self, x: Floats) -> Floats:
        """Returns the layer's outputs `[rows, outputs]` for inputs `[rows, inputs]`."""
        x = x @ self.weight
        x += self.bias
        if self.norm is not None:
            layer_norm(x, *self.norm)
        if self.activation is not None:
            ACTIVATIONS[self.activation](x)
        return x


def layer_shapes(player: PlayerSpec, network: NetworkSpec) -> list[tuple[int, int]]:
    """Returns (inputs, outputs) of each layer of a player's policy."""
    return list(pairwise((player.obs_dim, *network.policy_hidden, player.output_dim)))


def parameter_shapes(player: PlayerSpec, network: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each parameter of a player's policy, by its name LAYER/PARAMETER, in flat order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (inputs, outputs) in enumerate(layer_shapes(player, network)):
        shapes |= {f"{i}/weight": (inputs, outputs), f"{i}/bias": (outputs,)}
        if network.policy_layer_norm and i < len(network.policy_hidden):
            shapes |= {f"{i}/norm_gain": (outputs,), f"{i}/norm_bias": (outputs,)}
    return shapes


def parameter_count(player: PlayerSpec, network: NetworkSpec) -> int:
    """Returns the number of parameters of a player's policy."""
    return sum(map(math.prod, parameter_shapes(player, network).values()))


def weight_count(players: PlayersSpec, network: NetworkSpec) -> int:
    """Returns the length of the flat weights of all policies."""
    return sum(parameter_count(player, network) for player in players.agents)


def named_parameters(flat: Floats, players: PlayersSpec, network: NetworkSpec) -> list[dict[str, Floats]]:
    """Returns each player's parameters by name, as views of the flat weights; ValueError if the length does not fit."""
    if flat.shape != (weight_count(players, network),):
        raise ValueError(f"flat weights have shape {flat.shape}, the policies need ({weight_count(players, network)},)")
    policies: list[dict[str, Floats]] = []
    start = 0
    for player in players.agents:
        policies.append({})
        for name, shape in parameter_shapes(player, network).items():
            end = start + math.prod(shape)
            policies[-1][name] = flat[start:end].reshape(shape)
            start = end
    return policies


def unflatten(flat: Floats, players: PlayersSpec, network: NetworkSpec) -> list[list[Layer]]:
    """Returns each player's layers up to the logits, as views of the flat weights; ValueError for a wrong length."""
    hidden = len(network.policy_hidden)
    policies = [
        [_layer(parameters, i, network.activation if i < hidden else None) for i in range(hidden + 1)]
        for parameters in named_parameters(flat, players, network)
    ]
    for player, layers in zip(players.agents, policies, strict=True):
        layers[-1] = Layer(layers[-1].weight[:, : player.action_dim], layers[-1].bias[: player.action_dim])
    return policies


def std_layers(flat: Floats, players: PlayersSpec, network: NetworkSpec) -> list[Layer]:
    """Returns each player's layer from the last hidden layer to its standard deviations, as views; it may be empty."""
    last = len(network.policy_hidden)
    layers = [_layer(parameters, last, None) for parameters in named_parameters(flat, players, network)]
    return [
        Layer(layer.weight[:, player.action_dim :], layer.bias[player.action_dim :])
        for player, layer in zip(players.agents, layers, strict=True)
    ]


def _layer(parameters: dict[str, Floats], i: int, activation: Activation | None) -> Layer:
    norm = None
    if f"{i}/norm_gain" in parameters:
        norm = LayerNorm(parameters[f"{i}/norm_gain"], parameters[f"{i}/norm_bias"])
    return Layer(parameters[f"{i}/weight"], parameters[f"{i}/bias"], norm, activation)


class PolicyOutputs(NamedTuple):
    """The outputs of all policies for joint observations."""

    logits: Floats
    """`[copies, sum action]`; those of forbidden choices are lowered by `FORBIDDEN` (common/policy/masks.py)."""
    std: Floats | None
    """Standard deviations of the numbers in `PlayersSpec.gaussian_columns` `[copies, G]`; None if there are none."""


class Policy:
    """The policies of all players with one set of weights.

    Example:
        policy = Policy(run.players, run.spec.network, weights.flat)
        actions = policy.act(obs)  # [copies, sum obs] -> [copies, sum action]
    """

    def __init__(self, players: PlayersSpec, network: NetworkSpec, flat: Floats) -> None:
        """Takes flat weights `[weight_count]` without a copy, so the caller must not change them afterwards."""
        self._action_dim = players.action_dim
        self._heads = GreedyHeads(players, network.head)
        self._columns = [(player.obs_slice, player.action_slice) for player in players.agents]
        self._layers = unflatten(flat, players, network)
        self._std_layers = std_layers(flat, players, network)
        self._gaussian_columns = list(players.gaussian_columns)
        self._masks = ActionMasks(players.mask_columns)

    def logits(self, obs: Floats) -> Floats:
        """Returns the networks' outputs `[copies, sum action]` for joint observations `[copies, sum obs]`.

        Those of forbidden choices are lowered by `FORBIDDEN` (common/policy/masks.py).
        """
        return self.outputs(obs).logits

    def outputs(self, obs: Floats) -> PolicyOutputs:
        """Returns the logits and standard deviations of all policies for joint observations `[copies, sum obs]`."""
        out = np.empty((len(obs), self._action_dim), np.float32)
        stds: list[Floats] = []
        by_player = zip(self._columns, self._layers, self._std_layers, strict=True)
        for (observed, acted), (*hidden, last), std_layer in by_player:
            x = obs[:, observed]
            for layer in hidden:
                x = layer.forward(x)
            logits = out[:, acted]
            np.matmul(x, last.weight, out=logits)
            logits += last.bias
            if len(std_layer.bias):
                stds.append(std(std_layer.forward(x)))
        return PolicyOutputs(self._masks.lower(out, obs), np.concatenate(stds, axis=1) if stds else None)

    def act(self, obs: Floats) -> Floats:
        """Returns the joint actions `[copies, sum action]` for joint observations, without exploration."""
        return self._heads(self.logits(obs))

    def sample(self, obs: Floats, gumbel: Draw, normal: Draw) -> Floats:
        """Returns joint actions drawn from the policies: choices, soft vectors, and Box parts of stochastic players.

        Other Box parts are as in `act`. gumbel, normal: return standard Gumbel and Gaussian noise `[copies, n]` for n
        numbers of the joint action.
        """
        logits, deviations = self.outputs(obs)
        for segment in self._heads.segments:
            if segment.kind in ("choice", "soft"):
                # The argmax of logits with Gumbel noise is a sample from their softmax, their softmax a soft sample.
                part = logits[:, segment.columns]
                part += gumbel(part.shape[1])
        if deviations is not None:
            logits[:, self._gaussian_columns] += deviations * normal(deviations.shape[1])
        return self._heads(logits)
