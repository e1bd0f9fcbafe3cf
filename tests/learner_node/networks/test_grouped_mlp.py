"""A group of networks computes what its networks compute alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from learner_node.networks.grouped_mlp import GroupedMlp, InputChange

NETWORKS, USERS, ROWS, SIZES = 2, 3, 5, (7, 6, 4, 2)
DOUBLE = torch.zeros((), dtype=torch.float64)


def random_group(first_biases: int) -> GroupedMlp:
    torch.manual_seed(0)
    group = GroupedMlp(NETWORKS, list(pairwise(SIZES)), first_biases, DOUBLE)
    for parameter in group.parameters():
        parameter.data.normal_()
    return group


def alone(group: GroupedMlp, network: int, user: int) -> nn.Sequential:
    """Returns one user's network as plain torch layers."""
    pieces, layers = group.pieces(network, user), []
    for weight, bias in zip(pieces[::2], pieces[1::2], strict=True):
        layer = nn.Linear(*weight.shape, dtype=torch.float64)
        layer.weight.data, layer.bias.data = weight.t(), bias
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def inputs() -> Tensor:
    """Returns inputs `[G, B * K, in]`, in which the users alternate."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(NETWORKS, ROWS * USERS, SIZES[0], dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("first_biases", [1, USERS])
def test_each_user_gets_the_outputs_of_its_network(first_biases: int) -> None:
    group, x = random_group(first_biases), inputs()
    out = group(x).view(NETWORKS, ROWS, USERS, SIZES[-1])
    for network in range(NETWORKS):
        for user in range(USERS):
            expected = alone(group, network, user)(x[network].view(ROWS, USERS, -1)[:, user])
            torch.testing.assert_close(out[network, :, user], expected, rtol=1e-12, atol=1e-12)


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
