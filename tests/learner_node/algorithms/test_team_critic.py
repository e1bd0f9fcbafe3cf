"""A team's one critic, compared with plain torch layers and loops over sides."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.run.players import players
from common.run.run import AlgorithmSpec, NetworkSpec
from learner_node.algorithms.maddpg import Maddpg
from learner_node.stacked.update import StackedUpdate
from learner_node.update.batches import LossBatch
from learner_node.update.layout import network_layout
from tests.learner_node.networks.test_grouped_mlp import alone
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records, run_for, td_target

TAG = TEAMS["tag"]
"""Three adversaries and one agent, whose actions are boxes from 0 to 1: `sigmoid(2 * logit)`."""
NETWORK = NetworkSpec((8, 6), (7, 5), share_policies=False)
ALGORITHM = AlgorithmSpec(name="maddpg", team_critic=True, gradient_clip=0.0, action_regularisation=0.1, discount=0.8)
SIDES = {"adversary": [0, 1, 2], "agent": [3]}
ROWS = 20
DOUBLE = torch.zeros((), dtype=torch.float64)


def batch_of(*, absences: bool = False) -> LossBatch:
    return as_batch(as_fields(random_records(TAG, ROWS, 0, absences=absences), torch.float64))


def critic_of(engine: Maddpg, side: str, *, target: bool = False) -> nn.Sequential:
    """Returns a side's critic. The sides are separate groups, because the lengths of their actions differ."""
    modules = engine.critics.target if target else engine.critics.online
    return alone(modules[list(SIDES).index(side)], 0, 0)


def policies_of(engine: Maddpg) -> list[nn.Sequential]:
    """Returns the policies: those of the adversaries are one group, that of the agent another."""
    adversaries, agent = engine.policies.online
    return [*(alone(adversaries, i, 0) for i in range(3)), alone(agent, 0, 0)]


def act(policies: list[nn.Sequential], obs: Tensor) -> list[Tensor]:
    """Returns the logits of each agent."""
    return [policy(obs[:, agent.obs_slice]) for policy, agent in zip(policies, TAG.agents, strict=True)]


def test_a_side_has_one_critic_that_reads_everything() -> None:
    layout = network_layout(players(TAG, "matd3"), NETWORK, AlgorithmSpec(name="matd3", team_critic=True))
    assert layout.critic_networks == (0, 0, 0, 1, 2, 2, 2, 3)
    assert {critic.input_columns for critic in layout.critics} == {tuple(range(62 + 20))}


@pytest.mark.parametrize("absences", [False, True])
def test_targets_are_the_mean_reward_of_the_side_and_the_value_of_its_critic(*, absences: bool) -> None:
    engine, batch = Maddpg(run_for(TAG, NETWORK, ALGORITHM), DOUBLE), batch_of(absences=absences)
    target = td_target(engine, batch)
    logits = act(policies_of(engine), batch.next_obs)
    alive = batch.present * (batch.discount > 0)
    actions = [torch.sigmoid(2 * one) * alive[:, i : i + 1] for i, one in enumerate(logits)]
    next_input = torch.cat([batch.next_obs, *actions], 1)
    for side, members in SIDES.items():
        reward = torch.stack([batch.reward[:, i] for i in members]).mean(0)
        continues = torch.stack([batch.discount[:, i] for i in members]).max(0).values
        value = critic_of(engine, side, target=True)(next_input)[:, 0]
        expected = (reward + 0.8 * continues * value).detach()
        for i in members:
            torch.testing.assert_close(target[i], expected, rtol=1e-10, atol=1e-12)


def test_the_critics_gradient_is_that_of_one_critic_a_side() -> None:
    engine, batch = Maddpg(run_for(TAG, NETWORK, ALGORITHM), DOUBLE), batch_of()
    target = td_target(engine, batch)
    critics = {side: critic_of(engine, side) for side in SIDES}
    stats = engine.update(batch, 0.0, 0.0, update_policies=False)
    for side, members in SIDES.items():
        loss = (critics[side](batch.obs_action)[:, 0] - target[members[0]]).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        squared = torch.zeros((), dtype=torch.float64)
        for parameter in critics[side].parameters():
            assert parameter.grad is not None
            squared += parameter.grad.square().sum()
        for i in members:
            torch.testing.assert_close(stats.critic_loss[i], loss.detach(), rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(stats.critic_gradient_norm[i], squared**0.5, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("teammates", ["buffer", "current"])
@pytest.mark.parametrize("absences", [False, True])
def test_each_policy_learns_from_the_current_actions_of_its_side(teammates: str, *, absences: bool) -> None:
    algorithm = AlgorithmSpec(name="maddpg", team_critic=True, action_regularisation=0.1, teammates=teammates)  # type: ignore[arg-type]
    engine, batch = Maddpg(run_for(TAG, NETWORK, algorithm), DOUBLE), batch_of(absences=absences)
    row_weights = engine.mixer.row_weights(batch, engine.mixer.signals(batch))
    loss, _, _ = engine.policy_loss(batch, engine.critic_inputs(batch.obs_action), row_weights)
    found = torch.autograd.grad(loss, [next(module.parameters()) for module in engine.policies.online])
    policies, expected = policies_of(engine), torch.zeros((), dtype=torch.float64)
    obs, stored = batch.obs_action[:, : TAG.obs_dim], batch.obs_action[:, TAG.obs_dim :]
    logits = act(policies, obs)
    current = [torch.sigmoid(2 * one) * batch.present[:, i : i + 1] for i, one in enumerate(logits)]
    for side, members in SIDES.items():
        others = [
            one.detach() if teammates == "current" else stored[:, agent.action_slice]
            for one, agent in zip(current, TAG.agents, strict=True)
        ]
        actions = [current[i] if i in members else others[i] for i in range(len(TAG.agents))]
        is_present = batch.present[:, members].max(1).values
        q = critic_of(engine, side)(torch.cat([obs, *actions], 1))[:, 0]
        expected = expected - (q * is_present).sum() / is_present.sum()
    for i, one in enumerate(logits):
        present = batch.present[:, i]
        expected = expected + 0.1 * (one.square().mean(1) * present).sum() / present.sum()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    expected.backward()  # type: ignore[no-untyped-call]
    gradients = [next(policy.parameters()).grad for policy in policies]
    for gradient, own in zip(gradients, [*found[0], found[1][0]], strict=True):
        assert gradient is not None
        torch.testing.assert_close(own, gradient.t(), rtol=1e-9, atol=1e-12)


def test_a_team_critic_of_a_lone_agent_is_its_critic() -> None:
    """Where each side is one agent, the setting changes nothing."""
    algorithms = [AlgorithmSpec(name="matd3", team_critic=team) for team in (True, False)]
    one, other = (Maddpg(run_for(TEAMS["alone"], NETWORK, algorithm), DOUBLE) for algorithm in algorithms)
    batch = as_batch(as_fields(random_records(TEAMS["alone"], ROWS, 0), torch.float64))
    for engine in (one, other):
        engine.update(batch, 1e-3, 1e-3)
    for kind in ("policies", "critics"):
        states = [getattr(engine, kind).tensors() for engine in (one, other)]
        for name, tensor in states[0].items():
            assert torch.equal(tensor, states[1][name])


def test_what_a_team_critic_excludes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"team_critic = true: side adversary learns by iddpg"):
        Maddpg(run_for(TAG, NETWORK, AlgorithmSpec(name="iddpg", team_critic=True)), DOUBLE)
    with pytest.raises(ConfigError, match=r"does not cover algorithm\.team_critic=true"):
        StackedUpdate(run_for(TAG, NETWORK, ALGORITHM), DOUBLE)
