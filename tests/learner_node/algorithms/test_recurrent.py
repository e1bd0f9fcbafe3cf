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
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records, run_for

DOUBLE = torch.zeros((), dtype=torch.float64)
NETWORK = NetworkSpec(
    policy_hidden=(6, 5), critic_hidden=(7, 4), recurrent="gru", share_policies=False, share_critics=False
)
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
    return make(run_for(joint, network, algorithm, seed=3, n_step=n_step), DOUBLE)


class LiteralNetwork:
    """One network with torch's own GRU cell, one step of one sequence at a time."""

    def __init__(self, flat: Tensor, inputs: int, hidden: int, units: int) -> None:
        weights, gates = [], 3 * units
        for shape in (
            (inputs, hidden),
            (1, hidden),
            (hidden, gates),
            (1, gates),
            (units, gates),
            (1, gates),
            (units, 1),
        ):
            taken, flat = flat[: shape[0] * shape[1]], flat[shape[0] * shape[1] :]
            weights.append(taken.view(shape))
        (self.last_bias,) = flat
        self.weight, self.bias, w, b, v, c, self.last = weights
        self.cell, self.units = nn.GRUCell(hidden, units, dtype=torch.float64), units
        for name, value in (("weight_ih", w.t()), ("weight_hh", v.t()), ("bias_ih", b[0]), ("bias_hh", c[0])):
            getattr(self.cell, name).data = value.clone()

    def step(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the output and the new memory for one input `[inputs]`."""
        memory = self.cell(torch.relu(x[None] @ self.weight + self.bias), memory)
        return (memory @ self.last + self.last_bias)[0, 0], memory

    def play(self, x: Tensor, next_x: Tensor | None = None) -> Tensor:
        """Returns the outputs for inputs `[rows, inputs]` of padded sequences, in the rows that are learnt from.

        next_x: inputs of a step after each row, whose outputs are returned instead.
        """
        outputs = torch.zeros(len(LENGTHS), STEPS, dtype=torch.float64)
        for s, (before, length) in enumerate(zip(BEFORE, LENGTHS, strict=True)):
            first = s * (BURN_IN + STEPS) + BURN_IN
            memory = torch.zeros(1, self.units, dtype=torch.float64)
            with torch.no_grad():
                for row in range(first - before, first):
                    _, memory = self.step(x[row], memory)
            for t in range(length):
                outputs[s, t], memory = self.step(x[first + t], memory)
                if next_x is not None:
                    outputs[s, t], _ = self.step(next_x[first + t], memory)
        return outputs.flatten()

    def play_changed(self, x: Tensor, changed: Tensor) -> Tensor:
        """Returns the outputs for changed inputs, each after a memory of the inputs that were not changed."""
        outputs = torch.zeros(len(LENGTHS), STEPS, dtype=torch.float64)
        for s, (before, length) in enumerate(zip(BEFORE, LENGTHS, strict=True)):
            first = s * (BURN_IN + STEPS) + BURN_IN
            memory = torch.zeros(1, self.units, dtype=torch.float64)
            for row in range(first - before, first + length):
                if row >= first:
                    outputs[s, row - first], _ = self.step(changed[row], memory)
                _, memory = self.step(x[row], memory)
        return outputs.flatten()


def literal_policies(parameters: list[Tensor]) -> list[LiteralNetwork]:
    return [LiteralNetwork(flat, 3, 6, 5) for flat in parameters]


def literal_critics(parameters: list[Tensor]) -> list[LiteralNetwork]:
    return [LiteralNetwork(flat, 8, 7, 4) for flat in parameters]


def in_rows(outputs: Tensor) -> Tensor:
    """Returns outputs of the trained steps as numbers of all rows; zeros in the burn-in."""
    rows = torch.zeros(len(LENGTHS), BURN_IN + STEPS, dtype=torch.float64)
    rows[:, BURN_IN:] = outputs.view(len(LENGTHS), STEPS)
    return rows.flatten()


def is_trained() -> Tensor:
    return torch.tensor([[t < length for t in range(STEPS)] for length in LENGTHS]).flatten()


def critic_columns(engine: Maddpg, i: int) -> list[int]:
    return list(engine.layout.critics[i].input_columns)


def test_outputs_of_sequences_are_those_of_a_loop_over_their_steps() -> None:
    engine, batch = engine_of(TEAM), padded_batch(TEAM)
    sequences, rows = batch.as_sequences(BURN_IN, STEPS), is_trained()
    now = engine.current_outputs(engine.policies.online, sequences)
    after = engine.next_outputs(engine.policies.online, sequences)
    for i, player in enumerate(literal_policies(engine.policies.parameters)):
        obs, next_obs = (x[:, 3 * i : 3 * i + 3] for x in (batch.obs_action, batch.next_obs))
        torch.testing.assert_close(now[rows, i], player.play(obs)[rows], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(after[rows, i], player.play(obs, next_obs)[rows], rtol=1e-12, atol=1e-12)


def cell_gradients(loss: Tensor, networks: list[LiteralNetwork]) -> list[list[Tensor]]:
    """Returns the gradients of each network's input gates, their bias, recurrent gates and their bias, transposed."""
    found = []
    for one in networks:
        parameters = [one.cell.weight_ih, one.cell.bias_ih, one.cell.weight_hh, one.cell.bias_hh]
        w, b, v, c = torch.autograd.grad(loss, parameters, retain_graph=True)
        found.append([w.t(), b[None], v.t(), c[None]])
    return found


def assert_same_gradients(loss: Tensor, module: nn.Module, expected: list[list[Tensor]]) -> None:
    # Parameters 2 to 5 of a module with one hidden layer are the gates and their biases [G, ...].
    found = torch.autograd.grad(loss, list(module.parameters())[2:6])
    for i, gradients in enumerate(expected):
        for ours, theirs in zip(found, gradients, strict=True):
            torch.testing.assert_close(ours[i], theirs, rtol=1e-10, atol=1e-13)


def test_the_policy_gradient_flows_through_the_sequence_and_not_into_the_burn_in() -> None:
    engine, batch = engine_of(TEAM), padded_batch(TEAM)
    sequences, rows = batch.as_sequences(BURN_IN, STEPS), is_trained()
    row_weights = engine.mixer.row_weights(sequences, engine.mixer.signals(sequences))
    memories = [one.before for one in engine._memories(engine.critics.online, engine._critic_groups, sequences)]
    inputs = [x.detach() for x in engine.critic_inputs(sequences.obs_action, memories)]
    loss, _, _ = engine.policy_loss(sequences, inputs, row_weights)
    players, critics = literal_policies(engine.policies.parameters), literal_critics(engine.critics.parameters)
    expected = torch.zeros((), dtype=torch.float64)
    for i, (player, critic) in enumerate(zip(players, critics, strict=True)):
        logits = player.play(batch.obs_action[:, 3 * i : 3 * i + 3])
        changed = batch.obs_action.clone()
        changed[:, 6 + i] = in_rows(torch.tanh(logits))
        columns = critic_columns(engine, i)
        q = critic.play_changed(batch.obs_action[:, columns], changed[:, columns])
        penalty = engine.algorithm.action_regularisation * logits[rows].square().mean()
        expected = expected + penalty - q[rows].mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    assert_same_gradients(loss, engine.policies.online[0], cell_gradients(expected, players))


def test_the_critics_loss_flows_through_the_sequence_too() -> None:
    engine, batch = engine_of(TEAM), padded_batch(TEAM)
    sequences, rows = batch.as_sequences(BURN_IN, STEPS), is_trained()
    target = torch.linspace(-1.0, 1.0, len(rows), dtype=torch.float64)
    memories = [one.before for one in engine._memories(engine.critics.online, engine._critic_groups, sequences)]
    q = engine.q(engine.critics.online, engine.critic_inputs(sequences.obs_action, memories))
    critics = literal_critics(engine.critics.parameters)
    values = [critic.play(batch.obs_action[:, critic_columns(engine, i)]) for i, critic in enumerate(critics)]
    for i, expected in enumerate(values):
        torch.testing.assert_close(q[i][rows], expected[rows], rtol=1e-12, atol=1e-12)
    loss = (q - target)[:, rows].square().sum()
    literal = sum((value - target)[rows].square().sum() for value in values)
    assert isinstance(literal, Tensor)
    assert_same_gradients(loss, engine.critics.online[0], cell_gradients(literal, critics))


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
    policies, critics = literal_policies(engine.policies.parameters), literal_critics(engine.critics.parameters)
    next_actions = torch.stack(
        [
            in_rows(torch.tanh(player.play(batch.obs_action[:, obs], batch.next_obs[:, obs])) * (discount[:, i] > 0))
            for i, (player, obs) in enumerate(zip(policies, (slice(0, 3), slice(3, 6)), strict=True))
        ],
        1,
    )
    next_rows = torch.cat([batch.next_obs, next_actions], 1)
    gamma = engine.algorithm.discount
    for i, critic in enumerate(critics):
        columns = critic_columns(engine, i)
        next_q = critic.play(batch.obs_action[:, columns], next_rows[:, columns]).tolist()
        for s, length in enumerate(LENGTHS):
            for t in range(length):
                target, factor = 0.0, 1.0
                steps = range(t, min(t + n_step, length))
                for row in (s * STEPS + k for k in steps):
                    target += factor * float(sequences.reward[row, i])
                    factor *= gamma * float(discount[row, i])
                target += factor * next_q[s * STEPS + steps[-1]]
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
