"""Normalisation of observations and rewards, by running statistics of the sampled transitions.

    obs'    = (obs - shift) * scale      for each column, pooled over the players that share a network
    reward' = reward * factor            for each player, pooled over the players that share a critic

Networks and Adam's steps suit numbers of a size near 1, whatever units an environment counts in. The learner alone
keeps the statistics: it normalises each batch before the update, and `fold` multiplies the affine map into the first
layer of the policies that the learner publishes. So actors, policy files and exports see raw observations and know
nothing of this, and each version of the weights carries exactly its own statistics.

    O  columns of the joint observation     S  sets of statistics, O if no players share
    B  rows of the batch                    N  players

Statistics are float64, on the device of the update: they are tensors that stay in place, as CUDA graphs need.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from common.policy.heads import Floats
from common.policy.network import unflatten
from common.run.players import members_of
from common.run.run import AlgorithmSpec, NetworkSpec
from common.spec import AgentsSpec, PlayersSpec
from learner_node.update.batches import LossBatch
from learner_node.update.layout import NetworkLayout
from learner_node.update.signals import PlayerSignals

LARGEST = 30.0
"""Bound of normalised observations and rewards. The scale includes the largest deviation seen (of rewards: the largest
size), so seen numbers stay within it; `apply` clamps the other observations."""
FIRST_UPDATES, UPDATES_PERIOD = 1_000, 8
"""Updates whose batches are all added to the statistics, and the period of later updates that are: statistics cost 5 to
20 % of an update, and change little later."""
RESOLUTION = 2.0**-22
"""A column whose spread is at most this fraction of its size is constant: its spread is at most about four float32
steps."""
SMALLEST_SPREAD = 1e-30
"""Smallest spread that scales are computed from: folded weights must be finite in float32."""
SHORTEST_DECAY = 1e-3
"""Smallest `1 - gamma^(2n)` that reward factors are computed from, reached at horizons of about 2,000 steps. It is the
decay of a squared reward's weight in the return, from one sampled reward to the next: 0 without discounting."""
_UNSEEN = torch.finfo(torch.float64).max
"""`low` starts at +this, `high` at -this. Finite, because checkpoints accept finite numbers only."""


