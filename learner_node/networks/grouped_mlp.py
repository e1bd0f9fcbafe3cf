"""Networks of equal sizes as one torch module: each layer is one batched product.

G networks     K users of each network     B rows of the batch     R = B * K rows of a network
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from common.policy.activations import EPSILON, LEAK
from common.policy.heads import Floats
from common.policy.network import Layer, LayerNorm
from common.run.run import Activation, Initialisation
from learner_node.networks.grouped import GroupedNetworks, InputChange
from learner_node.update.draws import initial_layer

_ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "leaky_relu": partial(nn.functional.leaky_relu, negative_slope=LEAK),
    "tanh": torch.tanh,
    "elu": nn.functional.elu,
    "gelu": partial(nn.functional.gelu, approximate="tanh"),
    "silu": nn.functional.silu,
}
"""The activations of common/policy/activations.py."""


class GroupedLayer(nn.Module):
    """One layer of G networks: a linear map, then layer normalisation and an activation, if it has them.

    Parameters: weight `[G, inputs, outputs]`; bias `[G, S, outputs]` with S = 1, S = K sets, or S = 0 for a map without
    biases; gain and bias of the norm `[G, 1, outputs]` each; lengths `[G, 1, outputs]`, if weights are normalised.
    """

    def __init__(
        self,
        networks: int,
        shape: tuple[int, int],
        biases: int,
        like: Tensor,
        *,
        activation: Activation | None = None,
        layer_norm: bool = False,
        weight_norm: bool = False,
        in_blocks: bool = False,
    ) -> None:
        """Starts at zero. shape: numbers of inputs and outputs. biases: 1, one set for each user, or 0.

        weight_norm: whether length and direction of each unit's weights are separate parameters.
        in_blocks: whether the rows of a user follow each other; else the users' rows alternate.
        """
        super().__init__()
        self._in_blocks = in_blocks
        self.weight = nn.Parameter(like.new_zeros(networks, *shape))
        self.bias = nn.Parameter(like.new_zeros(networks, biases, shape[1]))
        self.norm_gain: nn.Parameter | None = None
        self.norm_bias: nn.Parameter | None = None
        if layer_norm:
            self.norm_gain, self.norm_bias = (nn.Parameter(like.new_zeros(networks, 1, shape[1])) for _ in range(2))
        self.length = nn.Parameter(like.new_zeros(networks, 1, shape[1])) if weight_norm else None
        self.activation = activation

    def matrix(self) -> Tensor:
        """Returns the matrix that inputs are multiplied by `[G, inputs, outputs]`."""
        if self.length is None:
            return self.weight
        # Salimans and Kingma 2016 (arXiv 1602.07868), equation 2, where `weight` is v and `length` is g.
        matrix: Tensor = self.weight * (self.length / torch.linalg.vector_norm(self.weight, dim=1, keepdim=True))
        return matrix

    def forward(self, x: Tensor, change: InputChange | None = None) -> Tensor:
        """Returns the outputs `[G, R, outputs]` for inputs `[G, R, inputs]`."""
        return self.activate(self.linear(x, change))

    def activate(self, x: Tensor) -> Tensor:
        """Returns the outputs `[G, R, outputs]` from the result of `linear`, which may be overwritten."""
        if self.norm_gain is not None and self.norm_bias is not None:
            # Ba et al. 2016 (arXiv 1607.06450), equation 4. Network by network, because torch's one operation for norm,
            # gain and bias knows one gain, and its gradient takes far less time than those of products and sums.
            parts = x.unbind(), self.norm_gain.squeeze(1).unbind(), self.norm_bias.squeeze(1).unbind()
            rows = zip(*parts, strict=True)
            x = torch.stack(
                [nn.functional.layer_norm(one, gain.shape, gain, bias, EPSILON) for one, gain, bias in rows]
            )
        return x if self.activation is None else _ACTIVATIONS[self.activation](x)

    def linear(self, x: Tensor, change: InputChange | None = None) -> Tensor:
        """Returns the products and biases `[G, R, outputs]`, before norm and activation.

        change: only its gradient is wanted. The map is linear, so the product with the change is added, and no gradient
        of all inputs is computed.
        """
        sets, weight = self.bias.shape[1], self.matrix()
        if sets == 1:
            out = torch.baddbmm(self.bias, x, weight)
        elif not sets:
            out = torch.bmm(x, weight)
        elif self._in_blocks:
            by_user = torch.bmm(x, weight).view(len(x), sets, -1, weight.shape[2])
            out = (by_user + self.bias[:, :, None]).flatten(1, 2)
        else:
            by_user = torch.bmm(x, weight).view(len(x), -1, sets, weight.shape[2])
            out = (by_user + self.bias[:, None]).flatten(1, 2)
        if change is None:
            return out
        rows = change.columns[:, :, None].expand(-1, -1, weight.shape[2])
        return torch.baddbmm(out, change.change, weight.gather(1, rows))

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of inputs and outputs."""
        _, inputs, outputs = self.weight.shape
        return inputs, outputs

    def of_user(self, network: int, user: int) -> Layer:
        """Returns the layer that one user of a network computes with, in numpy."""
        weight, biases = _numpy(self.matrix()[network]), _numpy(self.bias[network])
        norm = None
        if self.norm_gain is not None and self.norm_bias is not None:
            norm = LayerNorm(_numpy(self.norm_gain[network, 0]), _numpy(self.norm_bias[network, 0]))
        return Layer(weight, biases[user if len(biases) > 1 else 0], norm, self.activation)


