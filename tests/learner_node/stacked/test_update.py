"""The engines `stacked` and `autograd` compute the same update, player by player."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from msgspec.structs import replace as replace_fields

from common.errors import ConfigError
from common.run.run import AlgorithmSpec, NetworkSpec
from common.spec import AgentsSpec
from learner_node.algorithms.maddpg import Maddpg
from learner_node.stacked.update import StackedUpdate
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records, run_for

NETWORK = NetworkSpec(policy_hidden=(16, 12), critic_hidden=(20, 8), share_policies=False, share_critics=False)
ROWS = 48
DOUBLE = torch.zeros((), dtype=torch.float64)


class Pair:
    """Both engines with the same parameters and random draws, on the same batches."""

    def __init__(self, joint: AgentsSpec, algorithm: AlgorithmSpec, network: NetworkSpec = NETWORK) -> None:
        self.joint, self.algorithm = joint, algorithm
        self.stacked = StackedUpdate(run_for(joint, network, algorithm, seed=3), DOUBLE)
        self.autograd = Maddpg(run_for(joint, network, algorithm, seed=3), DOUBLE)

    def update(self, seed: int, *, absences: bool, weighted: bool = False, update_policies: bool = True) -> None:
        """Updates both on one batch, normalised if the settings ask for it, and compares what they report."""
        records = random_records(self.joint, ROWS, seed, absences=absences)
        importance = torch.rand(ROWS, dtype=torch.float64) if weighted else None
        rates = self.algorithm.policy_learning_rate, self.algorithm.critic_learning_rate
        stacked, autograd = (
            engine.update(
                engine.normalise(replace(as_batch(as_fields(records, torch.float64)), importance=importance)),
                *rates,
                update_policies=update_policies,
            )
            for engine in (self.stacked, self.autograd)
        )
        names = ["abs_td_error", "critic_loss", "critic_gradient_norm"]
        if update_policies:
            names += ["policy_loss", "q_mean", "policy_gradient_norm"]
        for name in names:
            torch.testing.assert_close(getattr(autograd, name), getattr(stacked, name), rtol=1e-8, atol=1e-12)

    def compare(self) -> None:
        """Compares all parameters, targets and moments, and what is published."""
        for kind in ("policies", "critics"):
            stacked, autograd = (getattr(engine, kind).tensors() for engine in (self.stacked, self.autograd))
            assert list(stacked) == list(autograd)
            for name, tensor in stacked.items():
                torch.testing.assert_close(autograd[name], tensor, rtol=0, atol=1e-9)
        np.testing.assert_allclose(self.autograd.policy_weights(), self.stacked.policy_weights(), rtol=0, atol=1e-6)
        assert torch.equal(self.autograd.generator.get_state(), self.stacked.generator.get_state())


@pytest.mark.parametrize("team", TEAMS)
@pytest.mark.parametrize("absences", [False, True], ids=["all_present", "absences"])
def test_both_engines_agree(team: str, absences: bool) -> None:
    pair = Pair(TEAMS[team], AlgorithmSpec(name="matd3"))
    for seed in range(5):
        pair.update(seed, absences=absences)
    pair.compare()


SETTINGS = {
    "current_teammates": AlgorithmSpec(name="matd3", teammates="current"),
    "soft_gumbel": AlgorithmSpec(name="matd3", gumbel="soft", gumbel_temperature=0.7),
    "unclipped": AlgorithmSpec(name="matd3", gradient_clip=0.0, action_regularisation=0.0),
    "clipped_hard": AlgorithmSpec(name="matd3", gradient_clip=0.01, target_rate=1.0, discount=1.0),
    "clipped_by_tensor": AlgorithmSpec(name="matd3", gradient_clip=0.01, gradient_clip_by="tensor"),
    "sampled_targets": AlgorithmSpec(name="matd3", target_actions="sampled", gumbel="soft", gumbel_temperature=0.7),
    "huber": AlgorithmSpec(name="matd3", critic_loss="huber", reward_scale=3.0),
    "weight_decay": AlgorithmSpec(name="matd3", critic_weight_decay=0.1, policy_weight_decay=0.2),
    "decoupled_weight_decay": AlgorithmSpec(
        name="matd3", critic_weight_decay=0.1, policy_weight_decay=0.2, decoupled_weight_decay=True
    ),
    "team_spirit": AlgorithmSpec(name="matd3", team_spirit=0.3),
    "normalised": AlgorithmSpec(
        name="matd3", normalise_observations=True, normalise_rewards=True, reward_scale=3.0, team_spirit=0.3
    ),
    "matd3": AlgorithmSpec(name="matd3", smoothing=0.3),
    "maddpg": AlgorithmSpec(name="maddpg"),
    "iddpg": AlgorithmSpec(name="iddpg"),
    "joint": AlgorithmSpec(name="joint"),
}


@pytest.mark.parametrize("team", ["spread", "mixed", "masked"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_both_engines_agree_in_each_setting(team: str, setting: str) -> None:
    if (team, setting) == ("mixed", "joint"):
        pytest.skip("its sides do not stand side by side")
    pair = Pair(TEAMS[team], SETTINGS[setting])
    for seed in range(3):
        pair.update(seed, absences=True)
    pair.compare()


@pytest.mark.parametrize(
    "name",
    [
        "adversary=maddpg,agent=iddpg",
        "adversary=matd3,agent=maddpg",
        "adversary=joint,agent=matd3",
        "agent=joint,adversary=joint",
    ],
)
@pytest.mark.parametrize("absences", [False, True], ids=["all_present", "absences"])
def test_both_engines_agree_where_sides_learn_differently(name: str, absences: bool) -> None:
    pair = Pair(TEAMS["tag"], AlgorithmSpec(name=name, side_learning_rates={"agent": 0.5}))
    for seed in range(3):
        pair.update(seed, absences=absences)
    pair.compare()


@pytest.mark.parametrize("team", ["spread", "tag", "mixed", "discrete", "masked"])
@pytest.mark.parametrize("name", ["maddpg", "matd3", "iddpg"])
@pytest.mark.parametrize("apart", [False, True], ids=["alike", "told_apart"])
def test_both_engines_agree_with_shared_networks(team: str, name: str, apart: bool) -> None:
    network = replace_fields(NETWORK, share_policies=True, share_critics=True, tell_apart=apart)
    pair = Pair(TEAMS[team], AlgorithmSpec(name=name), network)
    for seed in range(3):
        pair.update(seed, absences=True)
    pair.compare()


@pytest.mark.parametrize("apart", [False, True], ids=["alike", "told_apart"])
def test_both_engines_clip_the_tensors_of_shared_networks_alike(apart: bool) -> None:
    network = replace_fields(NETWORK, share_policies=True, share_critics=True, tell_apart=apart)
    pair = Pair(TEAMS["tag"], AlgorithmSpec(name="matd3", gradient_clip=0.02, gradient_clip_by="tensor"), network)
    for seed in range(3):
        pair.update(seed, absences=True)
    pair.compare()


@pytest.mark.parametrize("shared", ["share_policies", "share_critics"])
def test_networks_of_one_kind_may_be_shared_alone(shared: str) -> None:
    pair = Pair(TEAMS["tag"], AlgorithmSpec(name="matd3"), replace_fields(NETWORK, **{shared: True}))
    for seed in range(3):
        pair.update(seed, absences=False)
    pair.compare()


@pytest.mark.parametrize("sees", ["state", "both"])
@pytest.mark.parametrize("team", ["spread", "tag", "mixed", "alone"])
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("teammates", ["buffer", "current"])
def test_both_engines_agree_where_critics_read_a_state(sees: str, team: str, shared: bool, teammates: str) -> None:
    agents = replace_fields(TEAMS[team], state_dim=6)
    network = replace_fields(NETWORK, share_policies=shared, share_critics=shared, tell_apart=shared)
    pair = Pair(agents, AlgorithmSpec(name="matd3", critic_sees=sees, teammates=teammates), network)  # type: ignore[arg-type]
    for seed in range(3):
        pair.update(seed, absences=True)
    pair.compare()


def test_a_joint_critic_reads_a_state_too() -> None:
    agents = replace_fields(TEAMS["spread"], state_dim=4)
    pair = Pair(agents, AlgorithmSpec(name="joint", critic_sees="state"))
    for seed in range(3):
        pair.update(seed, absences=False)
    pair.compare()


@pytest.mark.parametrize("sees", ["observations", "state", "both"])
def test_critics_read_what_the_setting_says(sees: str) -> None:
    """A change of an input changes the TD errors if critics read it, and the values of the policies' targets."""
    agents = replace_fields(TEAMS["alone"], state_dim=3 if sees != "observations" else 0)
    learner = StackedUpdate(run_for(agents, NETWORK, AlgorithmSpec(name="maddpg", critic_sees=sees), seed=3), DOUBLE)  # type: ignore[arg-type]
    inputs = learner.layout.critics[0].input_columns
    columns = {"obs": range(4), "action": range(4, 9), "state": range(9, 9 + agents.state_dim)}
    expected = {"observations": ("obs", "action"), "state": ("action", "state"), "both": ("obs", "action", "state")}
    assert inputs == tuple(column for name in expected[sees] for column in columns[name])


