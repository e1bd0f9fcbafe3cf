"""HATD3 and HASAC compared with plain torch layers, torch's own Adam and loops over sides and positions."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.run.players import players
from common.run.run import AlgorithmSpec, NetworkSpec, Run, make_run_spec
from learner_node.algorithms.hasac import Hasac
from learner_node.algorithms.hatd3 import Hatd3, PolicyOrder
from learner_node.algorithms.maddpg import Maddpg
from learner_node.engine import make_engine
from learner_node.engine_choice import engine_of
from learner_node.update.batches import LossBatch
from learner_node.update.layout import network_layout
from tests.learner_node.networks.test_grouped_mlp import alone
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records, run_for, td_target

TAG = TEAMS["tag"]
"""Three adversaries and one agent, whose actions are boxes from 0 to 1: `sigmoid(2 * logit)`."""
SIDES = {"adversary": [0, 1, 2], "agent": [3]}
NETWORK = NetworkSpec((8, 6), (7, 5))
ROWS = 20
RATE = 2.0**-7
"""A learning rate that float32 holds exactly, as the optimiser of the engine has it."""
DOUBLE = torch.zeros((), dtype=torch.float64)
ORDER = torch.tensor([2, 0, 1, 0])
"""The positions of the policies: adversary_1 learns first, then adversary_2, then adversary_0; the agent is first."""


def batch_of(seed: int, *, absences: bool = False, team: str = "tag") -> LossBatch:
    return as_batch(as_fields(random_records(TEAMS[team], ROWS, seed, absences=absences), torch.float64))


class Plain:
    """The networks of an engine as copies in torch's own layers, each with its own Adam."""

    def __init__(self, engine: Maddpg) -> None:
        assert engine.layout.policy_networks == (0, 1, 2, 3)
        adversaries, agent = engine.policies.online
        self.policies = [copy.deepcopy(alone(*one, 0)) for one in [*((adversaries, i) for i in range(3)), (agent, 0)]]  # type: ignore[arg-type]
        self.critics = {
            side: [copy.deepcopy(alone(group, i, 0)) for i in range(len(next(group.parameters())))]  # type: ignore[arg-type]
            for side, group in zip(SIDES, engine.critics.online, strict=True)
        }
        self.networks = [*self.policies, *self.critics["adversary"], *self.critics["agent"]]
        self.adams = {id(network): torch.optim.Adam(network.parameters(), RATE) for network in self.networks}

    def descend(self, network: nn.Module, loss: Tensor) -> None:
        """Does one step of Adam on one network; the gradients of all others are discarded."""
        adam = self.adams[id(network)]
        adam.zero_grad()
        loss.backward(inputs=list(network.parameters()), retain_graph=True)  # type: ignore[no-untyped-call]
        adam.step()

    def descend_critics(self, side: str, batch: LossBatch, y: Tensor) -> None:
        """Does one step of Adam on the critics of a side towards targets `[B]`."""
        for critic in self.critics[side]:
            error = critic(batch.obs_action)[:, 0] - y
            self.descend(critic, mean_over(error.square(), side_present(side, batch)))

    def descend_policies_at(self, position: int, losses: Sequence[Tensor]) -> None:
        """Does one step of Adam on the policies at a position."""
        for i, loss in enumerate(losses):
            if ORDER[i] == position:
                self.descend(self.policies[i], loss)

    def follow(self, learnt: Plain, tau: float) -> None:
        """Moves all networks towards learnt ones."""
        for one, other in zip(self.networks, learnt.networks, strict=True):
            for followed, parameter in zip(one.parameters(), other.parameters(), strict=True):
                followed.data.lerp_(parameter.data, tau)

    def outputs(self, obs: Tensor) -> list[Tensor]:
        return [policy(obs[:, agent.obs_slice]) for policy, agent in zip(self.policies, TAG.agents, strict=True)]


def assert_equal(plain: Plain, engine: Maddpg) -> None:
    for expected, found in zip(plain.networks, Plain(engine).networks, strict=True):
        for one, other in zip(expected.parameters(), found.parameters(), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-9)


def mean_over(values: Tensor, is_present: Tensor) -> Tensor:
    return (values * is_present).sum() / is_present.sum()


def side_present(side: str, batch: LossBatch) -> Tensor:
    """Returns 1 where an agent of a side is present `[B]`, else 0."""
    return batch.present[:, SIDES[side]].amax(1)


def target_of(side: str, batch: LossBatch, next_value: Tensor) -> Tensor:
    """Returns the targets of a side's critics `[B]`: the mean reward of its agents, and the next value."""
    continues = batch.discount[:, SIDES[side]].amax(1)
    return batch.reward[:, SIDES[side]].mean(1) + 0.8 * continues * next_value