class ObservationStatistics:
    """Running mean, variance and extremes of the columns of joint observations, and the affine map that follows.

    Also those of global states, whose columns belong to no agent.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        agent_of: Sequence[int],
        merged: Container[int],
        like: Tensor,
        mask_columns: Container[int] = (),
    ) -> None:
        """Starts without any observation.

        groups: the columns of each statistic. agent_of: the agent of each column; empty for global states. merged: the
        agents whose player acts for several agents. mask_columns: the columns of action masks, which stay as they are.
        """
        self._pool = _Pool(groups, like.device)
        self.count, self.mean, self.squares, self.low, self.high = self._pool.zeros(5)
        """Number of observations, their mean, the sum of their squared deviations from it, and extremes `[S]`."""
        self.low += _UNSEEN
        self.high -= _UNSEEN
        width = sum(map(len, groups))
        self.shift, self.scale = like.new_zeros(width), like.new_zeros(width)
        """The map of each column, `(obs - shift) * scale` `[O]`, in the number type of batches."""
        self._agent_of = torch.tensor(agent_of, device=like.device)
        self._is_merged = torch.tensor([agent in merged for agent in agent_of], device=like.device)
        """Whether each column is of an agent whose player acts for several agents `[O]`."""
        self._is_mask: Tensor | None = None
        """Whether each column is a number of an action mask `[O]`; None without masks."""
        if mask_columns:
            self._is_mask = torch.tensor([column in mask_columns for column in range(width)], device=like.device)
        self._exempt_masks()

    @classmethod
    def of_observations(
        cls, agents: AgentsSpec, players: PlayersSpec, layout: NetworkLayout, like: Tensor
    ) -> ObservationStatistics:
        """Returns the statistics of joint observations."""
        groups = [
            [players.agents[player].obs_start + k for player in group]
            for group in _sharing_players(players, layout)
            for k in range(players.agents[group[0]].obs_dim)
        ]
        agent_of = [i for i, agent in enumerate(agents.agents) for _ in range(agent.obs_dim)]
        members = [members_of(agents, player) for player in players.agents]
        merged = {agent for group in members if len(group) > 1 for agent in group}
        return cls(groups, agent_of, merged, like, {column for column, _ in agents.mask_columns})

    @classmethod
    def of_states(cls, state_dim: int, like: Tensor) -> ObservationStatistics:
        """Returns the statistics of global states; `update` and `apply` take them without presence."""
        return cls([[column] for column in range(state_dim)], [], (), like)

    def update(self, obs: Tensor, present: Tensor | None) -> None:
        """Merges a batch of joint observations `[B, O]` (Chan et al. 1979, equation 2.1).

        present: 1 where an agent acts `[B, agents]`; None = everywhere.
        """
        rows, pool = obs.double(), self._pool
        count, seen, low_rows, high_rows = pool.sizes * len(rows), rows, rows, rows
        if present is not None:
            is_present = present.index_select(1, self._agent_of) > 0
            # A player of several agents reads the zeros of absent ones, which must not exceed the bound either.
            is_read = is_present | self._is_merged
            count, seen = pool.sum(is_present.sum(0, dtype=torch.float64)), rows * is_present
            low_rows, high_rows = rows.masked_fill(~is_read, _UNSEEN), rows.masked_fill(~is_read, -_UNSEEN)
        mean = pool.sum(seen.sum(0)) / count.clamp(min=1.0)
        deviation = rows - pool.expand(mean)
        if present is not None:
            deviation.mul_(is_present)
        squares = pool.sum(deviation.square_().sum(0))
        difference = mean - self.mean
        self.count.add_(count)
        # The batch's fraction of all observations so far.
        fraction = count / self.count.clamp(min=1.0)
        self.squares.add_(squares).add_(difference.square().mul_(self.count - count).mul_(fraction))
        self.mean.addcmul_(difference, fraction)
        torch.minimum(self.low, pool.lowest(low_rows.amin(0)), out=self.low)
        torch.maximum(self.high, pool.highest(high_rows.amax(0)), out=self.high)
        self.refresh()

    def refresh(self) -> None:
        """Computes the map of each column from the statistics.

        The scale is `1 / max(std, largest deviation / LARGEST)`, and 0 for a column that never varied: its value then
        reaches no network, however large it is. Action masks stay as they are, because logits are lowered by them.
        """
        std = (self.squares / self.count.clamp(min=1.0)).sqrt_()
        largest = torch.maximum(self.high - self.mean, self.mean - self.low)
        spread = torch.maximum(std, largest / LARGEST)
        is_constant = spread <= RESOLUTION * torch.maximum(self.high.abs(), self.low.abs())
        scale = spread.clamp(min=SMALLEST_SPREAD).reciprocal_().masked_fill_(is_constant, 0.0)
        self.shift.copy_(self._pool.expand(self.mean))
        self.scale.copy_(self._pool.expand(scale))
        self._exempt_masks()

    def _exempt_masks(self) -> None:
        """Makes the map of action masks the identity."""
        if self._is_mask is not None:
            self.shift.masked_fill_(self._is_mask, 0.0)
            self.scale.masked_fill_(self._is_mask, 1.0)

    def apply(self, obs: Tensor, present: Tensor | None) -> None:
        """Normalises joint observations `[B, O]` in place; those of absent agents become 0.

        present: 1 where an agent acts `[B, agents]`; None = everywhere.
        """
        # Only numbers that are not in the statistics, such as last observations of episodes, can exceed the bound.
        obs.sub_(self.shift).mul_(self.scale).clamp_(-LARGEST, LARGEST)
        if present is not None:
            # A joint player also reads its absent agents. In actor processes their raw zeros go through the folded map;
            # the same is done here.
            is_read = (present.index_select(1, self._agent_of) > 0) | self._is_merged
            obs.mul_(is_read)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The statistics themselves, by name."""
        names = ("count", "mean", "squares", "low", "high")
        return {name: getattr(self, name) for name in names}


