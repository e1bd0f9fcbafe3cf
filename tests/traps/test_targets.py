"""Traps 21, 27 and 28: what the critics are taught."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.run.players import players
from common.run.run import AlgorithmSpec, make_run_spec
from common.transitions import transition_dtype
from learner_node.devices import Device
from learner_node.replay.replay_session import SampledBatch
from learner_node.trainer import Trainer
from learner_node.update.layout import network_layout
from tests.traps.hand import LIFT, ONE_UNIT, critic, learner, policy, put, rows, run_in, team

# ---- 21: matd3 is more than a name ----------------------------------------------------------------------------------


def test_21_matd3_moves_its_policies_every_second_update() -> None:
    """tf2multiagentrl delays its policies `if good_policy == 'tf2marl'`, which no policy is called.

    What ran under the name of MATD3 moved its policies in every update.
    """
    run = run_in("simple", algorithm={"name": "matd3"}, network={"policy_hidden": (4,)}, replay={"batch": 8})
    training, moved = Trainer(run, Device(torch.device("cpu"))), []
    words = np.random.default_rng(0).random((8, transition_dtype(run.joint).itemsize // 4), np.float32)
    for updates in range(6):
        before = training.engine.policy_weights().copy()
        training.update(SampledBatch(torch.from_numpy(words), complete=False), updates, 0.0, 0.0)
        moved.append(bool((training.engine.policy_weights() != before).any()))
    assert moved == [False, True] * 3
    assert network_layout(players(team("a"), "maddpg"), ONE_UNIT, AlgorithmSpec(name="maddpg")).policy_delay == 1


def test_21_matd3_takes_the_lower_of_two_critics_row_by_row() -> None:
    """The twin critics of MATD3: y = r + 0.5 * min(o', -o'), whichever of both is lower in that row."""
    found = learner(team("a"), name="matd3", discount=0.5)
    put(found, target_critics=[critic([1.0, 0.0]), critic([-1.0, 0.0])])
    target = found.td_target(rows(found.agents, next_obs=[[3], [-5]], reward=10.0, count=2))
    assert target.tolist()[0] == pytest.approx([10 - 1.5, 10 - 2.5])


def test_21_matd3_smooths_its_target_actions() -> None:
    """tf2multiagentrl's smoothing noise has a standard deviation of 0 by default: no smoothing at all.

    With y = a' of a policy at 0, targets are the noise itself: N(0, 0.2), never beyond 0.5.
    """
    found = learner(team("a"), name="matd3", discount=1.0)
    put(found, target_critics=[critic([0.0, 1.0])] * 2, target_policies=[policy([0.0])])
    noise = found.td_target(rows(found.agents, count=4_000)).numpy()
    assert noise.std() == pytest.approx(0.2, rel=0.1)
    assert 0.45 < abs(noise).max() <= 0.5 + 1e-9
    plain = learner(team("a"), discount=1.0)
    put(plain, target_critics=[critic([0.0, 1.0])], target_policies=[policy([0.0])])
    assert (plain.td_target(rows(plain.agents, count=8)) == 0.0).all(), "maddpg's are without noise"


def test_21_matd3_takes_nothing_from_beyond_a_true_end() -> None:
    """tf2multiagentrl stores whether an episode is done and does not look at it when it makes targets."""
    found = learner(team("a"), name="matd3", discount=0.5)
    put(found, target_critics=[critic([0.0, 0.0], 8.0)] * 2)
    target = found.td_target(rows(found.agents, reward=3.0, discount=[[0], [1]], count=2))
    assert target.tolist()[0] == pytest.approx([3.0, 7.0])


# ---- 27: rewards ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_27_rewards_are_scaled_but_never_shifted(scale: float) -> None:
    """maddpg-pytorch standardises rewards by mean and deviation over its whole buffer when it samples.

    Taking a mean away moves all values by a constant that drifts as the buffer fills, and where episodes truly end it
    changes which policy is best. Here a row's target is its reward times the scale, whatever stands beside it.
    """
    found = learner(team("a", "a"), discount=1.0, reward_scale=scale)
    put(found, target_critics=[critic([0.0] * 4, 5.0)] * 2)
    rewards, discounts = [[10.0, -1.0], [12.0, -1.0], [14.0, -1.0]], [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    together = found.td_target(rows(found.agents, reward=rewards, discount=discounts, count=3))
    expected = scale * np.array(rewards).T + 5.0 * np.array(discounts).T
    np.testing.assert_allclose(together, expected, rtol=1e-9)
    for row in range(3):
        alone = found.td_target(rows(found.agents, reward=rewards[row], discount=discounts[row]))
        np.testing.assert_allclose(alone[:, 0], expected[:, row], rtol=1e-9)


def test_27_no_preset_or_setting_shifts_rewards() -> None:
    """What a user can say of rewards is their scale, above 0, and whose they are: nothing that subtracts."""
    about_rewards = {name for name in AlgorithmSpec.__struct_fields__ if "reward" in name or "normal" in name}
    assert about_rewards == {"reward_scale", "normalise_rewards", "normalise_observations"}
    assert make_run_spec({"scenario": "simple"}).algorithm.reward_scale == 1.0


def test_27_normalised_rewards_are_divided_but_never_shifted() -> None:
    """A running scale changes with the buffer, but all values by the same factor, so that no other policy is best."""
    found = learner(team("a", "a"), discount=0.0, normalise_rewards=True)
    rewards = np.array([[10.0, -1.0], [12.0, 0.0], [14.0, -1.0]])
    batch = found.normalise(rows(found.agents, reward=rewards.tolist(), count=3))
    for target, own in zip(found.td_target(batch).numpy(), rewards.T, strict=True):
        np.testing.assert_allclose(target * own[0] / target[0], own, rtol=1e-9)


# ---- 28: who is who -------------------------------------------------------------------------------------------------


def test_28_next_actions_come_from_each_agents_own_next_observation() -> None:
    """cyoon1729's MADDPG asks all target policies about agent i's next observation (issue #3).

    In MARO PR #413 the target critic was shown `states` for `next_states`. Three agents that differ in everything
    they see and do, and critics that weigh each of it differently, tell all such mistakes apart.
    """
    found = learner(team("a", "a", "b"), discount=0.5)
    slopes, offsets = [0.5, -1.0, 2.0], [0.1, 0.2, -0.3]
    put(found, target_policies=[policy([c], biases=[b]) for c, b in zip(slopes, offsets, strict=True)])
    of_obs = np.array([[1.0, 10.0, 100.0], [2.0, 20.0, 200.0], [3.0, 30.0, 300.0]])
    of_action = np.array([[7.0, 70.0, 700.0], [5.0, 50.0, 500.0], [4.0, 40.0, 400.0]])
    put(found, target_critics=[critic([*o, *a]) for o, a in zip(of_obs, of_action, strict=True)])

    next_obs, reward = np.array([0.3, -0.4, 0.6]), np.array([1.0, 2.0, 3.0])
    batch = rows(found.agents, obs=[9, 8, 7], action=[-1, 1, 0.5], next_obs=next_obs, reward=reward)
    next_action = np.tanh(np.array(slopes) * next_obs + offsets)
    expected = reward + 0.5 * (of_obs @ next_obs + of_action @ next_action)
    np.testing.assert_allclose(found.td_target(batch)[:, 0], expected, rtol=1e-9)


def test_28_agents_learn_from_their_own_rewards() -> None:
    """Mava #357: the reward went into another argument of the loss. Here each agent's goes into its own target."""
    found = learner(team("a", "a", "b"))
    put(found, target_critics=[critic([0.0] * 6)] * 3)
    batch = rows(found.agents, reward=[1.0, 20.0, 300.0], discount=[1.0, 0.0, 1.0])
    np.testing.assert_allclose(found.td_target(batch)[:, 0], [1.0, 20.0, 300.0])


def test_28_rows_in_which_an_agent_is_gone_count_for_nothing() -> None:
    """Mava trained MADDPG on padding until it was masked out of the losses (issue #358, PR #383).

    The second agent is there in the first of two rows only. What stands in its place in the other is no experience,
    however large; and the first agent's losses know both rows.
    """
    found = learner(team("a", "a"), discount=1.0, action_regularisation=0.0)
    own = [critic([1.0, 0.0, 0.0, 0.0]), critic([0.0, 1.0, 0.0, 0.0])]
    put(found, critics=own, target_critics=[critic([0.0] * 4)] * 2)
    batch = rows(found.agents, obs=[[1, 2], [3, 1e6]], reward=[[0, 0], [0, 1e6]], present=[[1, 1], [1, 0]], count=2)
    measured = found.update(batch, 1e-12, 1e-12)
    assert measured.critic_loss.tolist() == pytest.approx([(1.0 + 9.0) / 2, 4.0])
    assert measured.q_mean.tolist() == pytest.approx([2.0, 2.0])


def test_28_agents_that_are_gone_next_step_do_nothing_in_it() -> None:
    """The same of target actions: who has ended, or is absent already, acts 0, as in the rows that are stored.

    A target policy asked about the zeros in an absent agent's place would still answer, here with tanh(2).
    """
    found = learner(team("a", "a"), discount=1.0)
    put(found, target_critics=[critic([0.0, 0.0, 1.0, 10.0])] * 2)
    put(found, target_policies=[policy([0.0], biases=[1.0]), policy([0.0], biases=[2.0])])
    one, other = np.tanh(1.0), np.tanh(2.0)
    batch = rows(found.agents, discount=[[1, 1], [1, 0], [1, 1]], present=[[1, 1], [1, 1], [1, 0]], count=3)
    target = found.td_target(batch)
    np.testing.assert_allclose(target[0], [one + 10 * other, one, one], rtol=1e-9)
    assert LIFT > 10.0, "the critics' hidden units never bend"
