"""MASAC and ISAC against figures that are worked out by hand, by numerical integration, or by a plain loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from common.errors import ConfigError
from common.policy.network import Policy
from common.run.players import players
from common.run.run import AlgorithmSpec, NetworkSpec, Run, make_run_spec
from common.spec import AgentsSpec, Box, Categorical, joint_spec
from learner_node.algorithms.distribution import Distribution, choice_entropy, squashed_surprise
from learner_node.algorithms.masac import Masac
from learner_node.engine import make_engine
from learner_node.engine_choice import engine_of
from learner_node.persistence.state import Counters, copy_state, restore_state
from learner_node.update.batches import LossBatch
from learner_node.update.layout import network_layout
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records, run_for, td_target

DOUBLE = torch.zeros((), dtype=torch.float64)
NETWORK = NetworkSpec(policy_hidden=(8, 6), critic_hidden=(7, 5), share_policies=False, share_critics=False)
ONE = joint_spec([("agent_0", "agent", 3, (Box((-2.0,), (2.0,)),))])
MEAN, LOG_STD = 0.7, -0.4


def masac_of(joint: AgentsSpec, network: NetworkSpec = NETWORK, **settings: object) -> Masac:
    return Masac(run_for(joint, network, replace(AlgorithmSpec(name="masac"), **settings), seed=3), DOUBLE)


def batch_of(joint: AgentsSpec, seed: int, *, absences: bool = False) -> LossBatch:
    return as_batch(as_fields(random_records(joint, 32, seed, absences=absences), torch.float64))


def set_constant(network: object, values: list[float]) -> None:
    """Makes a network return `values` for every input."""
    parameters: list[Tensor] = list(network.parameters())  # type: ignore[attr-defined]
    for parameter in parameters:
        parameter.data.zero_()
    parameters[-1].data.copy_(torch.tensor(values, dtype=torch.float64).view_as(parameters[-1]))


# ---- distributions ------------------------------------------------------------------------------------------------


def density(action: np.ndarray) -> np.ndarray:
    """The density of `tanh(MEAN + exp(LOG_STD) * noise)` by Shoal, at actions in (-1, 1)."""
    u = torch.atanh(torch.from_numpy(action))
    log_std = torch.full_like(u, LOG_STD)
    return torch.exp(-squashed_surprise(u, (u - MEAN) / log_std.exp(), log_std)).numpy()


def test_the_density_of_a_squashed_gaussian_integrates_to_its_probabilities() -> None:
    grid = np.tanh(np.linspace(-9.0, 9.0, 200_001))
    assert np.trapezoid(density(grid), grid) == pytest.approx(1.0, abs=1e-6)
    below = grid[grid <= 0.2]
    # P(tanh(u) < 0.2) = P(u < atanh(0.2)), the distribution function of the Gaussian itself.
    expected = 0.5 * (1 + math.erf((math.atanh(0.2) - MEAN) / (math.exp(LOG_STD) * math.sqrt(2))))
    assert np.trapezoid(density(below), below) == pytest.approx(expected, abs=1e-4)


def test_the_density_at_a_known_point() -> None:
    # At a = tanh(MEAN) the noise is 0: density = 1 / (std sqrt(2 pi)) / (1 - a^2).
    action = math.tanh(MEAN)
    expected = 1 / (math.exp(LOG_STD) * math.sqrt(2 * math.pi)) / (1 - action**2)
    assert density(np.array([action]))[0] == pytest.approx(expected, rel=1e-12)


def test_the_density_stays_finite_where_tanh_is_1() -> None:
    u = torch.tensor([-40.0, 40.0], dtype=torch.float64)
    surprise = squashed_surprise(u, torch.zeros_like(u), torch.zeros_like(u))
    # log(1 - tanh(u)^2) = log 4 - 2 |u| for large |u|.
    expected = 0.5 * math.log(2 * math.pi) + math.log(4) - 80
    np.testing.assert_allclose(surprise.numpy(), [expected] * 2, rtol=1e-12)


def test_the_mean_surprise_is_the_entropy() -> None:
    grid = np.tanh(np.linspace(-8.0, 8.0, 100_001))
    p = density(grid)
    entropy = np.trapezoid(-p * np.log(p), grid)
    noise = torch.randn(100_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # tanh(output) = (LOG_STD - mid) / half, with log std between -5 and 2.
    output = torch.full_like(noise, math.atanh((LOG_STD + 1.5) / 3.5))
    sample = Distribution(players(ONE, "masac"), DOUBLE).sample(torch.full_like(noise, MEAN), output, noise)
    assert float(sample.entropy.mean()) == pytest.approx(entropy, abs=0.012)
    np.testing.assert_allclose(sample.noisy_logits.numpy(), MEAN + math.exp(LOG_STD) * noise.numpy(), rtol=1e-12)


def test_the_entropy_of_choices_is_exact() -> None:
    logits = torch.tensor([[math.log(0.5), math.log(0.25), math.log(0.25)], [0.0, 0.0, -1e9]], dtype=torch.float64)
    # 0.5 log 2 + 2 * 0.25 log 4, and two equally likely choices of which the third is forbidden.
    np.testing.assert_allclose(choice_entropy(logits).numpy(), [1.5 * math.log(2), math.log(2)], rtol=1e-12)


def test_forbidden_choices_have_finite_gradients() -> None:
    logits = torch.tensor([[0.3, -1e9, 0.1]], dtype=torch.float64, requires_grad=True)
    choice_entropy(logits).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_players_entropies_sum_over_their_parts() -> None:
    joint = joint_spec(
        [("a", "x", 2, (Categorical(2), Box((-1.0, 0.0), (1.0, 4.0)))), ("b", "y", 2, (Categorical(3), Categorical(3)))]
    )
    distribution = Distribution(players(joint, "x=masac,y=isac"), DOUBLE)
    logits = torch.zeros(1, 10, dtype=torch.float64)
    entropy = distribution.sample(logits, torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, 2)).entropy
    # Two numbers with u = 0 and log std = -1.5, and choices that are equally likely.
    number = -1.5 + 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(entropy[:, 0].numpy(), [math.log(2) + 2 * number, 2 * math.log(3)], rtol=1e-12)
    target = distribution.target_entropy(logits, 0.5)
    np.testing.assert_allclose(target[:, 0].numpy(), [0.5 * math.log(2) - 2, math.log(3)], rtol=1e-12)


def test_the_target_entropy_counts_allowed_choices() -> None:
    distribution = Distribution(players(joint_spec([("a", "x", 2, (Categorical(4),))]), "isac"), DOUBLE)
    logits = torch.tensor([[0.0, 5.0, 1.0, -5.0], [0.0, -1e9, 1.0, -1e9], [-1e9, -1e9, -1e9, 2.0]]).double()
    target = distribution.target_entropy(logits, 0.5)
    np.testing.assert_allclose(target[0].numpy(), [0.5 * math.log(4), 0.5 * math.log(2), 0.0], atol=1e-12)


# ---- the update ---------------------------------------------------------------------------------------------------


def test_the_target_and_the_policy_loss_of_constant_networks_by_hand() -> None:
    masac = masac_of(ONE, initial_temperature=0.2, discount=0.9, action_regularisation=0.5)
    set_constant(masac.policies.online[0], [MEAN, math.atanh((LOG_STD + 1.5) / 3.5)])
    set_constant(masac.policies.target[0], [100.0, 0.0])  # must not count: there are no target policies
    set_constant(masac.critics.target[0], [3.0, 2.0])
    set_constant(masac.critics.online[0], [1.0, 4.0])
    batch = batch_of(ONE, 0)
    discount = torch.zeros(32, 1, dtype=torch.float64)
    discount[::2] = 1.0
    batch = LossBatch(batch.obs_action, batch.next_obs, batch.reward, discount, batch.present)
    drawn = torch.Generator().manual_seed(3)
    noises = [torch.empty(32, 1, dtype=torch.float64).normal_(generator=drawn).numpy() for _ in range(2)]

    def entropies(noise: np.ndarray) -> np.ndarray:
        a = np.tanh(MEAN + math.exp(LOG_STD) * noise)
        return 0.5 * noise**2 + LOG_STD + 0.5 * math.log(2 * math.pi) + np.log(1 - a**2)

    y = batch.reward.numpy() + 0.9 * discount.numpy() * (2.0 + 0.2 * entropies(noises[0]))
    np.testing.assert_allclose(td_target(masac, batch).numpy(), y.T, rtol=1e-10)

    signals = masac.mixer.signals(batch)
    weights = masac.mixer.row_weights(batch, signals)
    loss, logits, v = masac.policy_loss(batch, masac.critic_inputs(batch.obs_action), weights)
    soft_value = 1.0 + 0.2 * entropies(noises[1])
    np.testing.assert_allclose(v.detach().numpy(), soft_value.T, rtol=1e-10)
    np.testing.assert_allclose(logits.detach().numpy(), MEAN, rtol=1e-12)
    assert loss.item() == pytest.approx(0.5 * MEAN**2 - soft_value.mean(), rel=1e-10)


def literal_mlp(layers: list[Tensor], x: Tensor) -> Tensor:
    for i, (weight, bias) in enumerate(zip(layers[::2], layers[1::2], strict=True)):
        x = x @ weight + bias
        x = torch.relu(x) if i < len(layers) // 2 - 1 else x
    return x


def layers_of(flat: Tensor, *widths: int) -> list[Tensor]:
    """Cuts the layers of one network from its flat parameters: weight, bias, weight, and so on."""
    layers, at = [], 0
    for inputs, outputs in pairwise(widths):
        layers += [flat[at : at + inputs * outputs].view(inputs, outputs)]
        layers += [flat[at + inputs * outputs : at + (inputs + 1) * outputs]]
        at += (inputs + 1) * outputs
    assert at == len(flat)
    return layers


def policies_of(masac: Masac) -> Iterator[list[Tensor]]:
    """Yields the layers of each player's policy, cut from the flat parameters of its network in documented order."""
    for player, network in zip(masac.players.agents, masac.layout.policy_networks, strict=True):
        gaussians = sum(part.size for part in player.parts if isinstance(part, Box))
        yield layers_of(masac.policies.parameters[network], player.obs_dim, 8, 6, player.action_dim + gaussians)


