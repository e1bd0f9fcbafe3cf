import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.errors import ConfigError
from common.policy.network import GruLayer, Policy, layer_shapes, parameter_shapes, unflatten, weight_count
from common.run.players import players
from common.run.run import NetworkSpec
from common.spec import Box, Categorical, joint_spec
from tests.common.examples import MIXED
from tests.common.head_examples import HEAD_TEAMS, literal_actions
from tests.common.strategies import teams


def weights(team, network, seed=0):
    return np.random.default_rng(seed).normal(size=numbers_of(team, network)).astype(np.float32)


def numbers_of(team, network):
    """Counts what the literal loop below reads, number by number."""
    widths = [(player.obs_dim, *network.policy_hidden, player.action_dim) for player in team.agents]
    norms = 2 * sum(network.policy_hidden) * len(widths) if network.policy_layer_norm else 0
    return sum((sizes[i] + 1) * sizes[i + 1] for sizes in widths for i in range(len(sizes) - 1)) + norms


def alone(joint):
    """Returns the players of agents that each learn for themselves."""
    return players(joint, "maddpg")


def literal_norm(row, gain, bias):
    """Layer normalisation of one row, straight from Ba et al. 2016, with torch's 1e-5 under the root."""
    mean = sum(row) / len(row)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in row) / len(row) + 1e-5)
    return [g * (x - mean) / deviation + b for x, g, b in zip(row, gain, bias, strict=True)]


LITERAL = {
    "relu": lambda x: max(x, 0.0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "tanh": math.tanh,
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "gelu": lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + math.exp(-x)),
}


def literal_logits(joint, network, flat, obs):
    """The forward pass one number at a time, in float64, straight from the documented layout."""
    at, rows = 0, [[] for _ in obs]
    for agent in joint.agents:
        own = obs[:, agent.obs_slice].astype(np.float64).tolist()
        sizes = [agent.obs_dim, *network.policy_hidden, agent.action_dim]
        for depth in range(len(sizes) - 1):
            inputs, outputs = sizes[depth], sizes[depth + 1]
            weight, bias = at, at + inputs * outputs
            at = bias + outputs
            hidden = depth < len(sizes) - 2
            if hidden and network.policy_layer_norm:
                gain, shift = flat[at : at + outputs].tolist(), flat[at + outputs : at + 2 * outputs].tolist()
                at += 2 * outputs
            for c, x in enumerate(own):
                y = [
                    sum(x[i] * float(flat[weight + i * outputs + o]) for i in range(inputs)) + float(flat[bias + o])
                    for o in range(outputs)
                ]
                if hidden and network.policy_layer_norm:
                    y = literal_norm(y, gain, shift)
                own[c] = [LITERAL[network.activation](value) for value in y] if hidden else y
        for row, logits in zip(rows, own, strict=True):
            row.extend(logits)
    assert at == len(flat)
    return np.array(rows).reshape(len(obs), joint.action_dim)


@settings(max_examples=25)
@given(
    teams().map(alone),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.integers(0, 5),
    st.sampled_from(sorted(LITERAL)),
)
def test_the_forward_pass_equals_a_literal_loop(joint, hidden, copies, activation):
    network = NetworkSpec(policy_hidden=tuple(hidden), activation=activation)
    flat = weights(joint, network)
    obs = np.random.default_rng(1).normal(size=(copies, joint.obs_dim)).astype(np.float32)
    got = Policy(joint, network, flat).logits(obs)
    expected = literal_logits(joint, network, flat, obs)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(expected).max(initial=0.0)))


@pytest.mark.parametrize("activation", LITERAL)
def test_with_layer_norm_the_forward_pass_equals_a_literal_loop(activation):
    """Of layers with several units: the norm of one or two hardly depends on their values."""
    network = NetworkSpec(policy_hidden=(7, 5), activation=activation, policy_layer_norm=True)
    joint = alone(MIXED)
    flat = weights(joint, network)
    obs = np.random.default_rng(1).normal(size=(6, joint.obs_dim)).astype(np.float32)
    expected = literal_logits(joint, network, flat, obs)
    np.testing.assert_allclose(Policy(joint, network, flat).logits(obs), expected, rtol=1e-5, atol=1e-5)


def torch_policy(network, parameters):
    """Returns one player's policy as the module that a user of torch would write."""
    activations = {
        "relu": nn.ReLU,
        "leaky_relu": nn.LeakyReLU,
        "tanh": nn.Tanh,
        "elu": nn.ELU,
        "gelu": lambda: nn.GELU("tanh"),
        "silu": nn.SiLU,
    }
    module = nn.Sequential()
    for weight, bias, *norm in parameters:
        linear = nn.Linear(*weight.shape)
        linear.weight.data, linear.bias.data = torch.tensor(weight.T), torch.tensor(bias)
        module.append(linear)
        if norm:
            layer_norm = nn.LayerNorm(len(bias))
            layer_norm.weight.data, layer_norm.bias.data = map(torch.tensor, norm)
            module.append(layer_norm)
        module.append(activations[network.activation]())
    return module[:-1]


