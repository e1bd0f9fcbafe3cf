"""Recurrent networks of equal sizes as one torch module: hidden layers, a gated recurrent unit, a layer to the outputs.

    input -> hidden layers -> gates of the input --> gated recurrent unit --> outputs
                                                     ^              |
                                                     +--- memory ---+

G networks     K users of each network     S sequences of T steps     R = S * T * K rows     U units     o inputs
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from learner_node.networks.grouped import GroupedNetworks, InputChange
from learner_node.networks.grouped_mlp import GroupedLayers


def gru_shapes(shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns inputs and outputs of each linear map, from those of each layer: the unit has two, for its three gates.

    shapes: of the hidden layers before the unit, of the unit, and of the last layer.
    """
    *hidden, (inputs, units), last = shapes
    return [*hidden, (inputs, 3 * units), (units, 3 * units), last]


class GroupedGru(GroupedLayers):
    """G recurrent networks of equal sizes, with the equations of `GruLayer` (common/policy/network.py).

    Their shapes are those of the linear maps, as `gru_shapes` returns them. The hidden layers before the unit may be
    normalised; the unit's state needs no normalisation, since it is within -1 and 1.
    """

    linear_layers = 3
    """The unit's two maps, and the last layer."""

    @property
    def units(self) -> int:
        """Number of units U of a network."""
        return self.layer_shapes[-1][0]

    def forward(self, x: Tensor, change: InputChange | None = None) -> Tensor:
        """Returns the outputs `[G, R, outputs]` after one step, for inputs followed by the memory `[G, R, o + U]`.

        change: of the inputs, if given.
        """
        inputs, memory = torch.split(x, [x.shape[2] - self.units, self.units], 2)
        return self.outputs(self._advance(self._input_gates(inputs, change), memory))

    def unroll(self, x: Tensor, memory: Tensor, users: int, valid: Tensor | None = None) -> Tensor:
        """Returns the memory after each step `[G, R, U]`, for inputs `[G, R, o]` of S sequences.

        memory: before the first step `[G, S * K, U]`. users: K. valid: 0 for steps before the start of the episode,
        after which the memory is still zero, else 1 `[S, T]`; None = all 1.
        """
        sequences = memory.shape[1] // users
        gates = self._input_gates(x).view(len(x), sequences, -1, users, 3 * self.units)  # [G, S, T, K, 3 U]
        steps = gates.transpose(1, 2).flatten(2, 3).unbind(1)  # T of [G, S * K, 3 U]
        memories: list[Tensor] = []
        for t, input_gates in enumerate(steps):
            memory = self._advance(input_gates, memory)
            if valid is not None:
                memory = memory * valid[:, t].repeat_interleave(users)[:, None]
            memories.append(memory)
        by_step = torch.stack(memories, 1).view(len(x), -1, sequences, users, self.units)
        return by_step.transpose(1, 2).flatten(1, 3)

    def outputs(self, memory: Tensor) -> Tensor:
        """Returns the outputs `[G, R, outputs]` of a memory after a step `[G, R, U]`."""
        outputs: Tensor = self.layers[-1](memory)
        return outputs

    def _input_gates(self, x: Tensor, change: InputChange | None = None) -> Tensor:
        for layer in self.layers[:-2]:
            x, change = layer(x, change), None
        return x

    def _advance(self, input_gates: Tensor, memory: Tensor) -> Tensor:
        units = self.units
        recurrent_gates = self.layers[-2](memory)
        gates = torch.sigmoid(input_gates[..., : 2 * units] + recurrent_gates[..., : 2 * units])
        reset, update = torch.split(gates, units, 2)
        candidate = torch.tanh(input_gates[..., 2 * units :] + reset * recurrent_gates[..., 2 * units :])
        return torch.lerp(candidate, memory, update)


class Memories(NamedTuple):
    """The memories of a group of recurrent networks in the steps of sequences `[G, R, U]`."""

    before: Tensor
    """Before each step."""
    after: Tensor


def unrolled(network: GroupedNetworks, steps: Tensor, burn_in: Tensor, users: int, burn_in_valid: Tensor) -> Memories:
    """Returns the memories of recurrent networks in the steps of sequences, with gradients.

    The memory is zero before the burn-in, whose steps have no gradients (Kapturowski et al. 2019, R2D2, section 3).
    Departure: the replay stores no memories to start from, which would be those of older weights.

    steps: inputs `[G, R, o]`. burn_in: inputs of the steps before each sequence `[G, S * k * K, o]`; k may be 0. users:
    K. burn_in_valid: 0 for steps before the start of the episode, else 1 `[S, k]`.
    """
    if not isinstance(network, GroupedGru):
        raise TypeError("only recurrent networks have memories")
    sequences, burn_in_steps = burn_in_valid.shape
    start = steps.new_zeros(len(steps), sequences * users, network.units)
    if burn_in_steps:
        with torch.no_grad():
            rows = network.unroll(burn_in, start, users, burn_in_valid)
            start = rows.view(len(rows), sequences, -1, users, network.units)[:, :, -1].flatten(1, 2)
    after = network.unroll(steps, start, users)
    by_step = after.view(len(after), sequences, -1, users, network.units)
    first = start.view(len(start), sequences, 1, users, network.units)
    return Memories(torch.cat([first, by_step[:, :, :-1]], 2).flatten(1, 3), after)
