"""Rewards, discounts and presence of players, compared with loops over agents."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from common.run.players import members_of, players
from common.run.run import AlgorithmSpec
from common.spec import AgentsSpec
from learner_node.update.signals import SignalMixer
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records

ROWS = 24
DOUBLE = torch.zeros((), dtype=torch.float64)


def expected_rewards(agents: AgentsSpec, algorithm: AlgorithmSpec, reward: Tensor) -> list[Tensor]:
    """Returns the reward of each player, agent by agent and row by row."""
    mixed = []
    for i, agent in enumerate(agents.agents):
        team = [j for j, other in enumerate(agents.agents) if other.team == agent.team]
        mean = sum(reward[:, j] for j in team) / len(team)
        mixed.append(
            algorithm.reward_scale * ((1 - algorithm.team_spirit) * reward[:, i] + algorithm.team_spirit * mean)
        )
    members = [members_of(agents, player) for player in players(agents, algorithm.name).agents]
    return [torch.stack([mixed[i] for i in one]).mean(0) for one in members]


@pytest.mark.parametrize("team", ["spread", "tag", "mixed"])
@pytest.mark.parametrize(
    "algorithm",
    [
        AlgorithmSpec(name="maddpg"),
        AlgorithmSpec(name="maddpg", team_spirit=0.3, reward_scale=2.0),
        AlgorithmSpec(name="joint", team_spirit=0.3),
    ],
    ids=["own", "spirit", "joint"],
)
def test_players_learn_from_the_rewards_of_their_agents(team: str, algorithm: AlgorithmSpec) -> None:
    if (team, algorithm.name) == ("mixed", "joint"):
        pytest.skip("its sides do not stand side by side")
    agents = TEAMS[team]
    found = players(agents, algorithm.name)
    mixer = SignalMixer(agents, found, algorithm, DOUBLE)
    batch = as_batch(as_fields(random_records(agents, ROWS, 0, absences=True), torch.float64))
    signals = mixer.signals(batch)
    torch.testing.assert_close(signals.reward, torch.stack(expected_rewards(agents, algorithm, batch.reward), 1))
    for i, player in enumerate(found.agents):
        members = list(members_of(agents, player))
        for row in range(ROWS):
            # A player continues, and is present, as long as one of its agents is.
            assert signals.discount[row, i] == max(batch.discount[row, j] for j in members)
            assert signals.present[row, i] == max(batch.present[row, j] for j in members)


def test_absent_agents_act_in_no_column() -> None:
    agents = TEAMS["tag"]
    algorithm = AlgorithmSpec(name="maddpg", action_regularisation=0.5)
    mixer = SignalMixer(agents, players(agents, "maddpg"), algorithm, DOUBLE)
    batch = as_batch(as_fields(random_records(agents, ROWS, 1, absences=True), torch.float64))
    weights = mixer.row_weights(batch, mixer.signals(batch))
    assert weights.acting is not None
    assert weights.next_acting is not None
    for i, agent in enumerate(agents.agents):
        present = batch.present[:, i]
        expected = present / present.sum()
        torch.testing.assert_close(weights.loss[i], expected)
        for column in range(agent.action_slice.start, agent.action_slice.stop):
            assert torch.equal(weights.acting[:, column], present)
            assert torch.equal(weights.next_acting[:, column], present * (batch.discount[:, i] > 0))
            # The penalty is lambda times the mean over the player's five numbers.
            torch.testing.assert_close(weights.penalty[:, column], expected * 0.5 / 5)
