"""The decentralised policies in numpy: from flat weights and observations to joint actions.

Each player has one small network from its own observation to one logit per number of its action; heads
(`common/policy/heads.py`) turn logits into actions. Execution needs no critic, no torch and no other player.

    obs -> hidden layers -> linear -> logits         hidden layer: linear -> layer norm (if set) -> activation
                                 `--> standard deviations, one for each Box number of a stochastic player

In a recurrent policy (`network.recurrent`) the last hidden layer is a gated recurrent unit, whose state is the policy's
memory of its episode. The caller owns the memory `[copies, memory_dim]`, which `Policy` updates in place at each step,
and sets the rows of copies whose episode starts to zero:

    memory = np.zeros((copies, policy.memory_dim), np.float32)
    actions = policy.act(obs, memory)
    memory[step.episode_over] = 0.0

A stochastic player (`masac`, `isac`) has further outputs after its logits (common/policy/gaussian.py). Without
exploration it acts by its logits alone, as all players do.

Flat layout (float32): player by player in spec order, layer by layer. A layer has its weight `[inputs, outputs]`
row-major, its bias `[outputs]`, and, in hidden layers with layer normalisation, the norm's gain `[outputs]` and the
norm's bias `[outputs]`. A gated recurrent unit has its weight `[inputs, 3 units]`, its bias `[3 units]`, its recurrent
weight `[units, 3 units]` and its recurrent bias `[3 units]`, gate by gate: reset, update, candidate. The learner's
torch forward pass agrees with this one within 1e-6 relative.
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


class GruLayer(NamedTuple):
    """A gated recurrent unit (Cho et al. 2014, arXiv 1406.1078) of U units, in the form that torch has too.

    reset = sigmoid(x W_r + b_r + h V_r + c_r)          candidate = tanh(x W_n + b_n + reset * (h V_n + c_n))
    update = sigmoid(x W_z + b_z + h V_z + c_z)         h' = (1 - update) * candidate + update * h
    """

    weight: Floats
    """`[inputs, 3 U]`: W, gate by gate."""
    bias: Floats
    """`[3 U]`: b."""
    recurrent_weight: Floats
    """`[U, 3 U]`: V."""
    recurrent_bias: Floats
    """`[3 U]`: c."""

    @property
    def units(self) -> int:
        """Number of units U."""
        return len(self.recurrent_weight)

    def forward(self, x: Floats, memory: Floats) -> Floats:
        """Returns the new memory `[rows, U]`, which is the layer's output too, for inputs `[rows, inputs]`."""
        units = self.units
        new, old = x @ self.weight + self.bias, memory @ self.recurrent_weight + self.recurrent_bias
        gates = _sigmoid(new[:, : 2 * units] + old[:, : 2 * units])
        reset, update = gates[:, :units], gates[:, units:]
        candidate: Floats = np.tanh(new[:, 2 * units :] + reset * old[:, 2 * units :])
        return candidate + update * (memory - candidate)


def _sigmoid(x: Floats) -> Floats:
    # By tanh, which overflows for no number.
    result: Floats = np.tanh(x * x.dtype.type(0.5)) * x.dtype.type(0.5) + x.dtype.type(0.5)
    return result


def memory_units(network: NetworkSpec) -> int:
    """Returns the number of units of each policy's memory; 0 if policies are not recurrent."""
    return network.policy_hidden[-1] if network.recurrent else 0


def memory_dim(players: PlayersSpec, network: NetworkSpec) -> int:
    """Returns the length of the memory of all policies, player by player; 0 if they are not recurrent."""
    return len(players.agents) * memory_units(network)


def layer_shapes(player: PlayerSpec, network: NetworkSpec) -> list[tuple[int, int]]:
    """Returns (inputs, outputs) of each layer of a player's policy; a gated recurrent unit counts as one layer."""
    return list(pairwise((player.obs_dim, *network.policy_hidden, player.output_dim)))


