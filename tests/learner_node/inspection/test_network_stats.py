"""Figures of networks and critics: against networks made by hand and values with a known fault."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from common.policy.heads import Floats
from common.policy.network import Layer, PolicyLayers
from common.spec import AgentSpec, Box, Categorical, Part, joint_spec
from learner_node.inspection.network_stats import (
    NetworkStats,
    ValueStats,
    critic_stats,
    forward,
    policy_stats,
    rank_correlation,
    realised_returns,
    value_stats,
)

RNG = np.random.default_rng(0)
EVERYWHERE = np.ones((20, 50), np.bool_)


def layers(*widths: int) -> list[Layer]:
    return [
        Layer(
            RNG.normal(size=(i, o)).astype(np.float32),
            RNG.normal(size=o).astype(np.float32),
            activation="relu" if k < len(widths) - 2 else None,
        )
        for k, (i, o) in enumerate(pairwise(widths))
    ]


def player(*parts: Part, obs: int = 3):
    return joint_spec([("agent_0", "agent", obs, parts)]).agents[0]


def answering(logits: list[float], inputs: int = 3) -> PolicyLayers:
    """Returns a policy that puts out the same logits whatever it sees."""
    last = Layer(np.zeros((4, len(logits)), np.float32), np.array(logits, np.float32))
    return PolicyLayers([layers(inputs, 4, 1)[0]], None, last)


def stats_of(agent: AgentSpec, head: str, policy: PolicyLayers, obs: Floats) -> NetworkStats:
    return policy_stats(agent, head, policy, policy.hidden_outputs(obs), obs)


# ---- networks -----------------------------------------------------------------------------------------------------


def test_units_that_no_state_wakes_are_counted_as_dead() -> None:
    net = layers(3, 8, 4, 1)
    net[0].bias[:2] = -1e6
    net[1].bias[3] = -1e6
    net[0].bias[2:], net[1].bias[:3] = 1e3, 1e6
    rows = RNG.normal(size=(40, 3)).astype(np.float32)
    figures = critic_stats("Q", net, rows)
    assert figures.dead == (2 / 8, 1 / 4)
    assert figures.hidden_units == (8, 4)
    assert figures.inputs == 40
    assert critic_stats("Q", net, np.repeat(rows[:2], 9, axis=0)).inputs == 2


def test_a_unit_that_a_single_state_wakes_is_alive() -> None:
    first = Layer(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), activation="relu")
    net = [first, Layer(np.ones((2, 1), np.float32), np.zeros(1, np.float32))]
    rows = np.full((30, 2), -1.0, np.float32)
    assert critic_stats("Q", net, rows).dead == (1.0,)
    rows[17, 0] = 0.5
    assert critic_stats("Q", net, rows).dead == (0.5,)


def test_a_network_without_relu_has_no_dead_units() -> None:
    net = [layer._replace(activation=layer.activation and "tanh") for layer in layers(3, 8, 4, 1)]
    rows = RNG.normal(size=(40, 3)).astype(np.float32)
    hidden, outputs = forward(net, rows)
    first = np.tanh(rows @ net[0].weight + net[0].bias)
    np.testing.assert_allclose(hidden[0], first, rtol=1e-5, atol=1e-6)
    second = np.tanh(first @ net[1].weight + net[1].bias)
    np.testing.assert_allclose(outputs, second @ net[2].weight + net[2].bias, rtol=1e-5, atol=1e-5)
    figures = critic_stats("Q", net, rows)
    assert (figures.dead, figures.hidden_units) == ((), (8, 4))


def test_the_share_of_saturated_box_actions() -> None:
    agent = player(Box((-2.0,) * 4, (1.0,) * 4))
    figures = stats_of(agent, "box", answering([3.0, -3.0, 2.0, 0.0]), np.zeros((10, 3), np.float32))
    assert figures.saturated == 0.5
    assert figures.logit_size == pytest.approx(np.sqrt((9 + 9 + 4) / 4))
    assert figures.top_probability is None
    assert figures.entropy is None


def test_a_number_without_a_range_is_not_saturated() -> None:
    agent = player(Box((-1.0, 0.0), (1.0, 0.0)))
    figures = stats_of(agent, "box", answering([0.0, 99.0]), np.zeros((5, 3), np.float32))
    assert figures.saturated == 0.0


@pytest.mark.parametrize(("push", "share"), [(5.0, 1.0), (0.5, 0.0)])
def test_a_force_is_saturated_by_its_length(push: float, share: float) -> None:
    thrust, force = player(Box((0.0,) * 5, (1.0,) * 5)), player(Box((-1.0, -1.0), (1.0, 1.0)))
    obs = np.zeros((4, 3), np.float32)
    assert stats_of(thrust, "force", answering([9.0, 0.0, push, 0.0, 0.0]), obs).saturated == share
    assert stats_of(force, "force", answering([0.0, push]), obs).saturated == share


def test_choices_are_told_by_their_likeliest_and_their_entropy() -> None:
    agent = player(Categorical(4), Categorical(2))
    obs = np.zeros((4, 3), np.float32)
    even = stats_of(agent, "box", answering([7.0] * 6), obs)
    assert (even.top_probability, even.entropy) == (pytest.approx((1 / 4 + 1 / 2) / 2), pytest.approx(1.0))
    sure = stats_of(agent, "box", answering([40.0, 0, 0, 0, 0, 40.0]), obs)
    assert (sure.top_probability, sure.entropy) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-6))
    assert sure.saturated is None
    soft = stats_of(player(Box((0.0,) * 4, (1.0,) * 4)), "soft", answering([0.0] * 4), obs)
    assert soft.top_probability == pytest.approx(0.25)


def test_forbidden_choices_count_for_nothing() -> None:
    agent = joint_spec([("agent_0", "agent", 5, (Categorical(4),))], {"agent_0"}).agents[0]
    obs = np.zeros((6, 5), np.float32)
    obs[:, 1:] = [1, 0, 1, 0]
    figures = stats_of(agent, "box", answering([3.0, 99.0, 3.0, 99.0], 5), obs)
    assert (figures.top_probability, figures.entropy) == (pytest.approx(0.5), pytest.approx(1.0))
    assert figures.logit_size == pytest.approx(3.0)


def test_the_forward_pass_is_that_of_a_literal_loop() -> None:
    net, rows = layers(3, 5, 4, 2), RNG.normal(size=(6, 3)).astype(np.float32)
    hidden, out = forward(net, rows)
    for i, row in enumerate(rows):
        first = [max(0.0, sum(row[k] * net[0].weight[k, j] for k in range(3)) + net[0].bias[j]) for j in range(5)]
        second = [max(0.0, sum(first[k] * net[1].weight[k, j] for k in range(5)) + net[1].bias[j]) for j in range(4)]
        last = [sum(second[k] * net[2].weight[k, j] for k in range(4)) + net[2].bias[j] for j in range(2)]
        assert hidden[1][i] == pytest.approx(second, rel=1e-5, abs=1e-5)
        assert out[i] == pytest.approx(last, rel=1e-5, abs=1e-5)


# ---- values -------------------------------------------------------------------------------------------------------


def test_returns_are_discounted_sums_that_end_where_the_task_ends() -> None:
    reward = np.array([1.0, 2.0, 4.0, 8.0]).reshape(4, 1, 1)
    goes_on = np.ones_like(reward)
    assert realised_returns(reward, goes_on, 0.5, 2).ravel().tolist() == [1 + 1 + 1 + 1, 2 + 2 + 2]
    goes_on[1] = 0.0
    assert realised_returns(reward, goes_on, 0.5, 3).ravel().tolist() == [2.0, 2.0, 4.0 + 4.0]


def compared(
    values: np.ndarray, reward: np.ndarray, present: np.ndarray | None = None, gamma: float = 0.0
) -> ValueStats:
    """With a discount of 0 a return is its step's reward."""
    there = np.ones_like(reward) if present is None else present.astype(float)
    return value_stats("agent_0", values, reward, np.ones_like(reward), there, gamma=gamma)


