"""Recurrent policies of equal sizes as one torch module: hidden layers, a gated recurrent unit, a layer to the outputs.

    obs -> hidden layers -> gates of the input --> gated recurrent unit --> outputs
                                                   ^              |
                                                   +--- memory ---+

G networks     K users of each network     S sequences of T steps     U units     o numbers of an input
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.run.run import Activation
from learner_node.networks.grouped import InputChange
from learner_node.networks.grouped_mlp import GroupedLayer, GroupedLayers


def gru_shapes(shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns inputs and outputs of each linear map, from those of each layer: the unit has two, for its three gates.

    shapes: of the hidden layers before the unit, of the unit, and of the last layer.
    """
    *hidden, (inputs, units), last = shapes
    return [*hidden, (inputs, 3 * units), (units, 3 * units), last]


class GroupedGru(GroupedLayers):
    """G recurrent networks of equal sizes, with the equations of `GruLayer` (common/policy/network.py)."""

    def __init__(
        self,
        networks: int,
        shapes: Sequence[tuple[int, int]],
        first_biases: int,
        like: Tensor,
        *,
        activation: Activation = "relu",
        layer_norm: bool = False,
    ) -> None:
        """Starts at zero. shapes: of the linear maps, as `gru_shapes` returns them. first_biases: as of a `GroupedMlp`.

        layer_norm: whether the hidden layers before the unit are normalised. The unit's state needs no normalisation:
        it is within -1 and 1.
        """
        super().__init__()
        hidden = len(shapes) - 3
        self.layers = nn.ModuleList(
            GroupedLayer(
                networks,
                shape,
                first_biases if depth == 0 else 1,
                like,
                activation=activation if depth < hidden else None,
                layer_norm=layer_norm and depth < hidden,
            )
            for depth, shape in enumerate(shapes)
        )
        self._units = shapes[-1][0]

    @property
    def units(self) -> int:
        """Number of units U of a network."""
        return self._units

    def forward(self, x: Tensor, change: InputChange | None = None) -> Tensor:  # noqa: ARG002
        """Raises ValueError: the outputs depend on the memory, which `step` and `unroll` take."""
        raise ValueError("these policies are recurrent: their outputs depend on the steps before, not on one input")

    def unroll(self, x: Tensor, memory: Tensor, users: int, valid: Tensor | None = None) -> Tensor:
        """Returns the memory after each step `[G, S * T * K, U]`, for inputs `[G, S * T * K, o]` of S sequences.

        memory: before the first step `[G, S * K, U]`. users: K. valid: 0 for steps before the start of the episode,
        after which the memory is still zero, else 1 `[S, T]`; None = all 1.
        """
        sequences = memory.shape[1] // users
        gates = self._input_gates(x).view(len(x), sequences, -1, users, 3 * self._units)  # [G, S, T, K, 3 U]
        steps = gates.transpose(1, 2).flatten(2, 3).unbind(1)  # T of [G, S * K, 3 U]
        memories: list[Tensor] = []
        for t, input_gates in enumerate(steps):
            memory = self._advance(input_gates, memory)
            if valid is not None:
                memory = memory * valid[:, t].repeat_interleave(users)[:, None]
            memories.append(memory)
        by_step = torch.stack(memories, 1).view(len(x), -1, sequences, users, self._units)
        return by_step.transpose(1, 2).flatten(1, 3)

    def step(self, x: Tensor, memory: Tensor) -> Tensor:
        """Returns the memory `[G, R, U]` after one step with inputs `[G, R, o]` from a memory `[G, R, U]`."""
        return self._advance(self._input_gates(x), memory)

    def outputs(self, memory: Tensor) -> Tensor:
        """Returns the outputs `[G, R, outputs]` of a memory after a step `[G, R, U]`."""
        outputs: Tensor = self.layers[-1](memory)
        return outputs

    def _input_gates(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-2]:
            x = layer(x)
        return x

    def _advance(self, input_gates: Tensor, memory: Tensor) -> Tensor:
        units = self._units
        recurrent_gates = self.layers[-2](memory)
        gates = torch.sigmoid(input_gates[..., : 2 * units] + recurrent_gates[..., : 2 * units])
        reset, update = torch.split(gates, units, 2)
        candidate = torch.tanh(input_gates[..., 2 * units :] + reset * recurrent_gates[..., 2 * units :])
        return torch.lerp(candidate, memory, update)