def actions_for(side: str, current: Sequence[Tensor], batch: LossBatch, teammates: str) -> Tensor:
    """Returns what a side's critic sees: the observations, and the current actions of the side beside the others'."""
    obs, stored = batch.obs_action[:, : TAG.obs_dim], batch.obs_action[:, TAG.obs_dim :]
    others = [
        one.detach() if teammates == "current" else stored[:, agent.action_slice]
        for one, agent in zip(current, TAG.agents, strict=True)
    ]
    return torch.cat([obs, *(current[i] if i in SIDES[side] else others[i] for i in range(4))], 1)


@pytest.mark.parametrize("teammates", ["buffer", "current"])
@pytest.mark.parametrize("name", ["hatd3", "adversary=hatd3,agent=maddpg"])
def test_hatd3_equals_plain_loops_over_positions(name: str, teammates: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = AlgorithmSpec(
        name=name,
        teammates=teammates,  # type: ignore[arg-type]
        smoothing=0.0,
        gradient_clip=0.0,
        action_regularisation=0.1,
        discount=0.8,
        target_rate=0.25,
    )
    engine = Hatd3(run_for(TAG, NETWORK, settings), DOUBLE)
    monkeypatch.setattr(engine.order, "draw", lambda generator: ORDER)
    plain, target = Plain(engine), Plain(engine)
    for seed in range(3):
        batch = batch_of(seed, absences=True)
        present = [batch.present.t()[i] for i in range(4)]
        alive = batch.present * (batch.discount > 0)
        with torch.no_grad():
            outputs = target.outputs(batch.next_obs)
            next_input = torch.cat(
                [batch.next_obs, *(torch.sigmoid(2 * one) * alive[:, [i]] for i, one in enumerate(outputs))], 1
            )
            for side in SIDES:
                values = torch.stack([critic(next_input)[:, 0] for critic in target.critics[side]])
                y = target_of(side, batch, values.amin(0))
                with torch.enable_grad():
                    plain.descend_critics(side, batch, y)
        for position in range(3):
            outputs = plain.outputs(batch.obs_action[:, : TAG.obs_dim])
            current = [torch.sigmoid(2 * one) * present[i][:, None] for i, one in enumerate(outputs)]
            losses = []
            for side, members in SIDES.items():
                q = plain.critics[side][0](actions_for(side, current, batch, teammates))[:, 0]
                penalties = [0.1 * mean_over(outputs[i].square().mean(1), present[i]) for i in members]
                losses += [penalty - mean_over(q, side_present(side, batch)) for penalty in penalties]
            plain.descend_policies_at(position, losses)
        target.follow(plain, 0.25)
        engine.update(batch, RATE, RATE)
        assert_equal(plain, engine)


def test_hasac_equals_plain_loops_over_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = AlgorithmSpec(
        name="hasac", initial_temperature=0.3, gradient_clip=0.0, action_regularisation=0.0, discount=0.8
    )
    engine = Hasac(run_for(TAG, NETWORK, settings, seed=3), DOUBLE)
    monkeypatch.setattr(engine.order, "draw", lambda generator: ORDER)
    plain, drawn = Plain(engine), torch.Generator().manual_seed(3)
    batch = batch_of(0, absences=True)
    present = [batch.present.t()[i] for i in range(4)]
    alive = (batch.present * (batch.discount > 0)).t()

    def sample(obs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the actions and one-sample entropies of all agents, from numbers drawn as the engine draws them."""
        noise = torch.empty(ROWS, 20, dtype=torch.float64).normal_(generator=drawn)
        actions, entropies = [], []
        for i, output in enumerate(plain.outputs(obs)):
            logit, spread = output[:, :5], -1.5 + 3.5 * torch.tanh(output[:, 5:])
            own = noise[:, 5 * i : 5 * i + 5]
            a = torch.tanh(logit + spread.exp() * own)
            entropy = 0.5 * own**2 + spread + 0.5 * math.log(2 * math.pi) + torch.log(1 - a**2)
            actions.append(0.5 + 0.5 * a)
            entropies.append(entropy.sum(1))
        return actions, entropies

    with torch.no_grad():
        next_actions, next_entropies = sample(batch.next_obs)
        next_input = torch.cat([batch.next_obs, *(a * alive[i][:, None] for i, a in enumerate(next_actions))], 1)
    for side, members in SIDES.items():
        with torch.no_grad():
            soft = torch.minimum(*(critic(next_input)[:, 0] for critic in plain.critics[side]))
            soft = soft + 0.3 * torch.stack([next_entropies[i] * alive[i] for i in members]).sum(0)
            y = target_of(side, batch, soft)
        torch.testing.assert_close(td_target(copy.deepcopy(engine), batch)[members[0]], y, rtol=1e-9, atol=1e-9)
        plain.descend_critics(side, batch, y)
    first_entropies: list[Tensor] = []
    for position in range(3):
        actions, entropies = sample(batch.obs_action[:, : TAG.obs_dim])
        first_entropies = first_entropies or [one.detach() for one in entropies]
        current = [a * present[i][:, None] for i, a in enumerate(actions)]
        losses = []
        for side, members in SIDES.items():
            rows = actions_for(side, current, batch, "buffer")
            value = torch.minimum(*(critic(rows)[:, 0] for critic in plain.critics[side]))
            soft_values = [value + 0.3 * entropies[i] * present[i] for i in members]
            losses += [-mean_over(one, side_present(side, batch)) for one in soft_values]
        plain.descend_policies_at(position, losses)
    engine.update(batch, RATE, RATE)
    assert_equal(plain, engine)
    for i, entropy in enumerate(first_entropies):
        # Adam's first step is the learning rate, against the sign of the excess over the target of -1 for each number.
        excess = mean_over(entropy + 5.0, present[i])
        expected = math.log(0.3) - RATE * float(torch.sign(excess))
        assert float(engine.temperatures.log[i]) == pytest.approx(expected, abs=1e-6)


def test_every_order_of_a_side_is_drawn_equally_often() -> None:
    algorithm = AlgorithmSpec(name="adversary=hatd3,agent=hasac")
    found = players(TAG, algorithm.name)
    order = PolicyOrder(found, network_layout(found, NETWORK, algorithm), torch.device("cpu"))
    assert order.count == 3
    generator = torch.Generator().manual_seed(0)
    orders = Counter(tuple(order.draw(generator).tolist()) for _ in range(1_200))
    assert {one[3] for one in orders} == {0}
    assert len(orders) == 6
    # 200 each are expected, with a standard deviation of 13.
    assert all(140 < count < 260 for count in orders.values())


def test_players_of_other_algorithms_are_first() -> None:
    algorithm = AlgorithmSpec(name="a=matd3,b=hatd3")
    found = players(TEAMS["mixed"], algorithm.name)
    layout = network_layout(found, NetworkSpec(), algorithm)
    # The scouts of side a share a policy; each agent of side b has its own.
    assert layout.policy_networks == (0, 1, 1, 2, 3)
    assert layout.team_critic == (False, False, False, True, True)
    order = PolicyOrder(found, layout, torch.device("cpu"))
    drawn = {tuple(order.draw(torch.Generator().manual_seed(seed)).tolist()) for seed in range(20)}
    assert drawn == {(0, 0, 0, 1), (0, 0, 1, 0)}


@pytest.mark.parametrize("team", ["spread", "discrete", "mixed", "masked"])
@pytest.mark.parametrize("name", ["hatd3", "hasac"])
def test_every_team_learns(team: str, name: str) -> None:
    algorithm = {"name": name, "normalise_observations": True, "normalise_rewards": True}
    settings = {"algorithm": algorithm, "network": {"policy_hidden": [8]}}
    engine = make_engine(Run("r", make_run_spec({"scenario": "simple_spread"}, settings), TEAMS[team]), DOUBLE)
    assert type(engine) is {"hatd3": Hatd3, "hasac": Hasac}[name]
    before = engine.policy_weights()
    for seed in range(2):
        stats = engine.update(engine.normalise(batch_of(seed, absences=True, team=team)), 1e-3, 1e-3)
        assert torch.isfinite(stats.policy_loss).all()
        assert (stats.policy_gradient_norm > 0).all()
    assert (engine.policy_weights() != before).any()


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("adversary=masac,agent=hatd3", Hasac),
        ("adversary=hasac,agent=maddpg", Hasac),
        ("adversary=hatd3,agent=iddpg", Hatd3),
    ],
)
def test_sides_mix_algorithms(name: str, engine: type[Maddpg]) -> None:
    spec = make_run_spec({"scenario": "simple_tag"}, {"algorithm": {"name": name}})
    found = make_engine(Run("r", spec, TAG), DOUBLE)
    assert type(found) is engine
    losses = found.update(batch_of(0, absences=True), 1e-3, 1e-3).losses()
    assert all(map(math.isfinite, losses.policy_loss))


def test_what_excludes_each_other_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"network\.share: agent_0 learns by hatd3, .*Remove agent_0"):
        Hatd3(
            run_for(TEAMS["spread"], NetworkSpec(share=(("agent_0", "agent_2"),)), AlgorithmSpec(name="hatd3")), DOUBLE
        )
    spec = make_run_spec({"scenario": "simple_spread"}, {"algorithm": {"name": "hatd3", "engine": "stacked"}})
    with pytest.raises(ConfigError, match=r"does not cover algorithm\.name=hatd3"):
        engine_of(Run("r", spec, TEAMS["spread"]))
