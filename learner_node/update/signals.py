"""Rewards, discounts and presence of players, from those of their agents.

    mixed reward of an agent = (1 - s) * reward of the agent + s * mean reward of its side        s: team spirit
    reward of a player       = mean mixed reward of its agents

Where a side has one critic (`sides_with_one_critic`), s is 1 and all players of the side have its mean reward; they
continue, and are present, as long as one agent of the side does.

"Team Spirit" is the term of OpenAI Five (2018). With s = 0 each agent learns from its own reward, with s = 1 from the
mean reward of its side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from common.run.players import members_of
from common.run.run import AlgorithmSpec
from common.spec import AgentsSpec, PlayersSpec
from learner_node.update.batches import LossBatch, RowWeights
from learner_node.update.layout import sides_with_one_critic


class PlayerSignals(NamedTuple):
    """Rewards, discounts and presence of players, `[B, N]` each."""

    reward: Tensor
    discount: Tensor
    present: Tensor


class SignalMixer:
    """Computes the players' signals and row weights from agents' rewards, discounts and presence."""

    def __init__(self, agents: AgentsSpec, players: PlayersSpec, algorithm: AlgorithmSpec, like: Tensor) -> None:
        """Takes the number type and the device from `like`."""
        members = [list(members_of(agents, player)) for player in players.agents]
        # Tensors, because a list as index is copied to the device in every update, which no CUDA graph captures.
        self._members = [torch.tensor(numbers, device=like.device) for numbers in members]
        self._scale = algorithm.reward_scale
        team_sides = sides_with_one_critic(players, algorithm)
        self._has_teams = bool(team_sides)
        has_spirit = self._has_teams or algorithm.team_spirit > 0.0 or algorithm.final_team_spirit is not None
        self._same_side = torch.tensor([[float(a.team == b.team) for b in agents.agents] for a in agents.agents]).to(
            like
        )
        self._is_team = torch.tensor([agent.team in team_sides for agent in agents.agents], device=like.device)
        """Whether each agent learns the mean reward of its side alone `[agents]`."""
        self._mean_of = like.new_zeros(len(agents.agents), len(players.agents))
        for player, numbers in enumerate(members):
            self._mean_of[numbers, player] = 1.0 / len(numbers)
        self._merges = len(players.agents) < len(agents.agents)
        signal_agents = [
            [i for i, agent in enumerate(agents.agents) if agent.team == player.team]
            if player.team in team_sides
            else numbers
            for player, numbers in zip(players.agents, members, strict=True)
        ]
        self._signal_agents = [torch.tensor(numbers, device=like.device) for numbers in signal_agents]
        """The agents whose discount and presence each player has."""
        self._mixes = self._merges or has_spirit or algorithm.reward_scale != 1.0
        self._matrix = torch.empty_like(self._mean_of)
        self.set_team_spirit(algorithm.team_spirit)
        owners = [i for i, agent in enumerate(agents.agents) for _ in range(agent.action_dim)]
        self._agent_of = torch.tensor(owners, device=like.device)
        self.player_of = torch.tensor(
            [i for i, player in enumerate(players.agents) for _ in range(player.action_dim)], device=like.device
        )
        """The player of each number of the joint action `[U]`."""
        lengths = torch.tensor([float(players.agents[i].action_dim) for i in self.player_of.tolist()])
        self._penalty = (algorithm.action_regularisation / lengths.to(like))[:, None]

    def set_team_spirit(self, spirit: float) -> None:
        """Sets the fraction of the side's mean reward in each agent's reward, 0 to 1; a team critic always has 1."""
        side_mean = self._same_side / self._same_side.sum(0, keepdim=True)
        identity = torch.eye(len(side_mean)).to(side_mean)
        mixed = torch.where(self._is_team, side_mean, (1.0 - spirit) * identity + spirit * side_mean)
        self._matrix.copy_(mixed @ self._mean_of * self._scale)

    def signals(self, batch: LossBatch) -> PlayerSignals:
        """Returns the players' signals of a batch."""
        reward = batch.reward @ self._matrix if self._mixes else batch.reward
        if batch.reward_factor is not None:
            reward = reward * batch.reward_factor
        if not self._merges and not self._has_teams:
            return PlayerSignals(reward, batch.discount, batch.present)
        agents = self._signal_agents
        return PlayerSignals(reward, _any(batch.discount, agents), _any(batch.present, agents))

    def row_weights(self, batch: LossBatch, signals: PlayerSignals) -> RowWeights:
        """Returns the weights of a batch's rows in the losses."""
        rows = present = _fractions(signals.present)
        if self._has_teams:
            present = _fractions(_any(batch.present, self._members))
        penalty = (present.index_select(0, self.player_of) * self._penalty).t()
        if batch.complete:
            return RowWeights(rows, present, penalty, None, None)
        alive = batch.present * (batch.discount > 0)
        return RowWeights(rows, present, penalty, self.acting(batch.present), self.acting(alive))

    def acting(self, present: Tensor) -> Tensor:
        """Returns the presence of each agent `[B, agents]` in the columns of its action `[B, U]`."""
        return present.index_select(1, self._agent_of)


def _any(by_agent: Tensor, agents: Sequence[Tensor]) -> Tensor:
    """Returns the largest value of each player's agents `[B, N]`: it continues as long as one of its agents does."""
    return torch.stack([by_agent.index_select(1, numbers).amax(1) for numbers in agents], 1)


def _fractions(present: Tensor) -> Tensor:
    """Returns the weight of each row in a mean over the rows with the player `[N, B]`, from presence `[B, N]`."""
    mask = present.t()
    return mask / mask.sum(1, keepdim=True).clamp_(min=1.0)