@pytest.mark.parametrize("fault", [3.0, -0.5, 0.0])
def test_a_known_bias_is_found(fault: float) -> None:
    reward = RNG.normal(-1.0, 0.2, (100, 50))
    returns = realised_returns(reward, np.ones_like(reward), 0.8, 20)
    values = returns + fault + RNG.normal(0.0, 0.01, returns.shape)
    found = compared(values, reward, gamma=0.8)
    assert found.realised == pytest.approx(-5.0, abs=0.1)
    assert found.bias == pytest.approx(fault, abs=0.01)
    assert found.bias_ci95[0] <= found.bias <= found.bias_ci95[1]
    assert found.bias_ci95[1] - found.bias_ci95[0] < 0.05
    assert found.relative_bias == pytest.approx(fault / np.abs(returns).mean(), abs=0.01)
    assert found.rank_correlation is not None
    assert found.rank_correlation > 0.99


def test_what_an_absent_player_was_worth_is_not_asked() -> None:
    reward, values = RNG.normal(size=(20, 50)), np.zeros((20, 50))
    present = EVERYWHERE.copy()
    present[5:, :10] = False
    present[:, 10] = False
    values[~present] = 1e9
    found = compared(values, reward, present)
    assert found.value == 0.0
    assert found.bias == pytest.approx(-reward[present].mean())
    assert found.realised_std == pytest.approx(reward[present].std())


def test_the_interval_is_over_episodes_not_over_steps() -> None:
    """Errors that last an episode are one observation each, however many steps it has."""
    by_episode = RNG.normal(0.0, 1.0, 50)
    found = compared(np.tile(by_episode, (20, 1)), np.zeros((20, 50)))
    half = (found.bias_ci95[1] - found.bias_ci95[0]) / 2
    assert half == pytest.approx(1.96 * by_episode.std() / np.sqrt(50))


def test_rewards_are_told_apart_by_the_time_limit() -> None:
    reward = np.concatenate([np.full((20, 50), -1.0), np.full((30, 50), -4.0)])
    found = compared(np.zeros((20, 50)), reward)
    assert (found.reward_watched, found.reward_beyond) == (-1.0, -4.0)
    assert compared(np.zeros((20, 50)), reward[:20]).reward_beyond == 0.0


def test_rank_correlation() -> None:
    a = np.array([1.0, 5.0, 2.0, 9.0, 4.0])
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1.0)
    assert rank_correlation(a, -(a**3)) == pytest.approx(-1.0)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
    assert rank_correlation(np.array([1.0, 2.0, 2.0, 3.0]), np.arange(4.0)) == pytest.approx(4.5 / np.sqrt(22.5))
    assert rank_correlation(np.ones(5), a) == 0.0


def test_returns_that_are_all_alike_have_no_order() -> None:
    found = compared(RNG.normal(size=(20, 50)), np.full((20, 50), -3.0))
    assert found.rank_correlation is None