class RewardStatistics:
    """Running mean square and largest size of the players' rewards, and the factor that follows from them.

    The factor divides by `sqrt(E[reward^2] / (1 - gamma^(2n)))`, which is the root mean square of the discounted
    return if rewards are independent with mean 0. baselines' VecNormalize divides by the standard deviation of the
    discounted return; a replay samples no whole returns, so it is computed from single rewards. Values are then of a
    size between 1 and `sqrt((1 + gamma) / (1 - gamma))`, the value of a constant reward. Rewards are never shifted,
    because that would change the task.
    """

    def __init__(
        self, players: int, layout: NetworkLayout, algorithm: AlgorithmSpec, n_step: int, like: Tensor
    ) -> None:
        """Starts without any reward; n_step: number of steps that a sampled reward sums over."""
        networks = layout.critic_networks[:players]
        self._pool = _Pool(_by_network(networks), like.device)
        self.count, self.mean_square, self.largest = self._pool.zeros(3)
        """Number of rewards, mean of their squares, and the largest absolute reward, by critic network."""
        self.factor = like.new_ones(players)
        """Factor on each player's reward `[N]`."""
        # algorithm.reward_scale applies to normalised rewards.
        self._unscaled = 1.0 / algorithm.reward_scale
        self._decay = max(1.0 - algorithm.discount ** (2 * n_step), SHORTEST_DECAY)

    def update(self, reward: Tensor, present: Tensor) -> None:
        """Merges a batch of the players' rewards and presence `[B, N]`."""
        rewards, pool = (reward * present).double(), self._pool
        count = pool.sum(present.sum(0, dtype=torch.float64))
        squares = pool.sum(rewards.square().sum(0)).mul_(self._unscaled**2)
        self.count.add_(count)
        self.mean_square.add_((squares - self.mean_square * count) / self.count.clamp(min=1.0))
        largest = pool.highest(rewards.abs_().amax(0)).mul_(self._unscaled)
        torch.maximum(self.largest, largest, out=self.largest)
        self.refresh()

    def refresh(self) -> None:
        """Computes the factors from the statistics."""
        size = torch.maximum((self.mean_square / self._decay).sqrt_(), self.largest / LARGEST)
        factor = size.clamp(min=SMALLEST_SPREAD).reciprocal_().masked_fill_(size == 0.0, 1.0)
        self.factor.copy_(self._pool.expand(factor))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The statistics themselves, by name."""
        return {"count": self.count, "mean_square": self.mean_square, "largest": self.largest}


class Normaliser:
    """What a run normalises: nothing, observations, rewards, or both.

    Example:
        normaliser = Normaliser(run.joint, run.players, spec.network, spec.algorithm, layout, n_step=1, like=like)
        normaliser.observe(batch, signals)
        batch = normaliser.normalise(batch)
        flat = normaliser.fold(flat)
    """

    def __init__(
        self,
        agents: AgentsSpec,
        players: PlayersSpec,
        network: NetworkSpec,
        algorithm: AlgorithmSpec,
        layout: NetworkLayout,
        *,
        n_step: int,
        like: Tensor,
    ) -> None:
        """Starts without any statistics, for batches with the number type and on the device of `like`.

        n_step: number of steps that a sampled reward sums over.
        """
        self._players, self._network = players, network
        self._obs = slice(0, players.obs_dim)
        self._state = slice(players.obs_dim + players.action_dim, players.critic_input_dim)
        self.observations: ObservationStatistics | None = None
        self.state: ObservationStatistics | None = None
        """Statistics of the global state, which is normalised as observations are."""
        self.rewards: RewardStatistics | None = None
        if algorithm.normalises_observations:
            self.observations = ObservationStatistics.of_observations(agents, players, layout, like)
            if players.state_dim:
                self.state = ObservationStatistics.of_states(players.state_dim, like)
        if algorithm.normalises_rewards:
            self.rewards = RewardStatistics(len(players.agents), layout, algorithm, n_step, like)

    @property
    def is_active(self) -> bool:
        """Whether the run normalises anything."""
        return self.observations is not None or self.rewards is not None

    def is_due(self, updates: int) -> bool:
        """Returns whether the batch of update number `updates + 1` is to be added to the statistics."""
        return self.is_active and (updates < FIRST_UPDATES or updates % UPDATES_PERIOD == 0)

    @property
    def reward_factor(self) -> Tensor | None:
        """Factor on each player's reward `[N]`, a tensor that stays in place; None = 1."""
        return self.rewards.factor if self.rewards else None

    def observe(self, batch: LossBatch, signals: PlayerSignals) -> None:
        """Adds a batch, and its players' rewards before normalisation, to the statistics."""
        if self.observations:
            # In a complete batch every agent acts in every row.
            self.observations.update(batch.obs_action[:, self._obs], None if batch.complete else batch.present)
        if self.state:
            self.state.update(batch.obs_action[:, self._state], None)
        if self.rewards:
            self.rewards.update(signals.reward, signals.present)

    def normalise(self, batch: LossBatch) -> LossBatch:
        """Returns a batch normalised by the statistics so far; its observations and states are overwritten."""
        if self.observations:
            present = next_present = None
            if not batch.complete:
                # An agent that terminates is absent in the next step.
                present, next_present = batch.present, batch.present * (batch.discount > 0)
            self.observations.apply(batch.obs_action[:, self._obs], present)
            self.observations.apply(batch.next_obs, next_present)
        if self.state and batch.next_state is not None:
            self.state.apply(batch.obs_action[:, self._state], None)
            self.state.apply(batch.next_state, None)
        return replace(batch, reward_factor=self.reward_factor) if self.rewards else batch

    def fold(self, flat: Floats) -> Floats:
        """Returns flat policies for raw observations, from the flat policies for normalised ones.

        `(obs - shift) * scale @ W + b = obs @ W' + (b - shift @ W')` with `W' = scale * W`, computed in float64. The
        biases are computed from the rounded weights, so that rounding the weights costs nothing where `obs = shift`.
        """
        if self.observations is None:
            return flat
        folded = flat.copy()
        shift, scale = (tensor.double().cpu().numpy() for tensor in (self.observations.shift, self.observations.scale))
        policies = unflatten(folded, self._players, self._network)
        for player, policy in zip(self._players.agents, policies, strict=True):
            columns, first = player.obs_slice, policy.first
            first.weight[:] = scale[columns, None] * first.weight.astype(np.float64)
            first.bias[:] = first.bias - shift[columns] @ first.weight.astype(np.float64)
        return folded

    def tensors(self) -> dict[str, Tensor]:
        """Returns copies of all statistics on the CPU, by name; empty if the run normalises nothing."""
        return {name: tensor.to("cpu", copy=True) for name, tensor in self._buffers().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Replaces all statistics by what `tensors` returned."""
        for name, tensor in self._buffers().items():
            tensor.copy_(tensors[name])
        for part in (self.observations, self.state, self.rewards):
            if part:
                part.refresh()

    def _buffers(self) -> dict[str, Tensor]:
        """Returns the statistics themselves, by name."""
        observations = self.observations.tensors if self.observations else {}
        state = self.state.tensors if self.state else {}
        rewards = self.rewards.tensors if self.rewards else {}
        return {
            **{f"observation_{name}": tensor for name, tensor in observations.items()},
            **{f"state_{name}": tensor for name, tensor in state.items()},
            **{f"reward_{name}": tensor for name, tensor in rewards.items()},
        }


class _Pool:
    """Sums and extremes over the columns that share their statistics."""

    def __init__(self, groups: Sequence[Sequence[int]], device: torch.device) -> None:
        """groups: the columns of each statistic; together all columns, each once."""
        longest, columns = max(map(len, groups)), sum(map(len, groups))
        # A padded gather, because the sums of index_add_ depend on the order of a GPU's threads.
        padded = [[*group, *[columns] * (longest - len(group))] for group in groups]
        self._members = torch.tensor(padded, device=device)
        owner = {column: i for i, group in enumerate(groups) for column in group}
        self._owner = torch.tensor([owner[column] for column in range(columns)], device=device)
        self._is_identity = groups == [[column] for column in range(columns)]
        self.sizes = torch.tensor([float(len(group)) for group in groups], dtype=torch.float64, device=device)
        """Number of columns of each statistic `[S]`."""

    def zeros(self, count: int) -> list[Tensor]:
        """Returns statistics that are 0, `[S]` each."""
        return [torch.zeros_like(self.sizes) for _ in range(count)]

    def sum(self, columns: Tensor) -> Tensor:
        """Returns the sum over the columns of each statistic `[S]`, from numbers by column."""
        return columns if self._is_identity else self._gather(columns, 0.0).sum(1)

    def lowest(self, columns: Tensor) -> Tensor:
        """Returns the smallest number of the columns of each statistic `[S]`."""
        return columns if self._is_identity else self._gather(columns, _UNSEEN).amin(1)

    def highest(self, columns: Tensor) -> Tensor:
        """Returns the largest number of the columns of each statistic `[S]`."""
        return columns if self._is_identity else self._gather(columns, -_UNSEEN).amax(1)

    def expand(self, statistics: Tensor) -> Tensor:
        """Returns the statistic of each column, from `[S]`."""
        return statistics if self._is_identity else statistics.index_select(0, self._owner)

    def _gather(self, columns: Tensor, padding: float) -> Tensor:
        return torch.nn.functional.pad(columns, (0, 1), value=padding)[self._members]


def _sharing_players(players: PlayersSpec, layout: NetworkLayout) -> list[list[int]]:
    """Returns the players of each set of statistics: those that share a policy or a critic see by one scale.

    Players of a side that has one critic may have observations of several lengths, each with its own statistics.
    """
    policies, critics = layout.policy_networks, layout.critic_networks[: len(layout.policy_networks)]
    networks = policies if len(set(policies)) <= len(set(critics)) else critics
    return _by_network([(network, player.obs_dim) for network, player in zip(networks, players.agents, strict=True)])


def _by_network(networks: Sequence[Hashable]) -> list[list[int]]:
    """Returns the players of each network, from the network of each player."""
    return [[i for i, other in enumerate(networks) if other == network] for network in dict.fromkeys(networks)]
