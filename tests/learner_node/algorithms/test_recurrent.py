"""Recurrent policies learn from sequences as a plain loop over the steps of each sequence says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from msgspec.structs import replace as replace_fields
from torch import Tensor, nn

from common.policy.network import Policy
from common.run.run import AlgorithmSpec, NetworkSpec
from common.spec import AgentsSpec, Box, joint_spec
from learner_node.algorithms.maddpg import Maddpg
from learner_node.algorithms.masac import Masac
from learner_node.update.batches import LossBatch
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records

DOUBLE = torch.zeros((), dtype=torch.float64)
NETWORK = NetworkSpec(policy_hidden=(6, 5), critic_hidden=(8,), recurrent="gru", share_policies=False)
BURN_IN, STEPS = 3, 4
BEFORE = (0, 2, 3, 3)
"""Steps of burn-in that each sequence has, of BURN_IN."""
LENGTHS = (4, 4, 2, 1)
"""Steps of each sequence before its episode ends, of STEPS."""
TEAM = joint_spec([(f"agent_{i}", "agent", 3, (Box((-1.0,), (1.0,)),)) for i in range(2)])


def padded_batch(joint: AgentsSpec, seed: int = 0) -> LossBatch:
    """Returns sequences with their burn-in, as a replay server sends them: zeros outside the episode."""
    records = random_records(joint, len(LENGTHS) * (BURN_IN + STEPS), seed)
    by_sequence = records.reshape(len(LENGTHS), -1)
    for rows, before, length in zip(by_sequence, BEFORE, LENGTHS, strict=True):
        rows[: BURN_IN - before] = np.zeros((), records.dtype)
        rows[BURN_IN + length :] = np.zeros((), records.dtype)
    return as_batch(as_fields(records, torch.float64))


def engine_of(joint: AgentsSpec, network: NetworkSpec = NETWORK, name: str = "maddpg", n_step: int = 1) -> Maddpg:
    algorithm = AlgorithmSpec(name=name, smoothing=0.0)  # type: ignore[call-arg]
    make = Masac if name in ("masac", "isac") else Maddpg
    return make(joint, network, algorithm, 3, DOUBLE, n_step=n_step)


class LiteralPolicy:
    """One player's policy with torch's own GRU cell, one step of one sequence at a time."""

    def __init__(self, engine: Maddpg, network: Tensor) -> None:
        weights, shapes = [], ((3, 6), (1, 6), (6, 15), (1, 15), (5, 15), (1, 15), (5, 1), (1, 1))
        for rows, columns in shapes:
            taken, network = network[: rows * columns], network[rows * columns :]
            weights.append(taken.view(rows, columns))
        assert not len(network)
        self.weight, self.bias, w, b, v, c, self.last, self.last_bias = weights
        self.cell = nn.GRUCell(6, 5, dtype=torch.float64)
        for name, value in (("weight_ih", w.t()), ("weight_hh", v.t()), ("bias_ih", b[0]), ("bias_hh", c[0])):
            getattr(self.cell, name).data = value.clone()

    def step(self, obs: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the logit and the new memory for one observation `[3]`."""
        x = torch.relu(obs[None] @ self.weight + self.bias)
        memory = self.cell(x, memory)
        return (memory @ self.last + self.last_bias)[0], memory


def literal(engine: Maddpg, networks: list[Tensor], batch: LossBatch) -> tuple[list[LiteralPolicy], Tensor, Tensor]:
    """Returns the policies, and the logits for the observations and the next observations of all trained steps."""
    players = [LiteralPolicy(engine, flat) for flat in networks]
    logits = torch.zeros(len(LENGTHS), STEPS, 2, dtype=torch.float64)
    next_logits = torch.zeros_like(logits)
    obs = batch.obs_action[:, :6].view(len(LENGTHS), BURN_IN + STEPS, 2, 3)
    next_obs = batch.next_obs.view(obs.shape)
    for s, (before, length) in enumerate(zip(BEFORE, LENGTHS, strict=True)):
        for i, player in enumerate(players):
            memory = torch.zeros(1, 5, dtype=torch.float64)
            with torch.no_grad():
                for t in range(BURN_IN - before, BURN_IN):
                    _, memory = player.step(obs[s, t, i], memory)
            for t in range(length):
                logits[s, t, i], memory = player.step(obs[s, BURN_IN + t, i], memory)
                next_logits[s, t, i], _ = player.step(next_obs[s, BURN_IN + t, i], memory)
    return players, logits.flatten(0, 1), next_logits.flatten(0, 1)


def is_trained() -> Tensor:
    return torch.tensor([[t < length for t in range(STEPS)] for length in LENGTHS]).flatten()


def test_outputs_of_sequences_are_those_of_a_loop_over_their_steps() -> None:
    engine, batch = engine_of(TEAM), padded_batch(TEAM)
    _, logits, next_logits = literal(engine, engine.policies.parameters, batch)
    sequences, rows = batch.as_sequences(BURN_IN, STEPS), is_trained()
    for found, expected in (
        (engine.current_outputs(engine.policies.online, sequences), logits),
        (engine.next_outputs(engine.policies.online, sequences), next_logits),
    ):
        torch.testing.assert_close(found[rows], expected[rows], rtol=1e-12, atol=1e-12)