@pytest.mark.parametrize("name", ["masac", "isac"])
def test_the_targets_of_a_mixed_team_equal_a_plain_loop(name: str) -> None:
    joint = TEAMS["mixed"]
    masac = Masac(
        run_for(joint, NETWORK, AlgorithmSpec(name=name, initial_temperature=0.3, discount=0.8), seed=3), DOUBLE
    )
    batch = batch_of(joint, 1)
    boxes = sum(part.size for agent in joint.agents for part in agent.parts if isinstance(part, Box))
    choices = sum(part.size for agent in joint.agents for part in agent.parts if isinstance(part, Categorical))
    drawn = torch.Generator().manual_seed(3)
    noise = iter(torch.empty(32, boxes, dtype=torch.float64).normal_(generator=drawn).t())
    uniform = torch.empty(32, choices, dtype=torch.float64).uniform_(1e-30, 1.0, generator=drawn)
    gumbel = iter((-torch.log(-torch.log(uniform))).t())
    actions, entropies = [], []
    for player, layers in zip(masac.players.agents, policies_of(masac), strict=True):
        output = literal_mlp(layers, batch.next_obs[:, player.obs_slice])
        at, spread, entropy = 0, player.action_dim, torch.zeros(32, dtype=torch.float64)
        for part in player.parts:
            if isinstance(part, Categorical):
                logits = output[:, at : at + part.n]
                p = torch.softmax(logits, 1)
                entropy = entropy - (p * p.log()).sum(1)
                noisy = logits + torch.stack([next(gumbel) for _ in range(part.n)], 1)
                actions.append(torch.eye(part.n, dtype=torch.float64)[noisy.argmax(1)])
            else:
                for i, (low, high) in enumerate(zip(part.low, part.high, strict=True)):
                    std, e = torch.exp(-1.5 + 3.5 * torch.tanh(output[:, spread])), next(noise)
                    a = torch.tanh(output[:, at + i] + std * e)
                    entropy = entropy + 0.5 * e**2 + std.log() + 0.5 * math.log(2 * math.pi) + torch.log(1 - a**2)
                    actions.append((high + low) / 2 + (high - low) / 2 * a[:, None])
                    spread += 1
            at += part.size
        entropies.append(entropy)
    for network, target in zip(masac.critics.online, masac.critics.target, strict=True):
        assert torch.equal(next(network.parameters()), next(target.parameters()))  # before the first update
    rows = torch.cat([batch.next_obs, *actions], 1)
    expected = []
    for i, entropy in enumerate(entropies):
        pair = [critic for critic in range(len(masac.layout.critics)) if masac.layout.critics[critic].player == i]
        assert len(pair) == 2
        q = []
        for critic in (masac.layout.critics[c] for c in pair):
            layers = layers_of(masac.critics.parameters[critic.network], len(critic.input_columns), 7, 5, 1)
            q.append(literal_mlp(layers, rows[:, critic.input_columns])[:, 0])
        v = torch.minimum(*q) + 0.3 * entropy
        expected.append(batch.reward[:, i] + 0.8 * batch.discount[:, i] * v)
    np.testing.assert_allclose(td_target(masac, batch).numpy(), torch.stack(expected).detach().numpy(), atol=1e-9)


