"""M3DDPG compared with plain torch layers and loops over rows, players and the others of each player."""

from __future__ import annotations

import math
from collections.abc import Collection

import pytest
import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.run.run import AlgorithmSpec, NetworkSpec, Run, make_run_spec
from common.spec import joint_spec
from learner_node.algorithms.maddpg import Maddpg
from learner_node.algorithms.masac import Masac
from learner_node.engine import make_engine
from learner_node.engine_choice import engine_of
from learner_node.update.batches import LossBatch
from tests.learner_node.networks.test_grouped_mlp import alone
from tests.learner_node.teams import TEAMS, UNEVEN, as_batch, as_fields, random_records, run_for, td_target

AGENTS = joint_spec(
    [
        ("runner_0", "runner", 4, (UNEVEN,)),
        ("runner_1", "runner", 4, (UNEVEN,)),
        ("chaser_0", "chaser", 3, (UNEVEN,)),
    ]
)
MIDDLE, HALF = torch.tensor([[-0.5, 0.625, 1.0], [1.5, 0.125, 2.0]], dtype=torch.float64)
"""The middle and half of the range of each number of an action: -2 to 1, 0.5 to 0.75, -1 to 3."""
SIDE = ["runner", "runner", "chaser"]
ROWS = 6
DOUBLE = torch.zeros((), dtype=torch.float64)
NAMES = ["m3ddpg", "runner=m3ddpg,chaser=maddpg", "runner=maddpg,chaser=m3ddpg"]


def settings_of(name: str = "m3ddpg", **other: object) -> AlgorithmSpec:
    fields = {"perturbation": 0.4, "teammate_perturbation": 0.1, "action_regularisation": 0.0, "discount": 0.8, **other}
    return AlgorithmSpec(name=name, **fields)  # type: ignore[arg-type]


def engine_with(settings: AlgorithmSpec, *, share_critics: bool = False) -> Maddpg:
    network = NetworkSpec((6,), (7, 5), share_policies=False, share_critics=share_critics, activation="tanh")
    return Maddpg(run_for(AGENTS, network, settings), DOUBLE)


def batch_of(*, absences: bool = False, team: str = "") -> LossBatch:
    agents = TEAMS[team] if team else AGENTS
    return as_batch(as_fields(random_records(agents, ROWS, 0, absences=absences), torch.float64))


def policies_of(engine: Maddpg, *, target: bool = False) -> list[nn.Sequential]:
    runners, chaser = engine.policies.target if target else engine.policies.online
    return [alone(runners, 0, 0), alone(runners, 1, 0), alone(chaser, 0, 0)]  # type: ignore[arg-type]


def critics_of(engine: Maddpg, *, target: bool = False) -> list[nn.Sequential]:
    """Returns the critic of each player; a shared one reads the runner's own columns first."""
    groups = engine.critics.target if target else engine.critics.online
    if len(groups) == 1:
        return [alone(groups[0], i, 0) for i in range(3)]  # type: ignore[arg-type]
    runner, chaser = (alone(group, 0, 0) for group in groups)  # type: ignore[arg-type]
    return [runner, runner, chaser]


def actions_of(policies: list[nn.Sequential], obs: Tensor) -> list[Tensor]:
    return [
        MIDDLE + HALF * torch.tanh(policy(obs[:, agent.obs_slice]))
        for policy, agent in zip(policies, AGENTS.agents, strict=True)
    ]


def worst_value(
    critic: nn.Sequential,
    columns: tuple[int, ...],
    row: Tensor,
    player: int,
    acting: Collection[int],
    *,
    is_minimax: bool,
) -> Tensor:
    """Returns the value of one row `[O+U]` after one step of the actions of all others that act."""
    if not is_minimax:
        return critic(row[list(columns)])[0]
    fixed = row.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(fixed[list(columns)])[0], fixed)
    shift = torch.zeros_like(row)
    for j, agent in enumerate(AGENTS.agents):
        if j != player and j in acting:
            own = slice(AGENTS.obs_dim + agent.action_slice.start, AGENTS.obs_dim + agent.action_slice.stop)
            in_half_ranges = gradient[own] * HALF
            length = 0.1 if SIDE[j] == SIDE[player] else 0.4
            shift[own] = -length * in_half_ranges / in_half_ranges.square().sum().sqrt() * HALF
    return critic((row + shift)[list(columns)])[0]