@pytest.mark.parametrize(("name", "state_dim", "message"), [("iddpg", 3, "iddpg"), ("maddpg", 0, "no global state")])
def test_a_state_that_critics_cannot_read_is_refused(name: str, state_dim: int, message: str) -> None:
    agents = replace_fields(TEAMS["spread"], state_dim=state_dim)
    with pytest.raises(ConfigError, match=message):
        StackedUpdate(run_for(agents, NETWORK, AlgorithmSpec(name=name, critic_sees="both"), seed=3), DOUBLE)


@pytest.mark.parametrize("head", ["soft", "force"])
def test_both_engines_agree_with_each_head(head: str) -> None:
    algorithm = AlgorithmSpec(name="matd3", target_actions="sampled")
    pair = Pair(TEAMS["tag"], algorithm, replace_fields(NETWORK, head=head, initialisation="xavier"))
    for seed in range(3):
        pair.update(seed, absences=False)
    pair.compare()


def test_policies_and_targets_wait_while_critics_learn() -> None:
    pair = Pair(TEAMS["tag"], AlgorithmSpec(name="matd3"))
    for seed in range(5):
        before = pair.stacked.policies.shared.clone()
        pair.update(seed, absences=False, update_policies=seed % 2 == 1)
        assert torch.equal(before, pair.stacked.policies.shared) == (seed % 2 == 0)
    pair.compare()


