"""Both engines keep one contract: a run may continue with the other one."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from common.errors import ConfigError
from common.policy.network import Policy
from common.run.run import Run, make_run_spec, parse_assignments
from learner_node.algorithms.maddpg import Maddpg
from learner_node.engine import Engine, make_engine
from learner_node.engine_choice import EngineName, refuse_uncovered
from learner_node.engine_choice import engine_of as engine_of_run
from learner_node.persistence.state import Counters, copy_state, restore_state
from learner_node.run_checks.sizes import sizes_of
from learner_node.stacked.update import StackedUpdate
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records

DOUBLE = torch.zeros((), dtype=torch.float64)
EVERY_TEAM = pytest.mark.parametrize("team", ["spread", "tag", "mixed", "masked"])


def engine_of(team: str, name: str) -> Engine:
    settings = {
        "network": {"policy_hidden": (8, 6), "critic_hidden": (7, 5), "tell_apart": True},
        "algorithm": {"name": "matd3", "engine": name, "normalise_observations": True, "normalise_rewards": True},
    }
    return make_engine(Run("r", make_run_spec({"scenario": "simple_spread"}, settings), TEAMS[team]), DOUBLE)


def train(engine: Engine, team: str, seeds: range) -> Engine:
    for seed in seeds:
        fields = as_fields(random_records(TEAMS[team], 16, seed, absences=True), torch.float64)
        engine.update(engine.normalise(as_batch(fields)), 1e-3, 1e-3, update_policies=seed % 2 == 1)
    return engine


def test_the_setting_names_the_engine() -> None:
    assert isinstance(engine_of("spread", "autograd"), Maddpg)
    assert isinstance(engine_of("spread", "stacked"), StackedUpdate)
    assert isinstance(engine_of("spread", "auto"), StackedUpdate)


@EVERY_TEAM
def test_both_engines_start_alike(team: str) -> None:
    one, other = (copy_state(engine_of(team, name), Counters()).tensors for name in get_args(EngineName))
    assert list(one) == list(other)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name])


@EVERY_TEAM
@pytest.mark.parametrize("before", get_args(EngineName))
@pytest.mark.parametrize("after", get_args(EngineName))
def test_a_run_continues_with_either_engine(team: str, before: str, after: str) -> None:
    whole = train(engine_of(team, before), team, range(6))
    state = copy_state(train(engine_of(team, before), team, range(3)), Counters())
    resumed = engine_of(team, after)
    restore_state(resumed, state)
    train(resumed, team, range(3, 6))
    expected, found = (copy_state(engine, Counters()).tensors for engine in (whole, resumed))
    assert list(expected) == list(found)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-9)


@EVERY_TEAM
def test_the_critics_layers_are_the_same_from_both_engines(team: str) -> None:
    autograd, stacked = (train(engine_of(team, name), team, range(2)) for name in get_args(EngineName))
    for critic in range(len(autograd.layout.critics)):
        layers = zip(autograd.critic_layers(critic), stacked.critic_layers(critic), strict=True)
        for one, other in layers:
            np.testing.assert_allclose(one.weight, other.weight, rtol=0, atol=1e-7)
            np.testing.assert_allclose(one.bias, other.bias, rtol=0, atol=1e-7)
            assert one.activation == other.activation


# ---- networks that the gradients written by hand do not cover ------------------------------------------------------


UNCOVERED = [
    {"critic": "set"},
    {"critic": "attention", "critic_layer_norm": True, "tell_apart": True},
    {"activation": "tanh"},
    {"activation": "gelu", "policy_layer_norm": True},
    {"critic_layer_norm": True},
    {"policy_layer_norm": True, "critic_layer_norm": True, "tell_apart": True},
]


def run_with(team: str, network: dict[str, object], engine: str = "auto") -> Run:
    settings = {
        "network": {"policy_hidden": (8, 6), "critic_hidden": (7, 5), **network},
        "algorithm": {"name": "matd3", "engine": engine, "normalise_observations": True},
    }
    return Run("r", make_run_spec({"scenario": "simple_spread"}, settings), TEAMS[team])


@pytest.mark.parametrize("network", UNCOVERED, ids=str)
def test_auto_chooses_autograd_where_stacked_covers_too_little(network: dict[str, object]) -> None:
    run = run_with("tag", network)
    setting = next(iter(network))
    assert engine_of_run(run).name == "autograd"
    assert f"network.{setting}" in engine_of_run(run).reason
    with pytest.raises(ConfigError, match=f"does not cover network.{setting}"):
        make_engine(run_with("tag", network, "stacked"), DOUBLE)
    with pytest.raises(ConfigError, match=r"Set algorithm\.engine=auto"):
        sizes_of(run_with("tag", network, "stacked").spec, run.joint)


@pytest.mark.parametrize(
    ("written", "advised"),
    [
        ("network.critic=attention", "network.critic=mlp"),
        ("network.activation=tanh", "network.activation=relu"),
        ("network.policy_layer_norm=true", "network.policy_layer_norm=false"),
        ("network.recurrent=gru", "network.recurrent=none"),
        ("algorithm.name=facmac", "algorithm.name=maddpg"),
        ("algorithm.team_critic=true", "algorithm.team_critic=false"),
        ("algorithm.critic_loss=hl_gauss", "algorithm.critic_loss=squared"),
    ],
)
def test_the_refusal_of_a_setting_names_a_value_that_the_engine_covers(written: str, advised: str) -> None:
    def refuse(setting: str) -> None:
        spec = make_run_spec({"scenario": "simple_spread"}, parse_assignments([setting]))
        refuse_uncovered(spec.network, spec.algorithm)

    with pytest.raises(ConfigError, match=rf"does not cover {written}\. .* keep the engine and set {advised}\."):
        refuse(written)
    refuse(advised)


@EVERY_TEAM
@pytest.mark.parametrize("network", UNCOVERED, ids=str)
def test_policies_of_every_kind_act_in_numpy_as_they_learn(team: str, network: dict[str, object]) -> None:
    """What actors compute from the published weights equals what the learner computes, after some updates."""
    run = run_with(team, network)
    engine = train(make_engine(run, DOUBLE), team, range(4))
    obs = random_records(TEAMS[team], 16, 9)["obs"]
    found = Policy(run.players, run.spec.network, engine.policy_weights()).logits(obs.copy())
    batch = as_batch(as_fields(random_records(TEAMS[team], 16, 9), torch.float64))
    normalised = engine.normalise(batch, observe=False).obs_action[:, : run.joint.obs_dim]
    np.testing.assert_allclose(found, engine.logits(normalised), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", UNCOVERED, ids=str)
def test_a_run_with_such_networks_resumes_with_the_same_numbers(network: dict[str, object]) -> None:
    run = run_with("tag", network)
    whole = train(make_engine(run, DOUBLE), "tag", range(6))
    state = copy_state(train(make_engine(run, DOUBLE), "tag", range(3)), Counters())
    sizes = sizes_of(run.spec, run.joint)
    if not run.spec.network.tell_apart:
        assert len(state.tensors["policies/online"]) == sizes.policy_parameters
        assert len(state.tensors["critics/online"]) == sizes.critic_parameters
    resumed = make_engine(run, DOUBLE)
    restore_state(resumed, state)
    train(resumed, "tag", range(3, 6))
    expected, found = (copy_state(engine, Counters()).tensors for engine in (whole, resumed))
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)


def test_norms_start_without_effect() -> None:
    """Gain 1 and bias 0 (Ba et al. 2016), layer by layer after the bias; the drawn numbers are those without norms."""
    plain, normed = (
        make_engine(run_with("alone", {"critic_layer_norm": norm}), DOUBLE).critics.tensors()["online"]
        for norm in (False, True)
    )
    # The critic reads 4 + 5 numbers; its layers have 7, 5 and 1 units.
    first, second = 10 * 7, 8 * 5
    assert torch.equal(normed[:first], plain[:first])
    assert normed[first : first + 14].tolist() == [1.0] * 7 + [0.0] * 7
    assert torch.equal(normed[first + 14 : first + 14 + second], plain[first : first + second])
