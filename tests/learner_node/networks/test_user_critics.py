"""Critics of the user's own learn as the built-in ones do, and their state is stored and restored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import ConfigError
from common.run.run import Run, make_run_spec
from learner_node.algorithms.maddpg import Maddpg
from learner_node.engine import Engine, make_engine
from learner_node.inspection.loaded_networks import LoadedNetworks
from learner_node.networks.user_critics import UserCritics
from learner_node.persistence.state import Counters, copy_state, restore_state
from learner_node.update.update_stats import UpdateStats
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records

DOUBLE = torch.zeros((), dtype=torch.float64)
HERE = "tests.learner_node.own_classes"
EVERY_TEAM = pytest.mark.parametrize("team", ["spread", "tag", "mixed", "masked"])


def run_of(team: str, critic: str, seed: int = 0, **algorithm: Any) -> Run:
    settings = {
        "seed": seed,
        "network": {"policy_hidden": (8, 6), "critic_hidden": (7, 5), "critic": critic},
        "algorithm": {"name": "matd3", "engine": "autograd", "normalise_observations": True, **algorithm},
    }
    return Run("r", make_run_spec({"scenario": "simple_spread"}, settings), TEAMS[team])


def engine_of(team: str, critic: str, seed: int = 0, **algorithm: Any) -> Maddpg:
    engine = make_engine(run_of(team, critic, seed, **algorithm), DOUBLE)
    assert isinstance(engine, Maddpg)
    return engine


def update(engine: Engine, team: str, seed: int) -> UpdateStats:
    fields = as_fields(random_records(TEAMS[team], 16, seed, absences=True), torch.float64)
    return engine.update(engine.normalise(as_batch(fields)), 1e-3, 1e-3, update_policies=seed % 2 == 1)


def train(engine: Engine, team: str, seeds: range) -> Engine:
    for seed in seeds:
        update(engine, team, seed)
    return engine


def as_linear(built_in: Tensor, inputs: int) -> Tensor:
    """Returns a built-in critic's parameters in the order of torch's layers: weights `[outputs, inputs]`."""
    found, at = [], 0
    for i, o in ((inputs, 7), (7, 5), (5, 1)):
        found += [built_in[at : at + i * o].view(i, o).t().flatten(), built_in[at + i * o : at + (i + 1) * o]]
        at += (i + 1) * o
    return torch.cat(found)


@EVERY_TEAM
@pytest.mark.parametrize("name", ["maddpg", "matd3", "iddpg", "joint", "masac"])
def test_the_users_mlp_learns_what_the_built_in_one_learns(team: str, name: str) -> None:
    if (team, name) == ("mixed", "joint"):
        pytest.skip("its sides do not stand side by side")
    expected, found = engine_of(team, "mlp", name=name), engine_of(team, f"{HERE}:Mlp", name=name)
    inputs = {critic.network: len(critic.input_columns) for critic in expected.layout.critics}
    state = copy_state(expected, Counters())
    for key in ("critics/online", "critics/target"):
        own = [as_linear(one, inputs[i]) for i, one in enumerate(expected.critics.parameters)]
        state.tensors[key] = torch.cat(own)
    restore_state(found, state)
    for seed in range(4):
        one, other = update(expected, team, seed), update(found, team, seed)
        torch.testing.assert_close(other.td_error, one.td_error, rtol=0, atol=1e-9)
        torch.testing.assert_close(other.critic_squared_norms, one.critic_squared_norms, rtol=0, atol=1e-9)
        if seed % 2:
            for key, values in vars(one.losses()).items():
                assert vars(other.losses())[key] == pytest.approx(values, abs=1e-9)
    np.testing.assert_allclose(found.policy_weights(), expected.policy_weights(), rtol=0, atol=1e-6)
    for i, (one, other) in enumerate(zip(expected.critics.parameters, found.critics.parameters, strict=True)):
        torch.testing.assert_close(other, as_linear(one, inputs[i]), rtol=0, atol=1e-9)


def test_a_team_has_one_critic_of_the_users_own() -> None:
    engine = engine_of("tag", f"{HERE}:Mlp", name="matd3", team_critic=True)
    assert [len(critic) for critic in engine.critics.parameters] == [83 * 7 + 8 * 5 + 6] * 4  # 82 inputs; 2 sides
    assert update(engine, "tag", 1).td_error.shape == (8, 16)


def test_the_seed_draws_the_parameters_of_every_network() -> None:
    first, again, other = (engine_of("spread", f"{HERE}:Mlp", seed).critics.parameters for seed in (1, 1, 2))
    assert len(first) == 2, "the agents share a critic, and matd3 has a second one"
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(first, other, strict=True))
    assert not torch.equal(*first)


def test_making_a_critic_leaves_the_generator_of_torch_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    engine_of("spread", f"{HERE}:Mlp")
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("critic", ["Mlp", "Normed"])
@EVERY_TEAM
def test_a_restored_engine_continues_with_the_same_numbers(team: str, critic: str) -> None:
    whole = train(engine_of(team, f"{HERE}:{critic}"), team, range(6))
    state = copy_state(train(engine_of(team, f"{HERE}:{critic}"), team, range(3)), Counters())
    resumed = engine_of(team, f"{HERE}:{critic}", seed=5)
    restore_state(resumed, state)
    train(resumed, team, range(3, 6))
    expected, found = (copy_state(engine, Counters()).tensors for engine in (whole, resumed))
    assert list(expected) == list(found)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-9)


def test_the_statistics_of_batch_normalisation_follow_the_batches_once_an_update() -> None:
    engine = engine_of("spread", f"{HERE}:Normed", normalise_observations=False)
    online, target = (
        kind[0].get_buffer("networks.0.norm.running_mean")
        for kind in (
            engine.critics.online,
            engine.critics.target,
        )
    )
    batch = as_batch(as_fields(random_records(TEAMS["spread"], 16, 1), torch.float64))
    rows = torch.cat([batch.obs_action[:, list(engine.layout.critics[i].input_columns)] for i in range(3)])
    expected = 0.1 * rows.mean(0)
    engine.update(batch, 1e-3, 1e-3, update_policies=False)
    torch.testing.assert_close(online, expected)
    assert (target == 0).all(), "targets follow with the policies"
    engine.update(batch, 1e-3, 1e-3, update_policies=True)
    torch.testing.assert_close(target, online)
    torch.testing.assert_close(online, 0.19 * rows.mean(0))


def test_a_checkpoint_of_another_critic_is_refused() -> None:
    state = copy_state(engine_of("spread", f"{HERE}:Normed"), Counters())
    with pytest.raises(ConfigError, match="this run's networks need"):
        restore_state(engine_of("spread", f"{HERE}:Mlp"), state)


def test_an_unused_parameter_stays_as_it_is() -> None:
    engine = engine_of("spread", f"{HERE}:Unused")
    (group,) = engine.critics.online
    assert isinstance(group, UserCritics)
    before = group.get_parameter("networks.0.spare.weight").clone()
    used = group.get_parameter("networks.0.layers.0.weight").clone()
    train(engine, "spread", range(2))
    assert torch.equal(group.get_parameter("networks.0.spare.weight"), before)
    assert not torch.equal(group.get_parameter("networks.0.layers.0.weight"), used)


@EVERY_TEAM
def test_the_policies_climb_the_values_of_a_critic_that_knows_its_structure(team: str) -> None:
    """The critic is linear with the weight 1, so each number of a continuous action has the gradient 1."""
    engine = engine_of(team, f"{HERE}:Structured", name="maddpg", normalise_observations=False)
    batch = as_batch(as_fields(random_records(TEAMS[team], 8, 1), torch.float64))
    inputs = engine.critic_inputs(batch.obs_action)
    change = torch.ones(8, engine.agents.action_dim, dtype=torch.float64)
    values = engine.q_of_player_actions(inputs, change) - engine.q_of_player_actions(inputs, 0 * change)
    sizes = torch.tensor([[float(agent.action_dim)] for agent in engine.agents.agents], dtype=torch.float64)
    torch.testing.assert_close(values, sizes.expand(-1, 8))


def test_a_diagnosis_has_the_values_of_such_critics_and_no_layers() -> None:
    run = run_of("spread", f"{HERE}:Mlp", name="maddpg", normalise_observations=False)
    engine = make_engine(run, torch.zeros(()))
    networks = LoadedNetworks(run, copy_state(engine, Counters()))
    rng = np.random.default_rng(0)
    obs, action = (rng.normal(size=(4, 5, size)).astype(np.float32) for size in (54, 15))
    ones = np.ones((6, 5, 3), np.float32)
    assert networks.critic_activity(obs, action, ones) == []
    found = networks.values(obs, action, 0 * ones, ones, ones)
    rows = torch.from_numpy(np.concatenate([obs, action], -1).reshape(20, 69))
    assert [one.value for one in found] == pytest.approx(engine.first_values(rows).mean(1).tolist(), rel=1e-5)
