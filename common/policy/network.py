"""The decentralised policies in numpy: from flat weights and observations to joint actions.

Each player has one small ReLU network from its own observation to one logit per number of its action; heads
(`common/policy/heads.py`) turn logits into actions. Execution needs no critic, no torch and no other player.

Flat layout (float32): player by player in spec order, layer by layer, weight `[inputs, outputs]` row-major, then bias.
The learner's torch forward pass agrees with this one within 1e-6 relative.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from common.policy.heads import Floats, GreedyHeads
from common.policy.masks import ActionMasks
from common.run.run import NetworkSpec
from common.spec import PlayerSpec, PlayersSpec


class Layer(NamedTuple):
    """One affine layer: weight `[inputs, outputs]`, bias `[outputs]`."""

    weight: Floats
    bias: Floats


def layer_shapes(player: PlayerSpec, network: NetworkSpec) -> list[tuple[int, int]]:
    """Returns (inputs, outputs) of each layer of a player's policy."""
    return list(pairwise((player.obs_dim, *network.policy_hidden, player.action_dim)))


def weight_count(players: PlayersSpec, network: NetworkSpec) -> int:
    """Returns the length of the flat weights of all policies."""
    return sum((i + 1) * o for player in players.agents for i, o in layer_shapes(player, network))


def unflatten(flat: Floats, players: PlayersSpec, network: NetworkSpec) -> list[list[Layer]]:
    """Returns each player's layers as views into the flat weights; ValueError if the length does not fit."""
    if flat.shape != (weight_count(players, network),):
        raise ValueError(f"flat weights have shape {flat.shape}, the policies need ({weight_count(players, network)},)")
    policies: list[list[Layer]] = []
    start = 0
    for player in players.agents:
        layers: list[Layer] = []
        for inputs, outputs in layer_shapes(player, network):
            middle, end = start + inputs * outputs, start + (inputs + 1) * outputs
            layers.append(Layer(flat[start:middle].reshape(inputs, outputs), flat[middle:end]))
            start = end
        policies.append(layers)
    return policies


class Policy:
    """The policies of all players with one set of weights.

    Example:
        policy = Policy(run.players, run.spec.network, weights.flat)
        actions = policy.act(obs)  # [copies, sum obs] -> [copies, sum action]
    """

    def __init__(self, players: PlayersSpec, network: NetworkSpec, flat: Floats) -> None:
        """Takes flat weights `[weight_count]` without a copy, so the caller must not change them afterwards."""
        self._players = players
        self._heads = GreedyHeads(players, network.head)
        self._layers = unflatten(flat, players, network)
        self._masks = ActionMasks(players.mask_columns)

    def logits(self, obs: Floats) -> Floats:
        """Returns the networks' outputs `[copies, sum action]` for joint observations `[copies, sum obs]`.

        Those of forbidden choices are lowered by `FORBIDDEN` (common/policy/masks.py).
        """
        out = np.empty((len(obs), self._players.action_dim), np.float32)
        for player, layers in zip(self._players.agents, self._layers, strict=True):
            x = obs[:, player.obs_slice]
            for layer in layers[:-1]:
                x = x @ layer.weight
                x += layer.bias
                np.maximum(x, 0.0, out=x)
            np.matmul(x, layers[-1].weight, out=out[:, player.action_slice])
            out[:, player.action_slice] += layers[-1].bias
        return self._masks.lower(out, obs)

    def act(self, obs: Floats) -> Floats:
        """Returns the joint actions `[copies, sum action]` for joint observations, without exploration."""
        return self._heads(self.logits(obs))

    def sample(self, obs: Floats, gumbel: Callable[[int], npt.NDArray[np.float64]]) -> Floats:
        """Returns joint actions whose Categorical parts are drawn from the policy's softmax; others are as in `act`.

        gumbel: returns standard Gumbel noise `[copies, n]` for n numbers of the joint action.
        """
        logits = self.logits(obs)
        for segment in self._heads.segments:
            if segment.kind == "choice":
                # The argmax of logits with Gumbel noise is a sample from their softmax.
                part = logits[:, segment.columns]
                part += gumbel(part.shape[1])
        return self._heads(logits)