def learns_minimax(name: str, player: int) -> bool:
    return name == "m3ddpg" or f"{SIDE[player]}=m3ddpg" in name


def test_units_are_half_ranges() -> None:
    low, high = torch.tensor([UNEVEN.low, UNEVEN.high], dtype=torch.float64)
    torch.testing.assert_close((low + high) / 2, MIDDLE)
    torch.testing.assert_close((high - low) / 2, HALF)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share_critics", [False, True])
@pytest.mark.parametrize("absences", [False, True])
def test_targets_equal_plain_loops(name: str, *, share_critics: bool, absences: bool) -> None:
    engine = engine_with(settings_of(name), share_critics=share_critics)
    batch = batch_of(absences=absences)
    found = td_target(engine, batch)
    alive = batch.present * (batch.discount > 0)
    with torch.no_grad():
        actions = actions_of(policies_of(engine, target=True), batch.next_obs)
        rows = torch.cat([batch.next_obs, *(a * alive[:, [i]] for i, a in enumerate(actions))], 1)
    for i, critic in enumerate(critics_of(engine, target=True)):
        columns = engine.layout.critics[i].input_columns
        for b, row in enumerate(rows):
            acting = [j for j in range(3) if alive[b, j]]
            value = worst_value(critic, columns, row, i, acting, is_minimax=learns_minimax(name, i))
            y = batch.reward[b, i] + 0.8 * batch.discount[b, i] * value
            assert float(found[i, b]) == pytest.approx(float(y.detach()), abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("teammates", ["buffer", "current"])
@pytest.mark.parametrize("absences", [False, True])
def test_policy_gradients_equal_plain_loops(name: str, teammates: str, *, absences: bool) -> None:
    engine = engine_with(settings_of(name, teammates=teammates), share_critics=True)
    batch = batch_of(absences=absences)
    row_weights = engine.mixer.row_weights(batch, engine.mixer.signals(batch))
    loss, _, _ = engine.policy_loss(batch, engine.critic_inputs(batch.obs_action), row_weights)
    found = torch.autograd.grad(loss, [p for module in engine.policies.online for p in module.parameters()])
    plain = policies_of(engine)
    obs, stored = batch.obs_action[:, : AGENTS.obs_dim], batch.obs_action[:, AGENTS.obs_dim :]
    current = [a * batch.present[:, [i]] for i, a in enumerate(actions_of(plain, obs))]
    acting = [[j for j in range(3) if batch.present[b, j]] for b in range(ROWS)]
    expected = torch.zeros((), dtype=torch.float64)
    for i, critic in enumerate(critics_of(engine)):
        others = [
            one.detach() if teammates == "current" else stored[:, agent.action_slice]
            for one, agent in zip(current, AGENTS.agents, strict=True)
        ]
        rows = torch.cat([obs, *(current[j] if j == i else others[j] for j in range(3))], 1)
        columns = engine.layout.critics[i].input_columns
        q = [
            worst_value(critic, columns, row, i, acting[b], is_minimax=learns_minimax(name, i))
            for b, row in enumerate(rows)
            if batch.present[b, i]
        ]
        expected = expected - torch.stack(q).mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-9)
    expected.backward()  # type: ignore[no-untyped-call]
    runners, chaser = found[:4], found[4:]
    for i, policy in enumerate(plain):
        by_layer = [one[i] for one in runners] if i < 2 else [one[0] for one in chaser]
        for layer, (weight, bias) in zip(policy[::2], zip(by_layer[::2], by_layer[1::2], strict=True), strict=True):
            torch.testing.assert_close(weight.t(), layer.weight.grad, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(bias[0], layer.bias.grad, rtol=1e-9, atol=1e-9)


def test_own_actions_of_a_team_stay_and_each_opponent_moves_by_the_length() -> None:
    engine = engine_with(settings_of(team_critic=True))
    inputs = engine.critic_inputs(batch_of().obs_action)
    assert engine._worst_case is not None
    found = engine._worst_case.inputs(engine.critics.online, inputs, None, [None] * len(inputs))
    # The critic of the runners is one group, that of the chaser the other; both read joint observations and actions.
    lengths = [
        ((after - before)[0, :, AGENTS.obs_dim :].view(ROWS, 3, 3) / HALF).square().sum(2).sqrt()
        for before, after in zip(inputs, found, strict=True)
    ]
    assert [len(one) for one in found] == [1, 1]
    torch.testing.assert_close(lengths[0], torch.tensor([[0.0, 0.0, 0.4]] * ROWS, dtype=torch.float64))
    torch.testing.assert_close(lengths[1], torch.tensor([[0.4, 0.4, 0.0]] * ROWS, dtype=torch.float64))
    for before, after in zip(inputs, found, strict=True):
        assert bool((before[..., : AGENTS.obs_dim] == after[..., : AGENTS.obs_dim]).all())


def test_a_critic_without_gradient_moves_nothing() -> None:
    engine = engine_with(settings_of())
    inputs = engine.critic_inputs(batch_of().obs_action)
    for parameter in engine.critics.online[0].parameters():
        parameter.data.zero_()
    assert engine._worst_case is not None
    found = engine._worst_case.inputs(engine.critics.online, inputs, None, [None] * len(inputs))
    assert torch.equal(found[0], inputs[0])


def test_without_perturbation_it_is_maddpg() -> None:
    settings = settings_of(perturbation=0.0, teammate_perturbation=0.0)
    weights = []
    for algorithm in (settings, settings_of("maddpg")):
        engine = engine_with(algorithm)
        for _ in range(2):
            engine.update(batch_of(absences=True), 1e-2, 1e-2)
        weights.append(engine.policy_weights())
    assert (weights[0] == weights[1]).all()


@pytest.mark.parametrize("network", [{}, {"recurrent": "gru"}, {"critic": "tests.learner_node.own_classes:Normed"}])
@pytest.mark.parametrize(
    ("team", "name", "kind"),
    [
        ("discrete", "m3ddpg", Maddpg),
        ("masked", "m3ddpg", Maddpg),
        ("mixed", "a=joint,b=m3ddpg", Maddpg),
        ("mixed", "a=m3ddpg,b=masac", Masac),
        ("tag", "adversary=m3ddpg,agent=matd3", Maddpg),
    ],
)
def test_every_team_learns(team: str, name: str, kind: type[Maddpg], network: dict[str, object]) -> None:
    algorithm = {"name": name, "normalise_observations": True, "normalise_rewards": True, "perturbation": 0.1}
    settings = {"algorithm": algorithm, "network": {"policy_hidden": [8], "critic_hidden": [8], **network}}
    engine = make_engine(Run("r", make_run_spec({"scenario": "simple_tag"}, settings), TEAMS[team]), DOUBLE)
    assert type(engine) is kind
    batch = batch_of(absences=True, team=team)
    if network.get("recurrent"):
        batch = batch.as_sequences(1, 2)
    stats = engine.update(engine.normalise(batch), 1e-3, 1e-3)
    assert all(map(math.isfinite, stats.losses().policy_loss))
    assert (stats.policy_gradient_norm > 0).all()


@pytest.mark.parametrize(
    ("team", "network", "algorithm", "message"),
    [
        ("tag", {"critic": "set"}, {}, r"network\.critic = 'set'.*Set network\.critic=mlp"),
        ("alone", {}, {}, r"critics of agent read no action of another player.*Choose maddpg\.$"),
        ("spread", {}, {"team_critic": True}, r"or set algorithm\.team_critic=false\.$"),
        ("tag", {}, {"engine": "stacked"}, r"does not cover algorithm\.name=m3ddpg"),
    ],
)
def test_what_excludes_each_other_is_refused(
    team: str, network: dict[str, object], algorithm: dict[str, object], message: str
) -> None:
    settings = {"algorithm": {"name": "m3ddpg", **algorithm}, "network": network}
    with pytest.raises(ConfigError, match=message):
        engine_of(Run("r", make_run_spec({"scenario": "simple_spread"}, settings), TEAMS[team]))