class GroupedLayers(GroupedNetworks):
    """G networks of equal sizes, whose parameters are those of `GroupedLayer`s, stored layer by layer.

    Users of one network may have separate first biases (`network.tell_apart`), which is the same as a one-hot player
    number among the inputs.
    """

    linear_layers = 1
    """Number of last layers without activation and normalisation."""

    def __init__(
        self,
        networks: int,
        shapes: Sequence[tuple[int, int]],
        first_biases: int,
        like: Tensor,
        *,
        activation: Activation = "relu",
        layer_norm: bool = False,
        weight_norm: bool = False,
    ) -> None:
        """Starts at zero. shapes: inputs and outputs of each layer. first_biases: sets of first biases, 1 or K.

        layer_norm: whether the hidden layers, all but `linear_layers`, are normalised before their activation.
        weight_norm: whether lengths and directions of their weights are separate parameters.
        """
        super().__init__()
        self.layer_shapes = tuple(shapes)
        """Inputs and outputs of each layer."""
        hidden = len(shapes) - self.linear_layers
        self.layers = nn.ModuleList(
            GroupedLayer(
                networks,
                shape,
                first_biases if depth == 0 else 1,
                like,
                activation=activation if depth < hidden else None,
                layer_norm=layer_norm and depth < hidden,
                weight_norm=weight_norm and depth < hidden,
            )
            for depth, shape in enumerate(shapes)
        )

    def of_user(self, network: int, user: int) -> list[Layer]:
        """Returns the layers that one user of a network computes with, in numpy."""
        return [layer.of_user(network, user) for layer in self.layers if isinstance(layer, GroupedLayer)]


class GroupedMlp(GroupedLayers):
    """G multi-layer perceptrons of equal sizes, each a chain of `GroupedLayer`s."""

    def forward(self, x: Tensor, change: InputChange | None = None) -> Tensor:
        """Returns the outputs `[G, R, outputs]` for inputs `[G, R, inputs]`, changed by `change` if given."""
        for layer in self.layers:
            x, change = layer(x, change), None
        return x


def initial_parameters(
    module: nn.Module, seed: Sequence[int], initialisation: Initialisation
) -> npt.NDArray[np.float32]:
    """Draws the initial parameters of one network `[P]` of a module of `GroupedLayer`, layer by layer."""
    generator = np.random.default_rng(seed)
    drawn = [
        initial_layer(
            layer.shape,
            generator,
            layer.bias.shape[1],
            initialisation=initialisation,
            layer_norm=layer.norm_gain is not None,
            weight_norm=layer.length is not None,
        )
        for layer in module.modules()
        if isinstance(layer, GroupedLayer)
    ]
    return np.concatenate(drawn).astype(np.float32)


def _numpy(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().float().cpu().numpy()
    return array