@pytest.mark.parametrize("activation", LITERAL)
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "layer norm"])
def test_policies_of_usual_sizes_equal_modules_of_torch(activation, norm):
    network = NetworkSpec(policy_hidden=(64, 48), activation=activation, policy_layer_norm=norm)
    joint = alone(joint_spec(SPREAD))
    flat = weights(joint, network) * np.float32(0.2)
    obs = np.random.default_rng(1).normal(size=(50, joint.obs_dim)).astype(np.float32)
    got, at = Policy(joint, network, flat).logits(obs), 0
    for player in joint.agents:
        parameters = []
        for shape in ((18, 64), (64, 48), (48, 5)):
            sizes = [shape, shape[1:], *([shape[1:]] * 2 if norm and shape[1] != 5 else [])]
            parameters.append([])
            for size in sizes:
                end = at + math.prod(size)
                parameters[-1].append(flat[at:end].reshape(size))
                at = end
        with torch.no_grad():
            expected = torch_policy(network, parameters)(torch.from_numpy(obs[:, player.obs_slice])).numpy()
        np.testing.assert_allclose(
            got[:, player.action_slice], expected, rtol=1e-6, atol=1e-6 * max(1.0, np.abs(expected).max())
        )
    assert at == len(flat)


@pytest.mark.parametrize("team", HEAD_TEAMS)
def test_actions_equal_literal_heads_over_the_literal_loop(team):
    joint, head = HEAD_TEAMS[team]
    joint, network = alone(joint), NetworkSpec(head=head)
    flat = weights(joint, network) * np.float32(0.3)
    obs = np.random.default_rng(2).normal(size=(16, joint.obs_dim)).astype(np.float32)
    expected = literal_actions(joint, head, literal_logits(joint, network, flat, obs))
    np.testing.assert_allclose(Policy(joint, network, flat).act(obs), expected, rtol=1e-5, atol=1e-5)


def test_a_policy_whose_head_cannot_make_its_actions_is_refused():
    network = NetworkSpec(head="soft")
    with pytest.raises(ConfigError, match=r"part 2 of the action of leader is 2 numbers from -2 to 1"):
        Policy(alone(MIXED), network, weights(MIXED, network))


def test_flat_weights_are_agent_by_agent_layer_by_layer_weight_then_bias():
    network = NetworkSpec(policy_hidden=(2,))
    joint = alone(joint_spec([("a", "t", 3, (Categorical(2),)), ("b", "t", 1, (Categorical(4),))]))
    flat = np.arange(30, dtype=np.float32)
    assert [layer_shapes(agent, network) for agent in joint.agents] == [[(3, 2), (2, 2)], [(1, 2), (2, 4)]]
    first, second = unflatten(flat, joint, network)
    assert first.first.weight.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert first.first.bias.tolist() == [6, 7]
    assert first.last.weight.tolist() == [[8, 9], [10, 11]]
    assert first.last.bias.tolist() == [12, 13]
    assert second.first.weight.tolist() == [[14, 15]]
    assert second.last.bias.tolist() == [26, 27, 28, 29]
    assert np.shares_memory(first.first.weight, flat), "views, not copies"


def test_with_layer_norm_a_hidden_layer_is_weight_bias_gain_and_bias_of_the_norm():
    network = NetworkSpec(policy_hidden=(2,), policy_layer_norm=True)
    joint = alone(joint_spec([("a", "t", 3, (Categorical(2),))]))
    assert list(parameter_shapes(joint.agents[0], network).items()) == [
        ("0/weight", (3, 2)),
        ("0/bias", (2,)),
        ("0/norm_gain", (2,)),
        ("0/norm_bias", (2,)),
        ("1/weight", (2, 2)),
        ("1/bias", (2,)),
    ]
    (((hidden,), gru, last),) = unflatten(np.arange(18, dtype=np.float32), joint, network)
    assert gru is None
    assert hidden.weight.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert hidden.bias.tolist() == [6, 7]
    assert (hidden.norm.gain.tolist(), hidden.norm.bias.tolist()) == ([8, 9], [10, 11])
    assert last.weight.tolist() == [[12, 13], [14, 15]]
    assert (last.bias.tolist(), last.norm, last.activation) == ([16, 17], None, None)


@pytest.mark.parametrize("change", [-1, 1])
def test_flat_weights_of_another_length_are_refused(change):
    network = NetworkSpec()
    size = numbers_of(MIXED, network)
    with pytest.raises(ValueError, match=rf"shape \({size + change},\), the policies need \({size},\)"):
        Policy(alone(MIXED), network, np.zeros(size + change, np.float32))


