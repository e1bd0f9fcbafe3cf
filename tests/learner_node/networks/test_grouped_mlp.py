"""A group of networks computes what its networks compute alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.run.run import Activation
from learner_node.networks.grouped_mlp import GroupedLayer, GroupedMlp, InputChange

NETWORKS, USERS, ROWS, SIZES = 2, 3, 5, (7, 6, 4, 2)
DOUBLE = torch.zeros((), dtype=torch.float64)
MODULES: dict[Activation, nn.Module] = {
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(0.01),
    "tanh": nn.Tanh(),
    "elu": nn.ELU(),
    "gelu": nn.GELU("tanh"),
    "silu": nn.SiLU(),
}


def random_group(first_biases: int, activation: Activation = "relu", *, layer_norm: bool = False) -> GroupedMlp:
    torch.manual_seed(0)
    group = GroupedMlp(
        NETWORKS, list(pairwise(SIZES)), first_biases, DOUBLE, activation=activation, layer_norm=layer_norm
    )
    for parameter in group.parameters():
        parameter.data.normal_()
    return group


def alone(group: GroupedMlp, network: int, user: int) -> nn.Sequential:
    """Returns one user's network as torch's own layers."""
    layers: list[nn.Module] = []
    for layer in group.layers:
        assert isinstance(layer, GroupedLayer)
        linear = nn.Linear(*layer.weight.shape[1:], dtype=torch.float64)
        biases = layer.bias.data[network]
        linear.weight.data, linear.bias.data = layer.weight.data[network].t(), biases[user if len(biases) > 1 else 0]
        layers.append(linear)
        if layer.norm_gain is not None and layer.norm_bias is not None:
            norm = nn.LayerNorm(layer.weight.shape[2], dtype=torch.float64)
            norm.weight.data, norm.bias.data = layer.norm_gain.data[network, 0], layer.norm_bias.data[network, 0]
            layers.append(norm)
        if layer.activation is not None:
            layers.append(MODULES[layer.activation])
    return nn.Sequential(*layers)


def inputs() -> Tensor:
    """Returns inputs `[G, B * K, in]`, in which the users alternate."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(NETWORKS, ROWS * USERS, SIZES[0], dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("first_biases", [1, USERS])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", MODULES)
def test_each_user_gets_the_outputs_of_its_network(
    first_biases: int, activation: Activation, *, layer_norm: bool
) -> None:
    group, x = random_group(first_biases, activation, layer_norm=layer_norm), inputs()
    out = group(x).view(NETWORKS, ROWS, USERS, SIZES[-1])
    for network in range(NETWORKS):
        for user in range(USERS):
            rows = x[network].view(ROWS, USERS, -1)[:, user]
            expected = alone(group, network, user)(rows)
            torch.testing.assert_close(out[network, :, user], expected, rtol=1e-12, atol=1e-12)
            numbers = rows.float().numpy()
            for layer in group.of_user(network, user):
                numbers = layer.forward(numbers)
            np.testing.assert_allclose(numbers, expected.detach(), rtol=1e-4, atol=1e-4)


def test_a_change_of_inputs_equals_changed_inputs() -> None:
    """The values and the gradients of the change are those of the changed inputs."""
    group, x, columns = random_group(1), inputs(), torch.tensor([[1, 2], [4, 5]])
    change = torch.randn(NETWORKS, ROWS * USERS, 2, dtype=torch.float64).requires_grad_()
    changed = x.clone()
    for network in range(NETWORKS):
        changed[network, :, columns[network]] += change[network]
    outputs = group(x, InputChange(change, columns)), group(changed)
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(out.square().sum(), change, retain_graph=True)[0] for out in outputs]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