def parameter_shapes(player: PlayerSpec, network: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each parameter of a player's policy, by its name LAYER/PARAMETER, in flat order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (inputs, outputs) in enumerate(layer_shapes(player, network)):
        shapes |= {f"{i}/weight": (inputs, outputs), f"{i}/bias": (outputs,)}
        if network.recurrent and i == len(network.policy_hidden) - 1:
            gates = 3 * outputs
            shapes |= {f"{i}/weight": (inputs, gates), f"{i}/bias": (gates,)}
            shapes |= {f"{i}/recurrent_weight": (outputs, gates), f"{i}/recurrent_bias": (gates,)}
        elif network.policy_layer_norm and i < len(network.policy_hidden):
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


class PolicyLayers(NamedTuple):
    """The layers of one player's policy up to the logits, as views of the flat weights."""

    hidden: list[Layer]
    """The hidden layers before the gated recurrent unit, or all of them if there is none."""
    gru: GruLayer | None
    last: Layer
    """The layer to the logits."""

    @property
    def first(self) -> Layer | GruLayer:
        """The layer that reads the observation."""
        return self.hidden[0] if self.hidden else self.gru or self.last

    def hidden_outputs(self, obs: Floats, memory: Floats | None = None) -> list[Floats]:
        """Returns the outputs of each hidden layer `[rows, units]` for the player's observations `[rows, obs]`.

        memory: `[rows, units]`, updated in place; None for a policy that is not recurrent, else ValueError.
        """
        x, outputs = obs, []
        for layer in self.hidden:
            x = layer.forward(x)
            outputs.append(x)
        if self.gru is not None:
            if memory is None:
                raise ValueError("the policies are recurrent: pass the memory of their episodes")
            memory[:] = x = self.gru.forward(x, memory)
            outputs.append(x)
        return outputs


def unflatten(flat: Floats, players: PlayersSpec, network: NetworkSpec) -> list[PolicyLayers]:
    """Returns each player's layers up to the logits, as views of the flat weights; ValueError for a wrong length."""
    depth = len(network.policy_hidden)
    policies: list[PolicyLayers] = []
    for player, parameters in zip(players.agents, named_parameters(flat, players, network), strict=True):
        hidden = [_layer(parameters, i, network.activation) for i in range(depth - (network.recurrent is not None))]
        gru = None
        if network.recurrent:
            kinds = ("weight", "bias", "recurrent_weight", "recurrent_bias")
            gru = GruLayer(*(parameters[f"{depth - 1}/{kind}"] for kind in kinds))
        weight, bias = parameters[f"{depth}/weight"], parameters[f"{depth}/bias"]
        last = Layer(weight[:, : player.action_dim], bias[: player.action_dim])
        policies.append(PolicyLayers(hidden, gru, last))
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

    Methods of recurrent policies also take the memory `[copies, memory_dim]` of the copies' episodes, which they update
    in place; ValueError without it.
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
        units = memory_units(network)
        self.memory_dim = memory_dim(players, network)
        """Length of the memory of all policies; 0 if they are not recurrent."""
        self._memory_columns = [slice(i * units, (i + 1) * units) for i in range(len(players.agents))]

    def logits(self, obs: Floats, memory: Floats | None = None) -> Floats:
        """Returns the networks' outputs `[copies, sum action]` for joint observations `[copies, sum obs]`.

        Those of forbidden choices are lowered by `FORBIDDEN` (common/policy/masks.py).
        """
        return self.outputs(obs, memory).logits

    def outputs(self, obs: Floats, memory: Floats | None = None) -> PolicyOutputs:
        """Returns the logits and standard deviations of all policies for joint observations `[copies, sum obs]`."""
        out = np.empty((len(obs), self._action_dim), np.float32)
        stds: list[Floats] = []
        by_player = zip(self._columns, self._layers, self._std_layers, self._memory_columns, strict=True)
        for (observed, acted), layers, std_layer, remembered in by_player:
            x = layers.hidden_outputs(obs[:, observed], None if memory is None else memory[:, remembered])[-1]
            logits = out[:, acted]
            np.matmul(x, layers.last.weight, out=logits)
            logits += layers.last.bias
            if len(std_layer.bias):
                stds.append(std(std_layer.forward(x)))
        return PolicyOutputs(self._masks.lower(out, obs), np.concatenate(stds, axis=1) if stds else None)

    def act(self, obs: Floats, memory: Floats | None = None) -> Floats:
        """Returns the joint actions `[copies, sum action]` for joint observations, without exploration."""
        return self._heads(self.logits(obs, memory))

    def sample(self, obs: Floats, gumbel: Draw, normal: Draw, memory: Floats | None = None) -> Floats:
        """Returns joint actions drawn from the policies: choices, soft vectors, and Box parts of stochastic players.

        Other Box parts are as in `act`. gumbel, normal: return standard Gumbel and Gaussian noise `[copies, n]` for n
        numbers of the joint action.
        """
        logits, deviations = self.outputs(obs, memory)
        for segment in self._heads.segments:
            if segment.kind in ("choice", "soft"):
                # The argmax of logits with Gumbel noise is a sample from their softmax, their softmax a soft sample.
                part = logits[:, segment.columns]
                part += gumbel(part.shape[1])
        if deviations is not None:
            logits[:, self._gaussian_columns] += deviations * normal(deviations.shape[1])
        return self._heads(logits)
