"""The stacked update equals its slow, literal twin, agent by agent."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from common.run import AlgorithmSpec, NetworkSpec
from common.spec import Box, JointSpec
from learner_node.algorithms.losses import Batch
from learner_node.algorithms.maddpg import Maddpg
from learner_node.heads import gumbel_noise
from learner_node.networks import critic_order, policy_order

from .literal_maddpg import LiteralMaddpg
from .teams import TEAMS, as_fields, random_records

NETWORK = NetworkSpec(policy_hidden=(16, 12), critic_hidden=(20, 8))
ROWS = 48
DOUBLE = torch.zeros((), dtype=torch.float64)


def as_batch(fields: dict[str, Tensor]) -> Batch:
    joint = torch.cat([fields["obs"], fields["action"]], 1)
    return Batch(joint, fields["next_obs"], fields["reward"], fields["discount"], fields["present"])


def load(networks: list[nn.Sequential], flat: Tensor) -> None:
    """Gives flat parameters, network by network and layer by layer, to torch modules."""
    at = 0
    for network in networks:
        for layer in network:
            if isinstance(layer, nn.Linear):
                weight = flat[at : at + layer.weight.numel()].view(layer.in_features, layer.out_features)
                at += layer.weight.numel()
                layer.weight.data.copy_(weight.t())
                layer.bias.data.copy_(flat[at : at + layer.out_features])
                at += layer.out_features
    assert at == len(flat)


def flatten(networks: list[nn.Sequential]) -> Tensor:
    """Returns the parameters of torch modules in the order of `load`."""
    layers = [layer for network in networks for layer in network if isinstance(layer, nn.Linear)]
    pieces = [piece for layer in layers for piece in (layer.weight.data.t().flatten(), layer.bias.data)]
    return torch.cat(pieces)


class Pair:
    """The stacked learner and its twin with the same parameters, fed the same batches and noise."""

    def __init__(self, joint: JointSpec, algorithm: AlgorithmSpec, network: NetworkSpec = NETWORK) -> None:
        self.joint, self.algorithm = joint, algorithm
        self.stacked = Maddpg(joint, network, algorithm, 3, DOUBLE)
        self.twin = LiteralMaddpg(joint, network, algorithm, torch.float64)
        self.policy_order = policy_order(joint, network)
        self.critic_order = critic_order(joint.obs_dim + joint.action_dim, len(joint.agents), network.critic_hidden)
        load(self.twin.mu, self.stacked.policies.flat[self.policy_order])
        load(self.twin.q, self.stacked.critics.flat[self.critic_order])
        self.twin.restart()

    def noise(self) -> Tensor:
        """Returns the Gumbel noise the stacked learner will draw, in the columns of the joint action."""
        generator = torch.Generator()
        generator.set_state(self.stacked.generator.get_state())
        drawn = gumbel_noise(ROWS, self.stacked.heads.choices, DOUBLE, generator)
        noise = torch.zeros(ROWS, self.joint.action_dim, dtype=torch.float64)
        parts = [part for agent in self.joint.agents for part in agent.parts]
        choice = torch.cat([torch.full((part.size,), not isinstance(part, Box)) for part in parts])
        noise[:, choice] = drawn
        return noise

    def update(self, seed: int, *, absences: bool) -> None:
        """Updates both on one batch and compares what they report."""
        fields = as_fields(random_records(self.joint, ROWS, seed, absences=absences), torch.float64)
        critic_losses, policy_losses = self.twin.update(fields, self.noise())
        rates = self.algorithm.policy_learning_rate, self.algorithm.critic_learning_rate
        losses = self.stacked.update(as_batch(fields), *rates)
        torch.testing.assert_close(losses.critic_loss, torch.stack(critic_losses), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(losses.policy_loss, torch.stack(policy_losses), rtol=1e-9, atol=1e-12)

    def compare(self) -> None:
        """Compares all parameters and targets."""
        policies, critics = self.stacked.policies, self.stacked.critics
        for flat, networks in ((policies.flat, self.twin.mu), (policies.target_flat, self.twin.mu_target)):
            torch.testing.assert_close(flat[self.policy_order], flatten(networks), rtol=0, atol=1e-9)
        for flat, networks in ((critics.flat, self.twin.q), (critics.target_flat, self.twin.q_target)):
            torch.testing.assert_close(flat[self.critic_order], flatten(networks), rtol=0, atol=1e-9)


@pytest.mark.parametrize("team", TEAMS)
@pytest.mark.parametrize("absences", [False, True], ids=["all_present", "absences"])
def test_stacked_update_equals_its_twin(team: str, absences: bool) -> None:
    pair = Pair(TEAMS[team], AlgorithmSpec())
    for seed in range(5):
        pair.update(seed, absences=absences)
    pair.compare()


@pytest.mark.parametrize("team", ["spread", "mixed"])
@pytest.mark.parametrize(
    "algorithm",
    [
        AlgorithmSpec(teammates="current"),
        AlgorithmSpec(gumbel="soft", gumbel_temperature=0.7),
        AlgorithmSpec(gradient_clip=0.0, action_regularisation=0.0),
        AlgorithmSpec(gradient_clip=0.01, target_rate=1.0, discount=1.0),
    ],
    ids=["current_teammates", "soft_gumbel", "unclipped", "clipped_hard"],
)
def test_each_setting_equals_its_twin(team: str, algorithm: AlgorithmSpec) -> None:
    pair = Pair(TEAMS[team], algorithm)
    for seed in range(3):
        pair.update(seed, absences=True)
    pair.compare()


@pytest.mark.parametrize("hidden", [(7,), (9, 8, 7)], ids=["one_layer", "three_layers"])
def test_any_depth_equals_its_twin(hidden: tuple[int, ...]) -> None:
    pair = Pair(TEAMS["mixed"], AlgorithmSpec(), NetworkSpec(policy_hidden=hidden, critic_hidden=hidden[::-1]))
    for seed in range(3):
        pair.update(seed, absences=False)
    pair.compare()


def test_time_limits_bootstrap_from_the_true_final_observation() -> None:
    """A last step with discount 1 takes its value from next_obs; with discount 0 it takes none."""
    joint = TEAMS["spread"]
    algorithm = AlgorithmSpec(discount=0.9)
    learner = Maddpg(joint, NETWORK, algorithm, 3, DOUBLE)
    fields = as_fields(random_records(joint, ROWS, 0), torch.float64)
    fields["discount"][: ROWS // 2] = 0.0
    target = learner.td_targets(as_batch(fields)).t()
    ended, limited = target[: ROWS // 2], target[ROWS // 2 :]
    torch.testing.assert_close(ended, fields["reward"][: ROWS // 2], rtol=0, atol=0)
    moved = {**fields, "next_obs": fields["next_obs"] + 1.0}
    again = learner.td_targets(as_batch(moved)).t()
    assert torch.equal(again[: ROWS // 2], ended)
    assert ((again[ROWS // 2 :] - limited).abs() > 1e-6).all()
    elsewhere = {**fields, "obs": fields["obs"] + 1.0, "action": fields["action"] + 1.0}
    assert torch.equal(learner.td_targets(as_batch(elsewhere)).t(), target)


def test_what_an_absent_agent_leaves_in_its_rows_changes_nothing_of_its_own() -> None:
    joint = TEAMS["tag"]
    fields = as_fields(random_records(joint, ROWS, 0), torch.float64)
    fields["present"][: ROWS // 2, 1] = 0.0
    changed = {name: value.clone() for name, value in fields.items()}
    changed["reward"][: ROWS // 2, 1] = 100.0
    learners = [Maddpg(joint, NETWORK, AlgorithmSpec(), 3, DOUBLE) for _ in range(2)]
    for learner, batch in zip(learners, (fields, changed), strict=True):
        learner.update(as_batch(batch), 1e-3, 1e-3)
    assert torch.equal(learners[0].policies.flat, learners[1].policies.flat)
    assert torch.equal(learners[0].critics.flat, learners[1].critics.flat)


def test_an_agent_that_is_never_present_learns_nothing() -> None:
    joint = TEAMS["spread"]
    fields = as_fields(random_records(joint, ROWS, 0), torch.float64)
    fields["present"][:, 2] = 0.0
    learner = Maddpg(joint, NETWORK, AlgorithmSpec(), 3, DOUBLE)
    before = learner.policies.flat.clone()
    losses = learner.update(as_batch(fields), 1e-3, 1e-3)
    order = policy_order(joint, NETWORK)
    third = len(order) // 3
    assert torch.equal(learner.policies.flat[order[2 * third :]], before[order[2 * third :]])
    assert not torch.equal(learner.policies.flat[order[:third]], before[order[:third]])
    assert losses.critic_loss[2] == 0.0


@pytest.mark.parametrize("team", ["spread", "mixed"])
def test_a_batch_known_to_be_complete_is_treated_the_same(team: str) -> None:
    joint = TEAMS[team]
    for teammates in ("buffer", "current"):
        one, other = (Maddpg(joint, NETWORK, AlgorithmSpec(teammates=teammates), 3, DOUBLE) for _ in range(2))  # type: ignore[arg-type]
        for seed in range(3):
            batch = as_batch(as_fields(random_records(joint, ROWS, seed), torch.float64))
            one.update(batch, 1e-3, 1e-3)
            other.update(replace(batch, complete=True), 1e-3, 1e-3)
        assert torch.equal(one.policies.flat, other.policies.flat)
        assert torch.equal(one.critics.flat, other.critics.flat)


@pytest.mark.parametrize("rows", [(16, 48, 16)])
def test_the_batch_may_change_its_size(rows: tuple[int, ...]) -> None:
    joint = TEAMS["mixed"]
    one, other = (Maddpg(joint, NETWORK, AlgorithmSpec(), 3, DOUBLE) for _ in range(2))
    for seed, count in enumerate(rows):
        batch = as_batch(as_fields(random_records(joint, count, seed), torch.float64))
        one.update(batch, 1e-3, 1e-3)
        other.update(batch, 1e-3, 1e-3)
    assert torch.equal(one.policies.flat, other.policies.flat)