def test_the_policy_gradient_flows_through_the_sequence_and_not_into_the_burn_in() -> None:
    engine, batch = engine_of(TEAM), padded_batch(TEAM)
    sequences, rows = batch.as_sequences(BURN_IN, STEPS), is_trained()
    row_weights = engine.mixer.row_weights(sequences, engine.mixer.signals(sequences))
    loss, _, _ = engine.policy_loss(sequences, engine.critic_inputs(sequences.obs_action), row_weights)
    players, logits, _ = literal(engine, engine.policies.parameters, batch)
    expected = engine.algorithm.action_regularisation * logits[rows].square().mean(0).sum()
    for i in range(2):
        actions = sequences.obs_action[:, 6:8].clone()
        actions[:, i] = torch.tanh(logits[:, i])
        q = engine.q(engine.critics.online, engine.critic_inputs(torch.cat([sequences.obs_action[:, :6], actions], 1)))
        expected = expected - q[i][rows].mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    # The networks' input gates, recurrent gates and their biases are parameters 2 to 5 of the module [G, ...].
    found = torch.autograd.grad(loss, list(engine.policies.online[0].parameters())[2:6])
    cells = [
        torch.autograd.grad(
            expected, [p.cell.weight_ih, p.cell.bias_ih, p.cell.weight_hh, p.cell.bias_hh], retain_graph=True
        )
        for p in players
    ]
    for i, (w, b, v, c) in enumerate(cells):
        for ours, theirs in zip(found, (w.t(), b[None], v.t(), c[None]), strict=True):
            torch.testing.assert_close(ours[i], theirs, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("n_step", [1, 2, 3])
def test_targets_sum_rewards_up_to_the_end_of_a_sequence(n_step: int) -> None:
    engine, batch = engine_of(TEAM, n_step=n_step), padded_batch(TEAM)
    sequences = batch.as_sequences(BURN_IN, STEPS)
    discount = sequences.discount.clone()
    discount[1, 0] = 0.0  # agent_0 terminates in the second step of the first sequence
    sequences = replace(sequences, discount=discount)
    signals = engine.mixer.signals(sequences)
    row_weights = engine.mixer.row_weights(sequences, signals)
    found = engine.td_target(sequences, signals, row_weights)
    _, _, next_logits = literal(engine, engine.policies.parameters, batch)
    rows = torch.cat([sequences.next_obs, torch.tanh(next_logits) * (discount > 0)], 1)
    next_q = engine.q(engine.critics.target, engine.critic_inputs(rows))
    gamma = engine.algorithm.discount
    for s, length in enumerate(LENGTHS):
        for t in range(length):
            for i in range(2):
                target, factor = 0.0, 1.0
                steps = range(t, min(t + n_step, length))
                for k in steps:
                    row = s * STEPS + k
                    target += factor * float(sequences.reward[row, i])
                    factor *= gamma * float(discount[row, i])
                target += factor * float(next_q.detach()[i, s * STEPS + steps[-1]])
                assert float(found[i, s * STEPS + t]) == pytest.approx(target, rel=1e-10), (s, t, i)


@pytest.mark.parametrize("team", ["spread", "mixed", "masked"])
@pytest.mark.parametrize("name", ["maddpg", "matd3", "iddpg", "joint", "masac", "isac"])
@pytest.mark.parametrize("hidden", [(7, 5), (5,)])
def test_actors_compute_what_the_learner_does(team: str, name: str, hidden: tuple[int, ...]) -> None:
    joint = TEAMS[team]
    network = NetworkSpec(
        policy_hidden=hidden, critic_hidden=(8,), recurrent="gru", tell_apart=True, policy_layer_norm=True
    )
    if name == "joint" and team == "masked":
        network = replace_fields(network, tell_apart=False)
    engine, batch = engine_of(joint, network, name), padded_batch(joint)
    for _ in range(2):
        engine.update(padded_batch(joint, 1).as_sequences(BURN_IN, STEPS), 1e-2, 1e-2)
    sequences = batch.as_sequences(BURN_IN, STEPS)
    outputs = engine.current_outputs(engine.policies.online, sequences)
    expected = engine.lower_forbidden(outputs, sequences.obs_action).detach()
    policy = Policy(engine.players, network, engine.policy_weights())
    obs = batch.obs_action[:, : joint.obs_dim].float().numpy().reshape(len(LENGTHS), BURN_IN + STEPS, -1)
    for s, (before, length) in enumerate(zip(BEFORE, LENGTHS, strict=True)):
        memory = np.zeros((1, policy.memory_dim), np.float32)
        for t in range(BURN_IN - before, BURN_IN + length):
            logits = policy.logits(obs[s, t : t + 1], memory)
            if t >= BURN_IN:
                row = s * STEPS + t - BURN_IN
                np.testing.assert_allclose(logits[0], expected[row].numpy(), rtol=1e-5, atol=1e-5)
