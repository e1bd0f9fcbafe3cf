"""FACMAC's critics compared with plain torch layers and loops over members."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from common.errors import ConfigError
from common.run.run import AlgorithmSpec, NetworkSpec, make_run_spec
from learner_node.algorithms.maddpg import Maddpg
from learner_node.networks.grouped_mlp import GroupedMlp
from learner_node.networks.mixing_critics import MixingCritics
from learner_node.networks.mixing_input import MixingInput
from learner_node.run_checks.sizes import sizes_of
from learner_node.update.batches import LossBatch
from tests.learner_node.networks.test_grouped_mlp import alone
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records, run_for, td_target

TAG = TEAMS["tag"]
"""Three adversaries and one agent, whose actions are boxes from 0 to 1: `sigmoid(2 * logit)`."""
SIDES = {"adversary": [0, 1, 2], "agent": [3]}
NETWORK = NetworkSpec((8, 6), (7, 5), share_policies=False)
ALGORITHM = AlgorithmSpec(name="facmac", gradient_clip=0.0, action_regularisation=0.1, discount=0.8)
ROWS = 20
DOUBLE = torch.zeros((), dtype=torch.float64)
DEMANDING = {"share_critics": False}, {"tell_apart": True}, {"critic_layer_norm": True}, {}


def batch_of(*, absences: bool = False) -> LossBatch:
    return as_batch(as_fields(random_records(TAG, ROWS, 0, absences=absences), torch.float64))


@cache
def plain(group: nn.Module, user: int) -> nn.Sequential:
    """Returns one user's network as torch's own layers, in the same memory."""
    assert isinstance(group, GroupedMlp)
    return alone(group, 0, user)


def q_tot(critic: MixingCritics, side: str, obs: Tensor, actions: list[Tensor]) -> Tensor:
    """Returns a side's values `[B]`, by loops over its members and over the units of the mixing network."""
    utilities = []
    for k, i in enumerate(SIDES[side]):
        network, user = (0, k) if len(critic.utilities) == 1 else (k, 0)
        row = torch.cat([obs[:, TAG.agents[i].obs_slice], actions[i]], 1)
        utilities.append(plain(critic.utilities[network], user)(row)[:, 0])
    others = [action for i, action in enumerate(actions) if i not in SIDES[side]]
    state = torch.cat([obs, *others], 1)
    first = plain(critic.first_weights, 0)(state).abs()
    first_bias, last = plain(critic.first_biases, 0)(state), plain(critic.last_weights, 0)(state).abs()
    value = plain(critic.last_bias, 0)(state)[:, 0]
    for unit in range(32):
        mixed = first_bias[:, unit]
        for k, utility in enumerate(utilities):
            mixed = mixed + utility * first[:, 32 * k + unit]
        value = value + nn.functional.elu(mixed) * last[:, unit]
    return value


def critics_of(engine: Maddpg, *, target: bool = False) -> dict[str, MixingCritics]:
    modules = engine.critics.target if target else engine.critics.online
    found = dict(zip(SIDES, modules, strict=True))
    assert all(isinstance(one, MixingCritics) for one in found.values())
    return found  # type: ignore[return-value]


def columns_of(joint: Tensor) -> list[Tensor]:
    return [joint[:, agent.action_slice] for agent in TAG.agents]


