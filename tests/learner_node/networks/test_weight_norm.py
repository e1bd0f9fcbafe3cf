"""Critics whose weights have a learnt length and direction, compared with torch's own weight normalisation."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from common.errors import ConfigError
from common.run.run import Run, make_run_spec
from learner_node.algorithms.maddpg import Maddpg
from learner_node.engine import make_engine
from learner_node.engine_choice import engine_of
from learner_node.networks.grouped_mlp import GroupedLayer, GroupedMlp, InputChange
from learner_node.run_checks.sizes import sizes_of
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records

NETWORKS, ROWS, SIZES = 2, 5, (7, 6, 4, 1)
DOUBLE = torch.zeros((), dtype=torch.float64)


def random_group() -> GroupedMlp:
    torch.manual_seed(0)
    group = GroupedMlp(NETWORKS, list(pairwise(SIZES)), 1, DOUBLE, activation="tanh", weight_norm=True)
    for parameter in group.parameters():
        parameter.data.normal_()
    return group


def alone(group: GroupedMlp, network: int) -> nn.Sequential:
    """Returns one network as torch's own layers, the hidden ones with torch's weight normalisation."""
    parts: list[nn.Module] = []
    for layer in group.layers:
        assert isinstance(layer, GroupedLayer)
        linear = nn.Linear(*layer.weight.shape[1:], dtype=torch.float64)
        linear.weight.data = layer.weight.data[network].t()
        linear.bias.data = layer.bias.data[network, 0]
        if layer.length is None:
            parts.append(linear)
            continue
        normed = nn.utils.parametrizations.weight_norm(linear)
        normed.parametrizations.weight.original0.data = layer.length.data[network].t()
        parts += [normed, nn.Tanh()]
    return nn.Sequential(*parts)


def test_outputs_and_gradients_are_those_of_torch() -> None:
    group = random_group()
    x = torch.randn(NETWORKS, ROWS, SIZES[0], dtype=torch.float64)
    out = group(x)
    assert [layer.length is None for layer in group.layers] == [False, False, True]
    group.zero_grad()
    out.square().sum().backward()
    for network in range(NETWORKS):
        plain = alone(group, network)
        expected = plain(x[network])
        torch.testing.assert_close(out[network], expected, rtol=1e-12, atol=1e-12)
        expected.square().sum().backward()
        for layer, linear in zip(group.layers[:2], (plain[0], plain[2]), strict=True):
            of_weight = linear.parametrizations.weight
            torch.testing.assert_close(layer.length.grad[network].t(), of_weight.original0.grad)
            torch.testing.assert_close(layer.weight.grad[network].t(), of_weight.original1.grad)
        numbers = x[network].float().numpy()
        for one in group.of_user(network, 0):
            numbers = one.forward(numbers)
        np.testing.assert_allclose(numbers, expected.detach(), rtol=1e-4, atol=1e-4)


def test_a_change_of_inputs_equals_changed_inputs() -> None:
    group, columns = random_group(), torch.tensor([[1, 2], [4, 5]])
    x = torch.randn(NETWORKS, ROWS, SIZES[0], dtype=torch.float64)
    change = torch.randn(NETWORKS, ROWS, 2, dtype=torch.float64)
    changed = x.clone()
    for network in range(NETWORKS):
        changed[network, :, columns[network]] += change[network]
    torch.testing.assert_close(group(x, InputChange(change, columns)), group(changed), rtol=1e-12, atol=1e-12)


def run_of(*, weight_norm: bool, team: str = "tag", engine: str = "auto", critic: str = "mlp", **algorithm: Any) -> Run:
    network = {"policy_hidden": [4], "critic_hidden": [8, 5], "critic": critic, "critic_weight_norm": weight_norm}
    settings = {"network": network, "algorithm": {"engine": engine, **algorithm}}
    return Run("r", make_run_spec({"scenario": "simple_tag"}, settings), TEAMS[team])


@pytest.mark.parametrize(
    "settings",
    [{}, {"critic": "set"}, {"critic": "attention"}, {"name": "facmac"}, {"name": "matd3", "critic_loss": "hl_gauss"}],
    ids=str,
)
def test_critics_start_with_the_values_that_they_have_without(settings: dict[str, Any]) -> None:
    runs = [run_of(weight_norm=one, engine="autograd", **settings) for one in (False, True)]
    plain, normed = (make_engine(run, DOUBLE) for run in runs)
    assert isinstance(normed, Maddpg)
    batch = as_batch(as_fields(random_records(TEAMS["tag"], 6, 0), torch.float64))
    expected = plain.first_values(batch.obs_action)
    torch.testing.assert_close(normed.first_values(batch.obs_action), expected, rtol=1e-5, atol=1e-6)
    losses = [engine.update(batch, 1e-2, 1e-2).losses() for engine in (plain, normed)]
    np.testing.assert_allclose(losses[1].critic_loss, losses[0].critic_loss, rtol=1e-4)
    assert not torch.allclose(normed.first_values(batch.obs_action), expected, rtol=1e-4)
    spec = runs[1].spec
    assert sizes_of(spec, TEAMS["tag"]).critic_parameters == sum(map(len, normed.critics.parameters))


def test_the_engine_is_autograd() -> None:
    choice = engine_of(run_of(weight_norm=True))
    assert (choice.name, "network.critic_weight_norm=true" in choice.reason) == ("autograd", True)
    with pytest.raises(ConfigError, match=r"does not cover network\.critic_weight_norm=true"):
        engine_of(run_of(weight_norm=True, engine="stacked"))