def test_an_agents_action_depends_on_its_own_observation_only():
    network = NetworkSpec()
    policy = Policy(alone(MIXED), network, weights(MIXED, network))
    obs = np.random.default_rng(3).normal(size=(1, MIXED.obs_dim)).astype(np.float32)
    before = policy.logits(obs)
    leader, *others = MIXED.agents
    obs[:, leader.obs_slice] += 1.0
    after = policy.logits(obs)
    assert (before[:, leader.action_slice] != after[:, leader.action_slice]).any()
    for other in others:
        np.testing.assert_array_equal(before[:, other.action_slice], after[:, other.action_slice])


SPREAD = [(f"agent_{i}", "agent", 18, (Box((0.0,) * 5, (1.0,) * 5),)) for i in range(3)]
TAG = [
    *((f"adversary_{i}", "adversary", 16, (Categorical(5),)) for i in range(3)),
    ("agent_0", "agent", 14, (Categorical(5),)),
]


@pytest.mark.parametrize(
    ("agents", "algorithm", "numbers"),
    [
        (SPREAD, "matd3", 58_767),
        (SPREAD, "joint", 25_487),
        (TAG, "maddpg", 77_076),
        (TAG, "joint", 43_796),
        (TAG, "adversary=joint,agent=iddpg", 43_796),
        (TAG, "adversary=iddpg,agent=joint", 77_076),
    ],
)
def test_a_side_that_learns_as_one_has_one_policy(agents, algorithm, numbers):
    """The numbers are what learners broadcast; tests/actor_node/test_replay_session_weights.py asks learners again."""
    assert weight_count(players(joint_spec(agents), algorithm), NetworkSpec()) == numbers


def test_layer_norm_adds_a_gain_and_a_bias_for_each_hidden_unit():
    network = NetworkSpec(policy_layer_norm=True)
    assert weight_count(alone(joint_spec(SPREAD)), network) == 58_767 + 3 * 2 * (128 + 128)


STOCHASTIC = joint_spec(
    [
        ("a", "x", 3, (Categorical(2), Box((-1.0, 0.0), (1.0, 4.0)))),
        ("b", "y", 2, (Box((0.0,), (1.0,)),)),
        ("c", "x", 2, (Box((-2.0,), (2.0,)), Categorical(2))),
    ]
)