@pytest.mark.parametrize("name", ["maddpg", "matd3"])
def test_rows_count_by_their_importance(name: str) -> None:
    pair = Pair(TEAMS["mixed"], AlgorithmSpec(name=name))
    for seed in range(3):
        pair.update(seed, absences=True, weighted=True)
    pair.compare()


@pytest.mark.parametrize("hidden", [(7,), (9, 8, 7)], ids=["one_layer", "three_layers"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_both_engines_agree_at_any_depth(hidden: tuple[int, ...], shared: bool) -> None:
    network = NetworkSpec(hidden, hidden[::-1], share_policies=shared, share_critics=shared)
    pair = Pair(TEAMS["mixed"], AlgorithmSpec(name="matd3"), network)
    for seed in range(3):
        pair.update(seed, absences=False)
    pair.compare()


def test_time_limits_bootstrap_from_the_true_final_observation() -> None:
    """A last step with discount 1 takes its value from next_obs; with discount 0 it takes none."""
    joint = TEAMS["spread"]
    algorithm = AlgorithmSpec(name="maddpg", discount=0.9)
    learner = StackedUpdate(run_for(joint, NETWORK, algorithm, seed=3), DOUBLE)
    fields = as_fields(random_records(joint, ROWS, 0), torch.float64)
    fields["discount"][: ROWS // 2] = 0.0
    target = learner.td_target(as_batch(fields)).t()
    ended, limited = target[: ROWS // 2], target[ROWS // 2 :]
    torch.testing.assert_close(ended, fields["reward"][: ROWS // 2], rtol=0, atol=0)
    moved = {**fields, "next_obs": fields["next_obs"] + 1.0}
    again = learner.td_target(as_batch(moved)).t()
    assert torch.equal(again[: ROWS // 2], ended)
    assert ((again[ROWS // 2 :] - limited).abs() > 1e-6).all()
    elsewhere = {**fields, "obs": fields["obs"] + 1.0, "action": fields["action"] + 1.0}
    assert torch.equal(learner.td_target(as_batch(elsewhere)).t(), target)


def test_what_an_absent_agent_leaves_in_its_rows_changes_nothing_of_its_own() -> None:
    joint = TEAMS["tag"]
    fields = as_fields(random_records(joint, ROWS, 0), torch.float64)
    fields["present"][: ROWS // 2, 1] = 0.0
    changed = {name: value.clone() for name, value in fields.items()}
    changed["reward"][: ROWS // 2, 1] = 100.0
    learners = [StackedUpdate(run_for(joint, NETWORK, AlgorithmSpec(name="matd3"), seed=3), DOUBLE) for _ in range(2)]
    for learner, batch in zip(learners, (fields, changed), strict=True):
        learner.update(as_batch(batch), 1e-3, 1e-3)
    assert torch.equal(learners[0].policies.shared, learners[1].policies.shared)
    assert torch.equal(learners[0].critics.shared, learners[1].critics.shared)


def test_an_agent_that_is_never_present_learns_nothing() -> None:
    joint = TEAMS["spread"]
    fields = as_fields(random_records(joint, ROWS, 0), torch.float64)
    fields["present"][:, 2] = 0.0
    learner = StackedUpdate(run_for(joint, NETWORK, AlgorithmSpec(name="matd3"), seed=3), DOUBLE)
    before = learner.policies.tensors()["online"]
    losses = learner.update(as_batch(fields), 1e-3, 1e-3)
    after = learner.policies.tensors()["online"]
    third = len(after) // 3
    assert torch.equal(after[2 * third :], before[2 * third :])
    assert not torch.equal(after[:third], before[:third])
    assert losses.critic_loss[2] == 0.0


@pytest.mark.parametrize("largest", [1e-24, 1e-12, 1e12])
def test_any_clip_leaves_float32_finite(largest: float) -> None:
    joint = TEAMS["spread"]
    learner = StackedUpdate(
        run_for(joint, NETWORK, AlgorithmSpec(name="matd3", gradient_clip=largest), seed=3), torch.zeros(())
    )
    stats = learner.update(as_batch(as_fields(random_records(joint, ROWS, 0), torch.float32)), 1e-3, 1e-3)
    for trained in (learner.policies, learner.critics):
        assert trained.shared.isfinite().all()
    assert (stats.critic_gradient_norm > 1e-6).all()
    assert (stats.critic_gradient_norm < 1e6).all()


@pytest.mark.parametrize("team", ["spread", "mixed"])
def test_a_batch_known_to_be_complete_is_treated_the_same(team: str) -> None:
    joint = TEAMS[team]
    for teammates in ("buffer", "current"):
        algorithm = AlgorithmSpec(name="matd3", teammates=teammates)  # type: ignore[arg-type]
        one, other = (StackedUpdate(run_for(joint, NETWORK, algorithm, seed=3), DOUBLE) for _ in range(2))
        for seed in range(3):
            batch = as_batch(as_fields(random_records(joint, ROWS, seed), torch.float64))
            one.update(batch, 1e-3, 1e-3)
            other.update(replace(batch, complete=True), 1e-3, 1e-3)
        assert torch.equal(one.policies.shared, other.policies.shared)
        assert torch.equal(one.critics.shared, other.critics.shared)


@pytest.mark.parametrize("rows", [(16, 48, 16)])
def test_the_batch_may_change_its_size(rows: tuple[int, ...]) -> None:
    joint = TEAMS["mixed"]
    one, other = (StackedUpdate(run_for(joint, NETWORK, AlgorithmSpec(name="matd3"), seed=3), DOUBLE) for _ in range(2))
    for seed, count in enumerate(rows):
        batch = as_batch(as_fields(random_records(joint, count, seed), torch.float64))
        one.update(batch, 1e-3, 1e-3)
        other.update(batch, 1e-3, 1e-3)
    assert torch.equal(one.policies.shared, other.policies.shared)