@pytest.mark.parametrize(("log_std", "falls"), [(1.0, True), (-4.0, False)])
def test_a_temperature_falls_while_the_entropy_is_above_its_target(log_std: float, falls: bool) -> None:
    masac = masac_of(ONE, initial_temperature=0.5)
    set_constant(masac.policies.online[0], [0.0, math.atanh((log_std + 1.5) / 3.5)])
    masac.update(batch_of(ONE, 0), 0.01, 0.01)
    # Adam's first step has the length of the learning rate, whatever the gradient is.
    assert float(masac.temperatures.log) == pytest.approx(math.log(0.5) + (-0.01 if falls else 0.01), abs=1e-6)


def test_a_number_replaces_the_automatic_target() -> None:
    for target, falls in ((-3.0, True), (0.5, False)):
        masac = masac_of(ONE, entropy_target=target)
        # u = 0.1 * noise has the entropy log 0.1 + 1.42 = -0.88 nats, less what tanh takes.
        set_constant(masac.policies.online[0], [0.0, math.atanh((math.log(0.1) + 1.5) / 3.5)])
        masac.update(batch_of(ONE, 0), 0.01, 0.01)
        assert (float(masac.temperatures.log) < math.log(0.1)) is falls


def test_the_policy_gradient_is_that_of_the_loss() -> None:
    masac = masac_of(TEAMS["two"], gradient_clip=0.0)
    batch = batch_of(TEAMS["two"], 2)
    weights = masac.mixer.row_weights(batch, masac.mixer.signals(batch))
    inputs = masac.critic_inputs(batch.obs_action)

    def loss() -> Tensor:
        masac.generator.manual_seed(5)
        return masac.policy_loss(batch, inputs, weights)[0]

    parameters = [parameter for module in masac.policies.online for parameter in module.parameters()]
    gradients = torch.autograd.grad(loss(), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        at, step = np.unravel_index(int(gradient.abs().argmax()), gradient.shape), 1e-6
        before = float(parameter.data[at])
        parameter.data[at] = before + step
        above = loss().item()
        parameter.data[at] = before - step
        below = loss().item()
        parameter.data[at] = before
        assert (above - below) / (2 * step) == pytest.approx(float(gradient[at]), rel=1e-4)


def test_a_team_of_stochastic_players_learns_from_its_critic_once() -> None:
    joint = TEAMS["two"]
    masac = masac_of(joint, team_critic=True, initial_temperature=0.2, action_regularisation=0.0)
    assert [critic.network for critic in masac.layout.critics] == [0, 0, 1, 1]
    for policy in masac.policies.online:
        set_constant(policy, [0.0] * 2 * (3 + 3))
    set_constant(masac.critics.online[0], [1.0, 4.0])
    batch = batch_of(joint, 0)
    weights = masac.mixer.row_weights(batch, masac.mixer.signals(batch))
    loss, _, v = masac.policy_loss(batch, masac.critic_inputs(batch.obs_action), weights)
    # Each member's value is that of the team plus its own entropy; the loss takes the mean over members.
    assert loss.item() == pytest.approx(-v.mean().item(), rel=1e-10)
    assert (v != 1.0).all()


@pytest.mark.parametrize("team", ["spread", "discrete", "mixed", "masked"])
@pytest.mark.parametrize("name", ["masac", "isac"])
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_every_team_learns_and_actors_compute_the_same(team: str, name: str, shared: bool) -> None:
    joint = TEAMS[team]
    network = replace(NETWORK, share_policies=shared, share_critics=shared, tell_apart=shared)
    settings = AlgorithmSpec(name=name, normalise_observations=True, normalise_rewards=True, teammates="current")
    masac = Masac(run_for(joint, network, settings, seed=3), DOUBLE)
    for seed in range(3):
        batch = masac.normalise(batch_of(joint, seed, absences=True))
        stats = masac.update(batch, 1e-3, 1e-3)
        assert torch.isfinite(stats.policy_loss).all()
    obs = random_records(joint, 20, 9, absences=False)["obs"].copy()
    outputs = Policy(masac.players, network, masac.policy_weights()).outputs(obs)
    normalised = torch.from_numpy(obs).double()
    masac.normaliser.observations.apply(normalised, torch.ones(20, len(joint.agents), dtype=torch.float64))  # type: ignore[union-attr]
    raw = masac.policy_outputs(masac.policies.online, normalised)[:, joint.action_dim :].detach().numpy()
    np.testing.assert_allclose(outputs.logits, masac.logits(normalised).numpy(), atol=2e-5)
    if outputs.std is None:
        assert not raw.size
    else:
        np.testing.assert_allclose(outputs.std, np.exp(-1.5 + 3.5 * np.tanh(raw)), rtol=1e-4)


def test_deterministic_sides_keep_their_losses() -> None:
    joint = TEAMS["tag"]
    masac = Masac(
        run_for(joint, NETWORK, AlgorithmSpec(name="adversary=masac,agent=maddpg", discount=0.9), seed=3), DOUBLE
    )
    assert [player.stochastic for player in masac.players.agents] == [True, True, True, False]
    assert len(masac.layout.critics) == 7
    batch = batch_of(joint, 0)
    sample = masac._sample(masac._next_outputs(batch), batch.next_obs)
    own = masac.players.agents[3].action_slice
    for target in masac.policies.target:
        for parameter in target.parameters():
            parameter.data.mul_(2.0)
    changed = masac._sample(masac._next_outputs(batch), batch.next_obs)
    assert not sample.entropy[3].any()
    assert sample.entropy[:3].all()
    assert torch.equal(sample.logits[:, : own.start], changed.logits[:, : own.start])
    assert not torch.equal(sample.logits[:, own], changed.logits[:, own])
    before = masac.temperatures.log.clone()
    losses = masac.update(batch, 1e-3, 1e-3).losses()
    moved = masac.temperatures.log != before
    assert moved.tolist() == [True, True, True, False]
    assert losses.temperature == pytest.approx([0.1, 0.1, 0.1, 0.0])
    assert [entropy != 0.0 for entropy in losses.entropy] == [True, True, True, False]


@pytest.mark.parametrize("team_critic", [False, True])
def test_an_absent_player_does_not_move_its_temperature(*, team_critic: bool) -> None:
    joint = TEAMS["two"]
    masac = masac_of(joint, team_critic=team_critic)
    fields = as_fields(random_records(joint, 32, 0, absences=False), torch.float64)
    fields["present"][:, 1] = 0.0
    before = masac.temperatures.log.clone()
    masac.update(as_batch(fields), 1e-3, 1e-3)
    assert (masac.temperatures.log != before).tolist() == [True, False]


def test_an_absent_member_adds_no_entropy_to_its_team() -> None:
    joint = TEAMS["two"]
    masac = masac_of(joint, team_critic=True, initial_temperature=0.2, discount=0.5)
    batch = batch_of(joint, 0)
    present, ends = torch.ones_like(batch.present), torch.ones_like(batch.discount)
    present[:5, 1] = 0.0
    ends[5:9, 1] = 0.0
    batch = LossBatch(batch.obs_action, batch.next_obs, batch.reward * 0.0, ends, present)
    set_constant(masac.critics.target[0], [0.0, 0.0])
    target = td_target(masac, batch)
    assert not target[1, :9].any()
    assert (target[0] != 0.0).all()
    assert (target[1, 9:] != 0.0).all()


def test_temperatures_learn_at_the_rates_of_their_sides() -> None:
    settings = AlgorithmSpec(name="masac", side_learning_rates={"agent": 0.25})
    masac = Masac(run_for(TEAMS["tag"], NETWORK, settings, seed=3), DOUBLE)
    before = masac.temperatures.log.clone()
    masac.update(batch_of(TEAMS["tag"], 0), 0.01, 0.01)
    # Adam's first step has the length of the learning rate.
    assert (masac.temperatures.log - before).abs().tolist() == pytest.approx([0.01, 0.01, 0.01, 0.0025], rel=1e-5)


def test_a_run_continues_from_its_checkpoint() -> None:
    run = Run("r", make_run_spec({"scenario": "simple_spread"}, {"algorithm": {"name": "masac"}}), TEAMS["spread"])
    whole, first, second = (make_engine(run, DOUBLE) for _ in range(3))
    for seed in range(4):
        whole.update(batch_of(TEAMS["spread"], seed), 1e-3, 1e-3)
    for seed in range(2):
        first.update(batch_of(TEAMS["spread"], seed), 1e-3, 1e-3)
    state = copy_state(first, Counters())
    assert {name for name in state.tensors if name.startswith("temperatures/")} == {
        f"temperatures/{name}" for name in ("log", "adam/mean", "adam/square", "adam/steps")
    }
    restore_state(second, state)
    for seed in range(2, 4):
        second.update(batch_of(TEAMS["spread"], seed), 1e-3, 1e-3)
    expected, found = (copy_state(engine, Counters()).tensors for engine in (whole, second))
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# ---- settings -----------------------------------------------------------------------------------------------------


def run_of(joint: AgentsSpec, **settings: dict[str, object]) -> Run:
    return Run("r", make_run_spec({"scenario": "simple_spread"}, settings), joint)


def test_stochastic_policies_choose_the_engine() -> None:
    run = run_of(TEAMS["tag"], algorithm={"name": "adversary=maddpg,agent=isac"})
    assert engine_of(run).name == "autograd"
    assert isinstance(make_engine(run, DOUBLE), Masac)
    with pytest.raises(ConfigError, match=r"does not cover algorithm\.name=masac\. Set algorithm\.engine=auto"):
        engine_of(run_of(TEAMS["spread"], algorithm={"name": "masac", "engine": "stacked"}))


@pytest.mark.parametrize(
    ("team", "settings", "message"),
    [
        ("spread", {"network": {"head": "force"}}, "network.head = 'force'.*network.head=box"),
        ("spread", {"algorithm": {"entropy_target": 3.5}}, "entropy_target = 3.5.*agent_0.*below 3.47 nats"),
        ("discrete", {"algorithm": {"entropy_target": 1.7}}, "entropy_target = 1.7.*below 1.61 nats"),
        ("spread", {"algorithm": {"critic_sees": "both"}}, "learns by isac"),
        ("spread", {"algorithm": {"team_critic": True}}, "learns by isac"),
    ],
)
def test_what_cannot_be_learnt_is_refused(team: str, settings: dict[str, dict[str, object]], message: str) -> None:
    settings = {**settings, "algorithm": {**settings.get("algorithm", {}), "name": "isac"}}
    run = run_of(TEAMS[team], **settings)
    with pytest.raises(ConfigError, match=message):
        network_layout(run.players, run.spec.network, run.spec.algorithm)