def test_stochastic_players_have_a_standard_deviation_for_each_box_number():
    """a and c learn by masac, b does not: 4 + 2, 1 and 3 + 1 outputs."""
    team, network = players(STOCHASTIC, "x=masac,y=maddpg"), NetworkSpec(policy_hidden=(5,))
    assert team.gaussian_columns == (2, 3, 5)
    assert players(STOCHASTIC, "maddpg").gaussian_columns == ()
    sizes = [(3, 6), (2, 1), (2, 4)]
    flat = np.random.default_rng(0).normal(size=sum((i + 1) * 5 + 6 * o for i, o in sizes)).astype(np.float32)
    obs = np.random.default_rng(1).normal(size=(7, 7)).astype(np.float32)
    at, start, logits, stds = 0, 0, [], []
    for (inputs, outputs), acted in zip(sizes, (4, 1, 3), strict=True):
        first, at = flat[at : at + inputs * 5].reshape(inputs, 5), at + inputs * 5
        bias, at = flat[at : at + 5], at + 5
        last, at = flat[at : at + 5 * outputs].reshape(5, outputs), at + 5 * outputs
        output = np.maximum(obs[:, start : start + inputs] @ first + bias, 0) @ last + flat[at : at + outputs]
        at, start = at + outputs, start + inputs
        logits.append(output[:, :acted])
        # log std = -1.5 + 3.5 tanh(output): between -5 and 2.
        stds.append(np.exp(-1.5 + 3.5 * np.tanh(output[:, acted:])))
    policy = Policy(team, network, flat)
    found = policy.outputs(obs)
    np.testing.assert_allclose(found.logits, np.concatenate(logits, 1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.std, np.concatenate(stds, 1), rtol=1e-4)
    np.testing.assert_array_equal(policy.logits(obs), found.logits)
    with pytest.raises(ValueError, match="the policies need"):
        Policy(team, network, flat[:-1])


def test_samples_have_the_policies_standard_deviation():
    team, network = players(STOCHASTIC, "x=isac,y=maddpg"), NetworkSpec(policy_hidden=(5,))
    flat = np.random.default_rng(0).normal(size=weight_count(team, network)).astype(np.float32) * np.float32(0.3)
    obs = np.repeat(np.random.default_rng(1).normal(size=(1, 7)), 20_000, axis=0).astype(np.float32)
    policy, rng = Policy(team, network, flat), np.random.default_rng(2)
    drawn = policy.sample(obs, lambda n: rng.gumbel(size=(20_000, n)), lambda n: rng.standard_normal((20_000, n)))
    logits, std = policy.outputs(obs[:1])
    # The Gaussian of c's Box, whose bounds are -2 and 2, before tanh.
    u = np.arctanh(drawn[:, 5].astype(np.float64) / 2)
    assert u.mean() == pytest.approx(float(logits[0, 5]), abs=5 * float(std[0, 2]) / 20_000**0.5)
    assert u.std() == pytest.approx(float(std[0, 2]), rel=0.03)
    assert set(drawn[:, 6:8].sum(axis=1)) == {1.0}
    np.testing.assert_array_equal(drawn[:, 4], policy.act(obs)[:, 4])


# ---- recurrent policies -------------------------------------------------------------------------------------------

GRU = NetworkSpec(policy_hidden=(3, 2), recurrent="gru")


def test_a_recurrent_policy_has_its_gates_in_place_of_the_last_hidden_layer():
    joint = alone(joint_spec([("a", "t", 4, (Categorical(2),))]))
    assert list(parameter_shapes(joint.agents[0], GRU).items()) == [
        ("0/weight", (4, 3)),
        ("0/bias", (3,)),
        ("1/weight", (3, 6)),
        ("1/bias", (6,)),
        ("1/recurrent_weight", (2, 6)),
        ("1/recurrent_bias", (6,)),
        ("2/weight", (2, 2)),
        ("2/bias", (2,)),
    ]


def literal_gru(x, memory, layer):
    """One row of torch's GRU, number by number, from its documentation: gates r, z, n side by side."""
    units = len(memory)
    inner = [
        [sum(v * w for v, w in zip(values, weight[:, k].tolist(), strict=True)) + bias[k] for k in range(3 * units)]
        for values, weight, bias in (
            (x, layer.weight, layer.bias.tolist()),
            (memory, layer.recurrent_weight, layer.recurrent_bias.tolist()),
        )
    ]
    found = []
    for k in range(units):
        reset, update = (1 / (1 + math.exp(-inner[0][g * units + k] - inner[1][g * units + k])) for g in (0, 1))
        candidate = math.tanh(inner[0][2 * units + k] + reset * inner[1][2 * units + k])
        found.append((1 - update) * candidate + update * memory[k])
    return found


def test_the_memory_of_each_player_and_copy_is_that_of_a_literal_unit():
    rng = np.random.default_rng(0)
    joint = alone(joint_spec([("a", "t", 4, (Categorical(2),)), ("b", "t", 3, (Categorical(3),))]))
    flat = rng.normal(size=weight_count(joint, GRU)).astype(np.float32)
    policy, layers = Policy(joint, GRU, flat), unflatten(flat, joint, GRU)
    memory, expected = np.zeros((2, 4), np.float32), [[[0.0, 0.0], [0.0, 0.0]] for _ in range(2)]
    for _ in range(5):
        obs = rng.normal(size=(2, 7)).astype(np.float32)
        logits = policy.logits(obs, memory)
        for copy in range(2):
            for i, (player, own) in enumerate(zip(joint.agents, layers, strict=True)):
                x = np.maximum(obs[copy, player.obs_slice] @ own.hidden[0].weight + own.hidden[0].bias, 0.0).tolist()
                expected[copy][i] = literal_gru(x, expected[copy][i], own.gru)
                out = np.array(expected[copy][i]) @ own.last.weight + own.last.bias
                np.testing.assert_allclose(logits[copy, player.action_slice], out, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(memory, np.array(expected).reshape(2, 4), rtol=1e-4, atol=1e-6)


def test_a_unit_equals_torchs_in_float64():
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=shape) for shape in ((3, 15), (15,), (5, 15), (15,))]
    cell = nn.GRUCell(3, 5, dtype=torch.float64)
    for name, value in zip(("weight_ih", "bias_ih", "weight_hh", "bias_hh"), arrays, strict=True):
        getattr(cell, name).data = torch.tensor(value.T)
    x, memory = rng.normal(size=(7, 3)), rng.normal(size=(7, 5))
    expected = cell(torch.tensor(x), torch.tensor(memory)).detach().numpy()
    np.testing.assert_allclose(GruLayer(*arrays).forward(x, memory), expected, rtol=1e-12, atol=1e-12)


def test_recurrent_policies_refuse_to_act_without_their_memory():
    joint = alone(joint_spec([("a", "t", 4, (Categorical(2),))]))
    policy = Policy(joint, GRU, np.zeros(weight_count(joint, GRU), np.float32))
    with pytest.raises(ValueError, match="the policies are recurrent: pass the memory"):
        policy.act(np.zeros((1, 4), np.float32))
