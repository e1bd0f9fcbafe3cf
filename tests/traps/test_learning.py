"""Traps 17, 19, 20, 23, 26 and 30 to 32: whose networks see what, and what moves them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.errors import ConfigError
from common.policy.network import Policy
from common.run.run import AlgorithmSpec, NetworkSpec, make_run_spec
from common.spec import AgentsSpec, Box, joint_spec
from common.transitions import transition_dtype
from learner_node.persistence.state import Counters, copy_state
from learner_node.stacked.update import StackedUpdate
from learner_node.update.batches import LossBatch
from tests.learner_node.teams import run_for
from tests.traps.hand import DOUBLE, STILL, UNIT, collect, critic, learner, paper, policy, put, rows, run_in, team


def gradients(found: StackedUpdate, kind: str, of: int) -> np.ndarray:
    """Returns the clipped gradients of the first update, a row for each of `of` equal networks.

    Adam's running mean after one step is a tenth of them.
    """
    return copy_state(found, Counters()).tensors[f"{kind}/adam/mean"].numpy().reshape(of, -1) * 10.0


# ---- 17: the teammates ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("teammates", ["buffer", "current"])
def test_17_whose_actions_stand_in_an_agents_policy_loss_is_a_setting(teammates: str) -> None:
    """openai/maddpg takes teammates' actions from the buffer, maddpg-pytorch and EPyMARL ask the current policies.

    It is asked again and again (openai/maddpg #16, maddpg-pytorch #38, epymarl #31) because no code says it. Here
    the stored actions are 0.5 and -0.5, the policies say tanh(1) and tanh(2), and q_i = a_0 + 10 a_1.
    """
    found = learner(team("a", "a"), teammates=teammates, action_regularisation=0.0)
    put(found, policies=[policy([0.0], biases=[1.0]), policy([0.0], biases=[2.0])])
    put(found, critics=[critic([0.0, 0.0, 1.0, 10.0])] * 2)
    value = found.update(rows(found.agents, action=[0.5, -0.5]), STILL, STILL).q_mean.tolist()
    one, other = np.tanh(1.0), np.tanh(2.0)
    by_buffer = [one - 5.0, 0.5 + 10 * other]
    assert value == pytest.approx(by_buffer if teammates == "buffer" else [one + 10 * other] * 2)


def test_17_the_preset_paper_does_as_openai_does() -> None:
    """Who asks for the published algorithm gets the published code's choice."""
    assert paper().algorithm.teammates == "buffer"


@pytest.mark.parametrize("teammates", ["buffer", "current"])
def test_17_no_policy_is_moved_by_a_teammates_critic(teammates: str) -> None:
    """With current actions it is easy to let agent 0's critic teach agent 1's policy; each has its own critic."""
    found = learner(team("a", "a"), teammates=teammates, action_regularisation=0.0)
    put(found, critics=[critic([0.0, 0.0, 1.0, 10.0]), critic([0.0] * 4)])
    found.update(rows(found.agents, obs=1.0), STILL, STILL)
    of_policies = gradients(found, "policies", 2)
    assert abs(of_policies[0]).max() > 0.0
    assert (of_policies[1] == 0.0).all()


# ---- 19, 20: what the published code does beside the paper -----------------------------------------------------------


def test_19_the_penalty_on_logits_is_a_setting_and_paper_has_it() -> None:
    """openai/maddpg adds 1e-3 * mean(logits^2) to the policy loss; its paper has no word of it (tf2multiagentrl #6).

    Over each agent's own numbers: logits (3, -1) and (2,) give means of 5 and 4.
    """
    two = joint_spec([("wide", "a", 1, (Box((-1.0,) * 2, (1.0,) * 2),)), ("narrow", "a", 1, (Box((-1.0,), (1.0,)),))])
    for weight in (paper().algorithm.action_regularisation, 0.5):
        found = learner(two, action_regularisation=weight)
        put(found, policies=[policy([0.0], (1.0, 1.0), (3.0, -1.0)), policy([0.0], biases=[2.0])])
        put(found, critics=[critic([0.0] * 5)] * 2)
        loss = found.update(rows(two), STILL, STILL).policy_loss
        assert loss.tolist() == pytest.approx([weight * 5.0, weight * 4.0])
    assert paper().algorithm.action_regularisation == 1e-3


def test_20_gradients_are_clipped_network_by_network() -> None:
    """openai/maddpg clips each variable at 0.5, PyTorch's ports a network's whole gradient: not the same 0.5.

    By default it is a network's whole gradient, and that one's alone: one agent's huge error leaves another's step as
    it is. With q = 0 and inputs 0 a critic's gradient is 2 * error * (1, hidden unit, 1) = 2 * error * (1, 1000, 1).
    """
    found = learner(team("a", "a"), gradient_clip=0.5)
    put(found, critics=[critic([0.0] * 4)] * 2, target_critics=[critic([0.0] * 4)] * 2)
    found.update(rows(found.agents, reward=[100.0, 1e-5]), STILL, STILL)
    direction = np.array([0.0] * 4 + [1.0, 1000.0, 1.0])
    large, small = gradients(found, "critics", 2)
    np.testing.assert_allclose(large, -0.5 * direction / np.linalg.norm(direction), rtol=1e-6)
    np.testing.assert_allclose(small, 2 * -1e-5 * direction, rtol=1e-6)


def test_20_the_preset_paper_clips_each_weight_matrix_and_bias_vector() -> None:
    """The gradient above is that of three tensors: (1,) the first bias, (1000,) the last weight, (1,) the last bias."""
    assert paper().algorithm.gradient_clip_by == "tensor"
    found = learner(team("a", "a"), gradient_clip=0.5, gradient_clip_by="tensor")
    put(found, critics=[critic([0.0] * 4)] * 2, target_critics=[critic([0.0] * 4)] * 2)
    found.update(rows(found.agents, reward=[100.0, 1e-5]), STILL, STILL)
    large, small = gradients(found, "critics", 2)
    np.testing.assert_allclose(large, [0.0] * 4 + [-0.5, -0.5, -0.5], rtol=1e-6)
    np.testing.assert_allclose(small, [0.0] * 4 + [-2e-5, -0.02, -2e-5], rtol=1e-6)


# ---- 23: a centralised critic sees everyone --------------------------------------------------------------------------


def losses(joint: AgentsSpec, name: str, batch: LossBatch, *, shared: bool) -> np.ndarray:
    """Returns the critics' losses on a batch of a learner that always starts alike."""
    network = NetworkSpec(policy_hidden=(8,), critic_hidden=(8,), share_critics=shared)
    found = StackedUpdate(run_for(joint, network, AlgorithmSpec(name=name), seed=3), DOUBLE)
    return found.update(batch, STILL, STILL).critic_loss.numpy()


def who_sees_whom(joint: AgentsSpec, name: str, *, actions: bool, shared: bool) -> np.ndarray:
    """Returns [critics, agents]: which critics' values change with which agents' observations (or actions)."""
    rng = np.random.default_rng(0)
    batch = rows(joint, obs=rng.random((8, joint.obs_dim)), action=rng.random((8, joint.action_dim)), count=8)
    before, seen = losses(joint, name, batch, shared=shared), []
    for agent in joint.agents:
        changed = batch.obs_action.clone()
        start = joint.obs_dim + agent.action_start if actions else agent.obs_start
        changed[:, start : start + (agent.action_dim if actions else agent.obs_dim)] += 1.0
        seen.append(losses(joint, name, replace(batch, obs_action=changed), shared=shared) != before)
    return np.stack(seen, 1)


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("what", ["observations", "actions"])
@pytest.mark.parametrize("scenario", ["simple_tag", "simple_adversary", "simple_push", "simple_speaker_listener"])
def test_23_critics_see_the_other_side_too(scenario: str, what: str, shared: bool) -> None:
    """In BenchMARL and TorchRL a loss works on one group of agents ("cannot operate across multiple groups",
    pytorch/rl PR #2047): in mixed games, and where speaker and listener are two groups, MADDPG's critic lacks the
    other group's actions. Here every critic's value depends on every agent, whatever its side, size or kind.
    """
    joint = run_in(scenario).joint
    for name in ("maddpg", "matd3"):
        assert who_sees_whom(joint, name, actions=what == "actions", shared=shared).all()


def test_23_only_iddpgs_see_their_own_agent_alone() -> None:
    """What is no MADDPG is called by another name, and has to be asked for."""
    joint = run_in("simple_tag").joint
    for actions in (False, True):
        np.testing.assert_array_equal(
            who_sees_whom(joint, "iddpg", actions=actions, shared=False), np.eye(4, dtype=bool)
        )


# ---- 26: nothing hides outside the parameters ------------------------------------------------------------------------


def test_26_a_rows_action_and_target_do_not_depend_on_the_rest_of_the_batch() -> None:
    """maddpg-pytorch normalises inputs by BatchNorm: a network answers differently in training, acting and evaluation.

    Here a network is its parameters alone: a row is answered alike alone and in company, and as an actor answers it.
    """
    run = run_in("simple_spread", algorithm={"name": "maddpg"})
    found = StackedUpdate(run_for(run.joint, run.spec.network, run.spec.algorithm, seed=3), DOUBLE)
    rng = np.random.default_rng(0)
    batch = rows(run.joint, next_obs=rng.normal(0.0, 5.0, (16, run.joint.obs_dim)), count=16)
    logits, target = found.logits(batch.next_obs).clone(), found.td_target(batch)
    alone = rows(run.joint, next_obs=batch.next_obs[:1])
    torch.testing.assert_close(found.logits(alone.next_obs), logits[:1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.td_target(alone), target[:, :1], rtol=1e-12, atol=1e-12)


def test_26_targets_follow_everything_that_is_learnt() -> None:
    """maddpg-pytorch's `soft_update` walks over parameters, so BatchNorm's running statistics never reach a target.

    At a target rate of 1 a target is its network, in everything that is kept of either.
    """
    found = learner(team("a", "b"), target_rate=1.0)
    found.update(rows(found.agents, obs=1.0, reward=[1.0, 2.0]), 0.1, 0.1)
    state = copy_state(found, Counters()).tensors
    for kind in ("policies", "critics"):
        assert torch.equal(state[f"{kind}/online"], state[f"{kind}/target"])
    assert {name.partition("/")[2] for name in state if "/" in name} == {
        "online",
        "target",
        "adam/mean",
        "adam/square",
        "adam/steps",
    }, "there is nothing else"


def test_26_an_actor_answers_as_the_learner_does() -> None:
    """The same parameters in an actor's numpy give the same logits: there is no mode to forget to switch."""
    run = run_in("simple_spread")
    found = StackedUpdate(run_for(run.joint, run.spec.network, run.spec.algorithm, seed=3), DOUBLE)
    obs = np.random.default_rng(0).normal(size=(4, run.joint.obs_dim)).astype(np.float32)
    acted = Policy(run.players, run.spec.network, found.policy_weights()).logits(obs)
    np.testing.assert_allclose(acted, found.logits(torch.tensor(obs.astype(float))), rtol=1e-5, atol=1e-6)


# ---- 30, 31: sharing -------------------------------------------------------------------------------------------------


def test_30_a_policy_for_everyone_is_never_a_silent_default() -> None:
    """marlbenchmark/off-policy trains one policy for all agents by default (its README's first warning).

    Here networks are shared within a role at most, the setting says so, and `paper` has a policy and a critic for
    each agent, as the algorithm is published.
    """
    joint = run_in("simple_tag").joint
    published = StackedUpdate(run_for(joint, paper().network, paper().algorithm), DOUBLE).layout
    assert published.policy_networks == published.critic_networks == (0, 1, 2, 3)
    default = make_run_spec({"scenario": "simple_tag"})
    shared = StackedUpdate(run_for(joint, default.network, default.algorithm), DOUBLE).layout.policy_networks
    assert shared[3] not in shared[:3], "a prey never has a predator's policy"
    assert (len(set(shared)) < 4) == default.network.share_policies


def test_30_a_setting_that_is_misspelt_is_refused() -> None:
    """marlbenchmark/off-policy's MATD3 script passes `--use_reward_normlization`, and unknown flags are dropped.

    Its rewards are not normalised and nothing says so. A setting that nobody reads is an error here that names it.
    """
    with pytest.raises(ConfigError, match="reward_scal"):
        make_run_spec({"scenario": "simple", "algorithm": {"reward_scal": 0.1}})


def test_31_sharing_stops_at_a_role() -> None:
    """Padding observations to one length lets predators and prey share a network (EPyMARL needs agents' ids for that).

    Here nothing is padded, and only neighbours of one name, side, size and kind of action share.
    """
    shared = NetworkSpec(share_policies=True, share_critics=True)
    alike = [("hare_0", "prey"), ("hare_1", "prey"), ("owl_0", "prey"), ("owl_1", "hunter")]
    joint = joint_spec([(name, side, 2, (UNIT,)) for name, side in alike])
    tag, speaker_listener = run_in("simple_tag").joint, run_in("simple_speaker_listener").joint
    for spec, roles in ((tag, (0, 0, 0, 1)), (speaker_listener, (0, 1)), (joint, (0, 0, 1, 2))):
        layout = StackedUpdate(run_for(spec, shared, AlgorithmSpec(name="maddpg")), DOUBLE).layout
        assert (layout.policy_networks, layout.critic_networks) == (roles, roles)


def test_31_agents_that_share_can_be_told_apart() -> None:
    """Without an id, agents of one network that see the same must do the same; `tell_apart` gives each its own bias."""
    for apart in (False, True):
        network = {"share_policies": True, "tell_apart": apart}
        run = run_in("simple_spread", network=network)
        found = StackedUpdate(run, DOUBLE)
        logits = found.logits(torch.full((1, run.joint.obs_dim), 0.3, dtype=torch.float64)).view(3, 5)
        # Sums in another order, as a product may take them for one agent and another, are the same decision.
        for one, other in ((0, 1), (1, 2)):
            assert torch.allclose(logits[one], logits[other], rtol=0.0, atol=1e-12) != apart


# ---- 32: joint rows are kept once ------------------------------------------------------------------------------------


def test_32_a_joint_transition_is_stored_once_whatever_the_number_of_agents() -> None:
    """openai/maddpg keeps a replay buffer for each agent and joins their rows again in training (issue #43).

    A row of spread's three agents: 2 * 54 numbers seen, 15 done, 3 * 3 of rewards, discounts and presence, one version.
    """
    spread = run_in("simple_spread")
    assert transition_dtype(spread.joint).itemsize == 4 * (2 * 54 + 15 + 3 * 3 + 1)
    records = collect(spread, 2, copies=3)
    assert records.nbytes == 6 * transition_dtype(spread.joint).itemsize


def test_32_a_critic_reads_each_number_once() -> None:
    """Joining "all observations" with an agent's own once more would show it twice: a critic has O + U inputs."""
    joint = run_in("simple_tag").joint
    for shared in (False, True):
        found = StackedUpdate(run_for(joint, NetworkSpec(share_critics=shared), AlgorithmSpec()), DOUBLE)
        for one in found.layout.critics:
            assert sorted(one.input_columns) == list(range(joint.obs_dim + joint.action_dim))
