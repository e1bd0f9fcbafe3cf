"""The policies and critics of the plain update: one torch module for each network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Mlp(nn.Module):
    """A ReLU network that one player uses, or several share.

    Players that share a network may have separate first biases (`network.tell_apart`), which is the same as a one-hot
    player number among the inputs.
    """

    def __init__(
        self, sizes: Sequence[int], users: Sequence[int], *, separate_biases: bool, dtype: torch.dtype
    ) -> None:
        """sizes: numbers of inputs, of each hidden layer's units, and of outputs. users: the players of the network."""
        super().__init__()
        self.users = list(users)
        layers = [nn.Linear(inputs, outputs, dtype=dtype) for inputs, outputs in pairwise(sizes)]
        self.weights = nn.ParameterList([layer.weight for layer in layers])
        copies = len(users) if separate_biases else 1
        self.first_biases = nn.ParameterList([nn.Parameter(layers[0].bias.detach().clone()) for _ in range(copies)])
        self.biases = nn.ParameterList([layer.bias for layer in layers[1:]])

    def forward(self, x: Tensor, player: int) -> Tensor:
        """Returns the outputs `[batch, outputs]` for a player's inputs `[batch, inputs]`."""
        first_bias = self.first_biases[self.users.index(player) if len(self.first_biases) > 1 else 0]
        for depth, (weight, bias) in enumerate(zip(self.weights, [first_bias, *self.biases], strict=True)):
            x = nn.functional.linear(x, weight, bias)
            x = nn.functional.relu(x) if depth < len(self.weights) - 1 else x
        return x

    def pieces(self) -> list[Tensor]:
        """Returns the parameters layer by layer: weight `[inputs, outputs]`, then bias (or first biases)."""
        rest = [
            piece
            for weight, bias in zip(self.weights[1:], self.biases, strict=True)
            for piece in (weight.data.t(), bias.data)
        ]
        return [self.weights[0].data.t(), *(bias.data for bias in self.first_biases), *rest]


def load_flat(networks: Sequence[Mlp], flat: Tensor) -> None:
    """Sets the parameters from a flat tensor, network by network in the order of `flatten`."""
    pieces = [piece for network in networks for piece in network.pieces()]
    for piece, values in zip(pieces, torch.split(flat, [piece.numel() for piece in pieces]), strict=True):
        piece.copy_(values.view(piece.shape))


def flatten(networks: Sequence[Mlp]) -> Tensor:
    """Returns all parameters in one flat tensor, network by network as in checkpoints."""
    return torch.cat([piece.flatten() for network in networks for piece in network.pieces()])
