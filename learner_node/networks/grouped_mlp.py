"""ReLU networks of equal sizes as one torch module: each layer is one batched product.

G networks     K users of each network     B rows of the batch     R = B * K rows of a network
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from learner_node.networks.grouped import GroupedNetworks, InputChange


class GroupedLinear(nn.Module):
    """One layer of G networks: weight `[G, inputs, outputs]`, bias `[G, S, outputs]` with S = 1, or S = K sets."""

    def __init__(self, networks: int, shape: tuple[int, int], biases: int, like: Tensor) -> None:
        """Starts at zero. shape: numbers of inputs and outputs. biases: 1, or one set for each user."""
        super().__init__()
        self.weight = nn.Parameter(like.new_zeros(networks, *shape))
        self.bias = nn.Parameter(like.new_zeros(networks, biases, shape[1]))

    def forward(self, x: Tensor, change: InputChange | None = None) -> Tensor:
        """Returns the outputs `[G, R, outputs]` for inputs `[G, R, inputs]`, in which the users' rows alternate.

        change: only its gradient is wanted. The layer is linear, so the product with the change is added, and no
        gradient of all inputs is computed.
        """
        sets = self.bias.shape[1]
        if sets == 1:
            out = torch.baddbmm(self.bias, x, self.weight)
        else:
            by_user = torch.bmm(x, self.weight).view(len(x), -1, sets, self.weight.shape[2])
            out = (by_user + self.bias[:, None]).flatten(1, 2)
        if change is None:
            return out
        rows = change.columns[:, :, None].expand(-1, -1, self.weight.shape[2])
        return torch.baddbmm(out, change.change, self.weight.gather(1, rows))


class GroupedMlp(GroupedNetworks):
    """G ReLU networks of equal sizes. Their parameters are stored layer by layer, weight then bias, as in checkpoints.

    Users of one network may have separate first biases (`network.tell_apart`), which is the same as a one-hot player
    number among the inputs.
    """

    def __init__(self, networks: int, shapes: Sequence[tuple[int, int]], first_biases: int, like: Tensor) -> None:
        """Starts at zero. shapes: inputs and outputs of each layer. first_biases: sets of first biases, 1 or K."""
        super().__init__()
        sets = [first_biases, *[1] * (len(shapes) - 1)]
        self.layers = nn.ModuleList(
            GroupedLinear(networks, shape, biases, like) for shape, biases in zip(shapes, sets, strict=True)
        )

    def forward(self, x: Tensor, change: InputChange | None = None) -> Tensor:
        """Returns the outputs `[G, R, outputs]` for inputs `[G, R, inputs]`, changed by `change` if given."""
        first, *others = self._linear_layers
        x = first(x, change)
        for layer in others:
            x = layer(torch.relu_(x))
        return x

    def views(self, rows: Tensor) -> list[Tensor]:
        """Returns the views of `[G, P]` numbers, a row a network, that have the shapes of `parameters()`, in order."""
        shapes = [parameter.shape[1:] for parameter in self.parameters()]
        pieces = torch.split(rows, [shape.numel() for shape in shapes], 1)
        return [piece.view(-1, *shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def first(self, count: int) -> GroupedNetworks:  # noqa: ARG002  (its parameters are placed afterwards)
        """Returns a copy, which becomes the first networks when `views` of their rows become its parameters."""
        return copy.deepcopy(self)

    @property
    def _linear_layers(self) -> list[GroupedLinear]:
        return [layer for layer in self.layers if isinstance(layer, GroupedLinear)]

    def pieces(self, network: int, user: int) -> list[Tensor]:
        """Returns the layers that one user of a network computes with: weight `[inputs, outputs]`, bias, and so on."""
        found = []
        for layer in self._linear_layers:
            weight, biases = layer.weight.data[network], layer.bias.data[network]
            found += [weight, biases[user if len(biases) > 1 else 0]]
        return found