@pytest.mark.parametrize("network", DEMANDING)
def test_the_targets_and_the_critic_loss_equal_plain_loops(network: dict[str, bool]) -> None:
    spec = NetworkSpec((8, 6), (7, 5), share_policies=False, **network)  # type: ignore[arg-type]
    engine, batch = Maddpg(run_for(TAG, spec, ALGORITHM), DOUBLE), batch_of(absences=True)
    target = td_target(engine, batch)
    alive = batch.present * (batch.discount > 0)
    logits = engine.policy_logits(engine.policies.target, batch.next_obs)
    next_actions = [one * alive[:, [i]] for i, one in enumerate(columns_of(torch.sigmoid(2 * logits)))]
    obs, actions = batch.obs_action[:, : TAG.obs_dim], columns_of(batch.obs_action[:, TAG.obs_dim :])
    stats = engine.update(batch, 0.0, 0.0)
    for side, members in SIDES.items():
        next_value = q_tot(critics_of(engine, target=True)[side], side, batch.next_obs, next_actions)
        continues = batch.discount[:, members].amax(1)
        y = (batch.reward[:, members].mean(1) + 0.8 * continues * next_value).detach()
        present = batch.present[:, members].amax(1)
        critic = critics_of(engine)[side]
        loss = ((q_tot(critic, side, obs, actions) - y).square() * present).sum() / present.sum()
        for i in members:
            torch.testing.assert_close(target[i], y, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(stats.critic_loss[i], loss.detach(), rtol=1e-9, atol=1e-9)
        if network == {"share_critics": False}:  # each network has one user, whose gradient is the network's
            alike = [plain(module, 0) for module in critic.modules() if isinstance(module, GroupedMlp)]
            gradients = torch.autograd.grad(loss, [one for module in alike for one in module.parameters()])
            norm = torch.stack([one.square().sum() for one in gradients]).sum().sqrt()
            torch.testing.assert_close(stats.critic_gradient_norm[members[0]], norm, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("teammates", ["buffer", "current"])
def test_all_policies_of_a_side_learn_from_one_value(teammates: str) -> None:
    algorithm = AlgorithmSpec(name="facmac", action_regularisation=0.0, teammates=teammates)  # type: ignore[arg-type]
    engine, batch = Maddpg(run_for(TAG, NETWORK, algorithm), DOUBLE), batch_of()
    weights = engine.mixer.row_weights(batch, engine.mixer.signals(batch))
    parameters = [parameter for module in engine.policies.online for parameter in module.parameters()]
    loss, _, _ = engine.policy_loss(batch, engine.critic_inputs(batch.obs_action), weights)
    obs, stored = batch.obs_action[:, : TAG.obs_dim], columns_of(batch.obs_action[:, TAG.obs_dim :])
    current = columns_of(torch.sigmoid(2 * engine.policy_logits(engine.policies.online, obs)))
    expected = torch.zeros((), dtype=torch.float64)
    for side, members in SIDES.items():
        others = stored if teammates == "buffer" else [one.detach() for one in current]
        actions = [current[i] if i in members else others[i] for i in range(4)]
        expected = expected - q_tot(critics_of(engine)[side], side, obs, actions).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    found, wanted = (torch.autograd.grad(one, parameters) for one in (loss, expected))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@given(
    utilities=st.lists(st.floats(-50, 50), min_size=3, max_size=3),
    rise=st.floats(0, 20),
    member=st.integers(0, 2),
    seed=st.integers(0, 2**16),
)
def test_the_value_never_falls_as_a_utility_rises(utilities: list[float], rise: float, member: int, seed: int) -> None:
    columns = tuple((i,) for i in range(3))
    critic = MixingCritics(MixingInput((columns,), (3, 4)), 1, NetworkSpec(critic_hidden=(4,)), DOUBLE)
    rng = np.random.default_rng(seed)
    for parameter in critic.parameters():
        parameter.data.copy_(torch.from_numpy(rng.normal(size=tuple(parameter.shape))))
    low = torch.tensor([[utilities]], dtype=torch.float64)
    high = low.clone()
    high[0, 0, member] += rise
    state = torch.from_numpy(rng.normal(size=(1, 1, 2)))
    assert critic.mix(high, state).item() >= critic.mix(low, state).item() - 1e-9


@pytest.mark.parametrize("team", ["spread", "mixed", "masked"])
@pytest.mark.parametrize("network", DEMANDING)
def test_the_sizes_count_the_parameters(team: str, network: dict[str, bool]) -> None:
    settings = {"algorithm": {"name": "facmac"}, "network": {"critic_hidden": [7, 5], **network}}
    spec = make_run_spec({"scenario": "simple_spread"}, settings)
    engine = Maddpg(run_for(TEAMS[team], spec.network, spec.algorithm), DOUBLE)
    assert sizes_of(spec, TEAMS[team]).critic_parameters == sum(map(len, engine.critics.parameters))


@pytest.mark.parametrize(
    ("network", "algorithm", "message"),
    [
        (NetworkSpec(critic="set"), AlgorithmSpec(name="facmac"), r"network\.critic = 'set': set network\.critic=mlp"),
        (NetworkSpec(recurrent="gru"), AlgorithmSpec(name="facmac"), r"'gru': set network\.recurrent=none"),
        (
            NetworkSpec(),
            AlgorithmSpec(name="facmac", critic_loss="hl_gauss"),
            r"'hl_gauss'.*facmac for agent",
        ),
    ],
)
def test_what_a_mixing_critic_cannot_have_is_refused(
    network: NetworkSpec, algorithm: AlgorithmSpec, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Maddpg(run_for(TEAMS["spread"], network, algorithm), DOUBLE)
