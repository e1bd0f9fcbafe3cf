"""Set and attention critics equal the same equations written as loops over agents, and do what they are for."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from common.run.run import Run, make_run_spec
from common.spec import AgentsSpec, Box, joint_spec
from learner_node.algorithms.maddpg import Maddpg
from learner_node.engine import make_engine
from learner_node.networks.set_critics import SetCritics
from learner_node.persistence.state import Counters, copy_state, restore_state
from learner_node.run_checks.sizes import sizes_of
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records

DOUBLE = torch.zeros((), dtype=torch.float64)
WIDTHS = 8, 5
ROWS = 7
ROLES = {
    "spread": [0, 0, 0],
    "tag": [0, 0, 0, 1],
    "mixed": [0, 1, 1, 2, 3],
    "speaker_listener": [0, 1],
}
SIDES = {"spread": "aaa", "tag": "aaab", "mixed": "aaabb", "speaker_listener": "aa"}
EVERY_TEAM = pytest.mark.parametrize("team", ROLES)
BOTH = pytest.mark.parametrize("critic", ["set", "attention"])
LAYERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "apart": {"tell_apart": True},
    "normed": {"critic_layer_norm": True, "activation": "tanh"},
    "separate": {"share_critics": False},
    "one layer": {"critic_hidden": (6,)},
}


def engine_of(team: str | AgentsSpec, critic: str, network: dict[str, Any] | None = None, **algorithm: Any) -> Maddpg:
    settings = {
        "network": {"policy_hidden": (4,), "critic_hidden": WIDTHS, "critic": critic, **(network or {})},
        "algorithm": {"name": "maddpg", "engine": "autograd", **algorithm},
    }
    agents = TEAMS[team] if isinstance(team, str) else team
    engine = make_engine(Run("r", make_run_spec({"scenario": "simple_spread"}, settings), agents), DOUBLE)
    assert isinstance(engine, Maddpg)
    return engine


def rows_of(agents: AgentsSpec, seed: int = 0) -> Tensor:
    return as_batch(as_fields(random_records(agents, ROWS, seed), torch.float64)).obs_action


# ---- the same equations as loops over agents ------------------------------------------------------------------------


class Literal(NamedTuple):
    """One network of a team's critics, agent by agent."""

    engine: Maddpg
    agents: AgentsSpec
    roles: list[int]
    sides: str
    parameters: Tensor
    """`[P]`, in the order of checkpoints."""

    def q(self, rows: Tensor, own: list[int], others: list[int]) -> Tensor:
        """Returns the value of one critic `[B]`; own: the agents whose return it estimates."""
        network = self.engine.network
        first, *hidden = network.critic_hidden
        reader = Reader(self.parameters)
        encodings = {}
        for role in sorted(set(self.roles)):
            members = [i for i, other in enumerate(self.roles) if other == role]
            size = self._columns(members[0]).numel()
            weight = reader.take(size, first)
            biases = reader.take(len(members) if network.tell_apart else 1, first)
            norm = (reader.take(first), reader.take(first)) if network.critic_layer_norm else None
            for position, i in enumerate(members):
                bias = biases[position if network.tell_apart else 0]
                encodings[i] = self._activate(rows[:, self._columns(i)] @ weight + bias, norm)
        e = torch.stack([encodings[i] for i in own]).mean(0)
        parts = [e]
        if self.engine.network.critic == "attention" and others:
            query, key, value = reader.take(first, first), reader.take(first, first), reader.take(first, first)
            value_bias = reader.take(first)
            heads = 4 if first % 4 == 0 else 2
            values = torch.stack([self._activate(encodings[j] @ value + value_bias, None) for j in others])
            contexts = []
            for h in range(heads):
                columns = slice(h * first // heads, (h + 1) * first // heads)
                fits = [((encodings[j] @ key)[:, columns] * (e @ query)[:, columns]).sum(1) for j in others]
                weights = (torch.stack(fits) / math.sqrt(first / heads)).softmax(0)
                contexts.append((weights[:, :, None] * values[:, :, columns]).sum(0))
            parts.append(torch.cat(contexts, 1))
        elif others:
            side = self.sides[own[0]]
            mates, rivals = [j for j in others if self.sides[j] == side], [j for j in others if self.sides[j] != side]
            parts += [torch.stack([encodings[j] for j in group]).mean(0) for group in (mates, rivals) if group]
        x = torch.cat(parts, 1)
        for depth, (inputs, outputs) in enumerate(pairwise([x.shape[1], *hidden, 1])):
            x = x @ reader.take(inputs, outputs) + reader.take(outputs)
            if depth < len(hidden):
                norm = (reader.take(outputs), reader.take(outputs)) if network.critic_layer_norm else None
                x = self._activate(x, norm)
        assert reader.rest == 0
        return x[:, 0]

    def _columns(self, agent: int) -> Tensor:
        spec = self.agents.agents[agent]
        obs = torch.arange(spec.obs_slice.start, spec.obs_slice.stop)
        action = torch.arange(spec.action_slice.start, spec.action_slice.stop)
        return torch.cat([obs, self.agents.obs_dim + action])

    def _activate(self, x: Tensor, norm: tuple[Tensor, Tensor] | None) -> Tensor:
        if norm is not None:
            x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt() * norm[0] + norm[1]
        return x.tanh() if self.engine.network.activation == "tanh" else x.clamp(min=0)


class Reader:
    """Takes parameters one after the other."""

    def __init__(self, parameters: Tensor) -> None:
        self._parameters, self._at = parameters, 0

    def take(self, *shape: int) -> Tensor:
        size = math.prod(shape)
        self._at += size
        return self._parameters[self._at - size : self._at].view(*shape)

    @property
    def rest(self) -> int:
        return len(self._parameters) - self._at


def literals(engine: Maddpg, team: str) -> list[tuple[Literal, list[int], list[int]]]:
    """Returns, for each critic, its network in loops with leaf parameters, its own agents and the others."""
    agents, everyone = TEAMS[team], range(len(ROLES[team]))
    leaves = [one.clone().requires_grad_() for one in engine.critics.parameters]
    found = []
    names = [agent.name for agent in agents.agents]
    for critic in engine.layout.critics:
        player = engine.players.agents[critic.player]
        own = [names.index(member.name) for member in player.members or (player,)]
        if engine.algorithm.team_critic:
            own = [i for i in everyone if SIDES[team][i] == SIDES[team][own[0]]]
        literal = Literal(engine, agents, ROLES[team], SIDES[team], leaves[critic.network])
        found.append((literal, own, [i for i in everyone if i not in own]))
    return found


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


CASES = [
    *((team, {"name": "matd3"}, layers) for team in ROLES for layers in LAYERS),
    ("tag", {"name": "joint"}, "plain"),
    ("tag", {"name": "matd3", "team_critic": True}, "plain"),
    ("mixed", {"name": "maddpg", "team_critic": True}, "normed"),
    ("spread", {"name": "joint"}, "plain"),
]


@BOTH
@pytest.mark.parametrize(("team", "algorithm", "layers"), CASES, ids=str)
def test_values_and_gradients_are_those_of_loops(
    critic: str, team: str, algorithm: dict[str, Any], layers: str
) -> None:
    engine = engine_of(team, critic, LAYERS[layers], **algorithm)
    rows = rows_of(TEAMS[team])
    loops = literals(engine, team)
    expected = torch.stack([literal.q(rows, own, others) for literal, own, others in loops])
    found = engine.q(engine.critics.online, engine.critic_inputs(rows))
    assert_close(found, expected)

    weights = torch.rand(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parameters = [one for module in engine.critics.online for one in module.parameters()]
    by_parameter = torch.autograd.grad((weights * found).sum(), parameters, materialize_grads=True)
    leaves = list({id(literal.parameters): literal.parameters for literal, _, _ in loops}.values())
    by_leaf = torch.autograd.grad((weights * expected).sum(), leaves)
    networks = dict.fromkeys(critic.network for critic in engine.layout.critics)
    gradient_of = dict(zip(networks, by_leaf, strict=True))
    numbers = [number for group in engine._critic_groups.groups for number in group.networks]
    found_of: dict[int, Tensor] = {}
    at = 0
    for group, module in zip(engine._critic_groups.groups, engine.critics.online, strict=True):
        count = len(list(module.parameters()))
        for k, number in enumerate(group.networks):
            found_of[number] = torch.cat([one[k].flatten() for one in by_parameter[at : at + count]])
        at += count
    for number in numbers:
        assert_close(found_of[number], gradient_of[number])


@BOTH
@pytest.mark.parametrize(("team", "algorithm", "layers"), CASES, ids=str)
def test_the_policy_loss_changes_own_actions_alone(
    critic: str, team: str, algorithm: dict[str, Any], layers: str
) -> None:
    engine = engine_of(team, critic, LAYERS[layers], **algorithm)
    agents = TEAMS[team]
    rows = rows_of(agents)
    change = torch.rand(ROWS, agents.action_dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    leaf, same = change.clone().requires_grad_(), change.clone().requires_grad_()
    found = engine.q_of_player_actions(engine.critic_inputs(rows), leaf)
    expected = []
    for literal, own, others in literals(engine, team)[: len(found)]:
        columns = torch.cat(
            [torch.arange(agents.agents[i].action_start, agents.agents[i].action_slice.stop) for i in own]
        )
        changed = rows.index_add(1, agents.obs_dim + columns, same[:, columns])
        expected.append(literal.q(changed, own, others))
    assert_close(found, torch.stack(expected))
    weights = torch.rand(found.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * found).sum(), leaf)
    (wanted,) = torch.autograd.grad((weights * torch.stack(expected)).sum(), same)
    assert_close(gradient, wanted)


# ---- what they are for ----------------------------------------------------------------------------------------------


def _agents(count: int) -> AgentsSpec:
    return joint_spec([(f"agent_{i}", "agent", 3, (Box((0.0,), (1.0,)),)) for i in range(count)])


@BOTH
def test_the_order_of_the_others_does_not_matter(critic: str) -> None:
    agents = _agents(4)
    engine, rows = engine_of(agents, critic), rows_of(agents)
    order = [0, 3, 1, 2]
    obs = rows[:, :12].view(ROWS, 4, 3)[:, order].flatten(1)
    moved = torch.cat([obs, rows[:, 12:][:, order]], 1)
    assert_close(engine.first_values(moved)[0], engine.first_values(rows)[0])
    assert (engine.first_values(moved)[1] - engine.first_values(rows)[3]).abs().max() < 1e-9


@BOTH
def test_parameters_fit_another_number_of_agents(critic: str) -> None:
    """Among five agents that are copies of the others of three, an agent has the value that it has among three."""
    few, many = (engine_of(_agents(count), critic, name="matd3") for count in (3, 5))
    tensors = few.critics.tensors()
    many.critics.load(tensors)
    rows = rows_of(_agents(3))
    copies = [0, 1, 1, 2, 2]
    more = torch.cat([rows[:, :9].view(ROWS, 3, 3)[:, copies].flatten(1), rows[:, 9:][:, copies]], 1)
    assert_close(many.first_values(more)[0], few.first_values(rows)[0])


def _with_absent(rows: Tensor, absent: int) -> tuple[Tensor, Tensor]:
    """Returns the rows of four agents as those of five, of which one is absent in all rows, and who acts `[B, 5]`.

    What the absent agent saw and did last must not matter: its numbers are not zeros.
    """
    obs, action = rows[:, :12].view(ROWS, 4, 3), rows[:, 12:]
    last = torch.rand(ROWS, 1, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    obs = torch.cat([obs[:, :absent], last, obs[:, absent:]], 1).flatten(1)
    action = torch.cat([action[:, :absent], last[:, :, 0], action[:, absent:]], 1)
    acting = torch.ones(ROWS, 5, dtype=torch.float64)
    acting[:, absent] = 0.0
    return torch.cat([obs, action], 1), acting


@BOTH
@pytest.mark.parametrize("team_critic", [False, True])
def test_with_an_absent_agent_values_are_those_of_the_others_alone(critic: str, team_critic: bool) -> None:
    """In both passes: the values of all actions, and those of own actions with their gradients."""
    few, many = (engine_of(_agents(count), critic, name="matd3", team_critic=team_critic) for count in (4, 5))
    many.critics.load(few.critics.tensors())
    rows = rows_of(_agents(4))
    more, acting = _with_absent(rows, 2)
    others = [0, 1, 3, 4]
    expected = few.q(few.critics.online, few.critic_inputs(rows))[:4]
    found = many.q(many.critics.online, many.critic_inputs(more, acting=acting))[others]
    assert_close(found, expected)
    assert_close(many.first_values(more, acting)[others], expected)

    change = torch.rand(ROWS, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    expected = few.q_of_player_actions(few.critic_inputs(rows), change)
    zeros = torch.zeros(ROWS, 1, dtype=torch.float64)
    change_of_all = torch.cat([change[:, :2], zeros, change[:, 2:]], 1)
    found = many.q_of_player_actions(many.critic_inputs(more, acting=acting), change_of_all)[others]
    assert_close(found, expected)
    gradients = [torch.autograd.grad(one.sum(), change, retain_graph=True)[0] for one in (found, expected)]
    assert_close(*gradients)


@BOTH
def test_an_agent_without_others_has_a_finite_value_and_gradient(critic: str) -> None:
    engine, rows = engine_of(_agents(3), critic), rows_of(_agents(3))
    acting = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64).repeat(ROWS, 1)
    value = engine.q(engine.critics.online, engine.critic_inputs(rows, acting=acting))[0]
    other = torch.cat([rows[:, :3], rows[:, 3:9] + 1.0, rows[:, 9:]], 1)
    assert_close(engine.q(engine.critics.online, engine.critic_inputs(other, acting=acting))[0], value)
    squared_norms = engine.critics.descend(value.sum())
    assert bool(squared_norms.isfinite().all())


@BOTH
@pytest.mark.parametrize("name", ["matd3", "masac", "hatd3"])
def test_what_absent_agents_did_last_does_not_matter_in_an_update(critic: str, name: str) -> None:
    agents = _agents(4)
    records = random_records(agents, 32, seed=3, absences=True)
    changed = records.copy()
    gone = records["present"] == 0
    for field in ("obs", "action"):
        by_agent = changed[field].reshape(32, 4, -1)
        by_agent[gone] += 0.3
    batches = [as_batch(as_fields(each, torch.float64)) for each in (records, changed)]
    weights = []
    for batch in batches:
        engine = engine_of(agents, critic, name=name)
        engine.update(batch, 1e-3, 1e-3)
        weights.append((engine.critics.parameters[0].clone(), engine.policies.parameters[0].clone()))
    for one, other in zip(*weights, strict=True):
        assert_close(one, other)


@BOTH
def test_each_agent_is_encoded_once_for_all_critics_of_a_network(critic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of("tag", critic, name="matd3")
    seen = []

    def linear(x: Tensor, *args: Any) -> Tensor:
        seen.append(x.shape)
        return original(x, *args)

    adversaries = engine.critics.online[0]
    assert isinstance(adversaries, SetCritics)
    original = adversaries.encoders[0].linear
    monkeypatch.setattr(adversaries.encoders[0], "linear", linear)
    engine.q(engine.critics.online, engine.critic_inputs(rows_of(TEAMS["tag"])))
    assert seen == [(2, 3 * ROWS, 16 + 5)], "two networks, three adversaries, sixteen observations and five actions"


@BOTH
def test_critics_of_their_own_agent_alone_are_mlps_of_it(critic: str) -> None:
    """Under iddpg there are no others, so that the value is that of an MLP with the same parameters."""
    engine, mlp = (engine_of("tag", kind, name="iddpg") for kind in (critic, "mlp"))
    assert [len(one) for one in engine.critics.parameters] == [len(one) for one in mlp.critics.parameters]
    mlp.critics.load(engine.critics.tensors())
    rows = rows_of(TEAMS["tag"])
    assert_close(engine.first_values(rows), mlp.first_values(rows))


@BOTH
@pytest.mark.parametrize("sees", ["state", "both"])
def test_the_global_state_is_an_input_of_the_value(critic: str, sees: str) -> None:
    agents = AgentsSpec(_agents(3).agents, 2)
    engine = engine_of(agents, critic, critic_sees=sees)
    rows = torch.rand(ROWS, 9 + 3 + 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows.requires_grad_()
    (gradient,) = torch.autograd.grad(engine.q(engine.critics.online, engine.critic_inputs(rows)).sum(), rows)
    assert (gradient[:, 12:].abs().sum(0) > 0).all()
    assert bool(gradient[:, :9].any()) == (sees == "both")
    assert gradient[:, 9:12].any()


@BOTH
@pytest.mark.parametrize("layers", LAYERS)
def test_sizes_count_the_parameters(critic: str, layers: str) -> None:
    for team, name in (("tag", "matd3"), ("mixed", "maddpg"), ("spread", "joint"), ("tag", "iddpg")):
        engine = engine_of(team, critic, LAYERS[layers], name=name)
        spec = make_run_spec({"scenario": "simple_spread"})
        spec = msgspec.structs.replace(spec, network=engine.network, algorithm=engine.algorithm)
        assert sizes_of(spec, TEAMS[team]).critic_parameters == sum(map(len, engine.critics.parameters))


@BOTH
def test_a_restored_engine_continues_with_the_same_bits(critic: str) -> None:
    def train(engine: Maddpg, seeds: range) -> Maddpg:
        for seed in seeds:
            batch = as_batch(as_fields(random_records(TEAMS["tag"], 16, seed, absences=True), torch.float64))
            engine.update(batch, 1e-3, 1e-3, update_policies=seed % 2 == 1)
        return engine

    whole = train(engine_of("tag", critic, name="matd3"), range(6))
    state = copy_state(train(engine_of("tag", critic, name="matd3"), range(3)), Counters())
    resumed = engine_of("tag", critic, name="matd3")
    restore_state(resumed, state)
    train(resumed, range(3, 6))
    expected, found = (copy_state(engine, Counters()).tensors for engine in (whole, resumed))
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)


def test_the_seed_draws_each_network_by_itself() -> None:
    """Weights lie within one over the root of a layer's inputs, as torch's linear layers do."""
    first, second = engine_of("spread", "set", name="matd3").critics.parameters
    again, _ = engine_of("spread", "set", name="matd3").critics.parameters
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    encoder = first[: 23 * 8 + 8].abs().max()
    assert 0.9 / np.sqrt(23) < encoder <= 1 / np.sqrt(23)
