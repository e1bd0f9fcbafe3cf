"""The one update of all players' critics and policies: MADDPG (Lowe et al. 2017) and its family (layout.py).

    N players     C critics, one or two a player     B rows of the batch
    O, U  length of the joint observation, of the joint action
    obs, action, reward, discount, next_obs      the transition; `next_` is one step later
    q, q'                                        values by the critics, by their targets

For player i, over the rows in which it is present:

    y_i   = reward_i + gamma * discount_i * min q'_i(next_obs, pi'(next_obs) + noise)      (Lowe et al., equation 6)
    critic loss_i = mean loss(q_i(obs, action) - y_i)                                      one for each of its critics
    policy loss_i = -mean q_i(obs, action with player i's replaced by pi_i(obs_i)) + lambda * mean logits_i^2   (eq. 5)

The minimum over two critics and the noise are matd3's alone. A time limit is no end of the task: `discount` stays 1
there and y bootstraps from `next_obs`, the true final observation. An agent that is gone next step acts nothing then:
its share of pi' is zero, as in stored actions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.run.players import players
from common.run.run import AlgorithmSpec, NetworkSpec
from common.spec import AgentsSpec
from learner_node.stacked.heads import Heads, gumbel_noise
from learner_node.stacked.layout import NetworkLayout, network_layout
from learner_node.stacked.losses import (
    LossBatch,
    RowWeights,
    add_logit_penalty_gradient,
    critic_loss_gradient,
    critic_loss_slope,
    td_target,
)
from learner_node.stacked.networks import cohorts, policy_pieces
from learner_node.stacked.parameters import trained_critics, trained_policies
from learner_node.stacked.rewards import PlayerSignals, SignalMixer
from learner_node.stacked.update_stats import PolicyStats, UpdateStats
from learner_node.stacked.workspace import Workspace


class StackedUpdate:
    """All players' critics and policies, and the update that trains them together."""

    def __init__(
        self, agents: AgentsSpec, network: NetworkSpec, algorithm: AlgorithmSpec, seed: int, like: Tensor
    ) -> None:
        """Starts from seeded parameters, of the number type and on the device of `like`."""
        self.agents, self.players = agents, players(agents, algorithm.name)
        self.network, self.algorithm = network, algorithm
        self.plan: NetworkLayout = network_layout(self.players, network, algorithm)
        self.generator = torch.Generator(like.device).manual_seed(seed)
        self.heads = Heads(agents, like, algorithm.gumbel, algorithm.gumbel_temperature, network.head)
        self.rewards = SignalMixer(agents, self.players, algorithm, like)
        rates = [algorithm.side_learning_rates.get(player.team, 1.0) for player in self.players.agents]
        made, clip = (self.players, network, self.plan, rates), algorithm.gradient_clip
        self.policies = trained_policies(*made, decay=algorithm.policy_weight_decay, clip=clip, seed=seed, like=like)
        self.critics = trained_critics(*made, decay=algorithm.critic_weight_decay, clip=clip, seed=seed, like=like)
        self._judges = self.critics.online.first_ones(len(self.players.agents))
        self._owners = torch.tensor([critic.player for critic in self.plan.critics], device=like.device)
        self._twins = torch.tensor(self.plan.twins, dtype=torch.int64, device=like.device)
        smooth = torch.tensor([self.plan.smooths[i] for i in self.rewards.player_of.tolist()], device=like.device)
        self._reach = self.heads.reach * smooth if any(self.plan.smooths) else None
        self._memory = self._memory_of(0)
        of_actions = self._judges.first_weight[:, agents.obs_dim :]
        self._own_weights = [
            of_actions[run.agents, run.action].view(run.size, run.size, run.action_dim, -1).diagonal().movedim(-1, 0)
            for run in cohorts(self.players)
        ]
        """Per cohort its first critics' first weights for their own player's action `[n, u, H]`."""

    @torch.inference_mode()
    def update(
        self, batch: LossBatch, policy_learning_rate: float, critic_learning_rate: float, *, policies: bool = True
    ) -> UpdateStats:
        """Trains critics, then policies and all targets unless it is not their turn, all on one batch."""
        self.set_rates(policy_learning_rate, critic_learning_rate)
        return self.step(batch, policies=policies)

    def set_rates(self, policy_learning_rate: float, critic_learning_rate: float) -> None:
        """Sets the learning rates of the updates to come."""
        self.policies.adam.rate.fill_(policy_learning_rate)
        self.critics.adam.rate.fill_(critic_learning_rate)

    @torch.inference_mode()
    def step(self, batch: LossBatch, *, policies: bool) -> UpdateStats:
        """Does the update with the rates set: nothing but work on tensors, the same for every batch of one size."""
        self._memory_for(len(batch.joint))
        told = self.rewards.told(batch)
        shares = self._shares_of(batch, told)
        error = self._critic_error(batch, told, shares)
        squared_norms = self._update_critics(batch, error, shares)
        policy = None
        if policies:
            policy = self._update_policies(shares)
            self.critics.follow(self.algorithm.target_rate)
            self.policies.follow(self.algorithm.target_rate)
        return UpdateStats(self.plan, self.algorithm, error, shares, squared_norms, policy, self.rewards.player_of)

    @torch.inference_mode()
    def logits(self, obs: Tensor) -> Tensor:
        """Returns the policies' logits `[B, U]` for observations `[B, O]`, valid until the next call."""
        policy = self._memory_for(len(obs)).policy
        return policy.forward(self.policies.online, policy.own_obs(obs))

    @torch.inference_mode()
    def td_targets(self, batch: LossBatch) -> Tensor:
        """Returns `y` `[N, B]` by the target networks."""
        self._memory_for(len(batch.joint))
        told = self.rewards.told(batch)
        return self._td_targets(batch, told, self._shares_of(batch, told))

    def policy_weights(self) -> npt.NDArray[np.float32]:
        """Returns all policies in the flat layout of common/policy/network.py."""
        pieces = [
            piece.flatten()
            for i in range(len(self.players.agents))
            for piece in policy_pieces(self.policies.online, self.players, i)
        ]
        flat: npt.NDArray[np.float32] = torch.cat(pieces).float().cpu().numpy()
        return flat

    def _memory_of(self, rows: int) -> Workspace:
        return Workspace(self.players, self.network, len(self.plan.critics), rows, self.policies.stored)

    def _memory_for(self, rows: int) -> Workspace:
        if len(self._memory.now) != rows:
            self._memory = self._memory_of(rows)
        return self._memory

    def _shares_of(self, batch: LossBatch, told: PlayerSignals) -> RowWeights:
        if not batch.complete:
            return self.rewards.shares(batch, told)
        if self._memory.shares is None:
            self._memory.shares = self.rewards.shares(batch, told)
        return self._memory.shares

    # ---- critics --------------------------------------------------------------------------------------------------

    def _td_targets(self, batch: LossBatch, told: PlayerSignals, shares: RowWeights) -> Tensor:
        memory = self._memory
        memory.next_obs.copy_(batch.next_obs)
        logits = memory.policy.forward(self.policies.target, memory.own_next_obs)
        actions = self.heads.greedy(logits, memory.actions)
        _put(self._smoothed(actions), shares.acts_next, memory.next_action)
        memory.critic.first(self.critics.target, memory.critics_next)
        values = self._lower(memory.critic.rest(self.critics.target))
        return td_target(told.reward, told.discount, values, self.algorithm.discount)

    def _smoothed(self, actions: Tensor) -> Tensor:
        """Returns target actions with clipped noise, within their bounds (Fujimoto et al. 2018, equation 14)."""
        if self._reach is None:
            return actions
        algorithm = self.algorithm
        # Turned, because torch draws far faster into contiguous memory.
        turned = torch.empty_like(actions.t()).normal_(0.0, algorithm.smoothing, generator=self.generator)
        noise = turned.clamp_(-algorithm.smoothing_clip, algorithm.smoothing_clip).t()
        actions.addcmul_(self.heads.couple(noise), self._reach)
        return torch.clamp(actions, self.heads.low, self.heads.high, out=actions)

    def _lower(self, values: Tensor) -> Tensor:
        """Returns each player's value `[N, B]`: the lower one of its critics' `[C, B]`."""
        players = len(self.players.agents)
        if len(values) == players:
            return values
        first, second = values[:players], values[players:]
        if len(second) == players:
            return torch.minimum(first, second)
        first.index_copy_(0, self._twins, torch.minimum(first.index_select(0, self._twins), second))
        return first

    def _critic_error(self, batch: LossBatch, told: PlayerSignals, shares: RowWeights) -> Tensor:
        """Runs the critics forward; returns by how much their values miss the target `[C, B]`."""
        memory, target = self._memory, self._td_targets(batch, told, shares)
        memory.joint.copy_(batch.joint)
        memory.critic.first(self.critics.online, memory.critics_now)
        return memory.critic.rest(self.critics.online) - self._of_critics(target)

    def _of_critics(self, players: Tensor) -> Tensor:
        """Repeats what is said of players `[N, B]` for their critics `[C, B]`."""
        return players.index_select(0, self._owners) if len(self._twins) else players

    def _update_critics(self, batch: LossBatch, error: Tensor, shares: RowWeights) -> Tensor:
        memory, critics = self._memory, self.critics
        slope = self._slope_of(batch, shares)
        critic_loss_gradient(error, slope, self.algorithm.critic_loss, memory.critic.d_values)
        memory.critic.backward(critics.online, critics.gradient, memory.critics_now)
        return critics.step()

    def _slope_of(self, batch: LossBatch, shares: RowWeights) -> Tensor:
        lasts = batch.complete and batch.importance is None
        if lasts and self._memory.slope is not None:
            return self._memory.slope
        rows = self._of_critics(shares.rows)
        if batch.importance is not None:
            rows = rows * batch.importance
        slope = critic_loss_slope(rows, self.algorithm.critic_loss)
        if lasts:
            self._memory.slope = slope
        return slope

    # ---- policies -------------------------------------------------------------------------------------------------

    def _update_policies(self, shares: RowWeights) -> PolicyStats:
        policies, memory = self.policies, self._memory
        logits = memory.policy.forward(policies.online, memory.own_obs)
        sample = self.heads.sample(logits, self._noise(len(logits)), memory.actions)
        self._first_of_current(shares, sample.actions)
        values = memory.judge.rest(self._judges)
        memory.judge.input_backward(self._judges, shares.rows)
        d_logits = self.heads.backward(sample, self._own_action_gradient(), memory.policy.d_logits)
        add_logit_penalty_gradient(d_logits, logits, shares)
        memory.policy.backward(policies.online, policies.gradient, memory.own_obs)
        return PolicyStats(logits, values, policies.step())

    def _noise(self, rows: int) -> Tensor | None:
        if not self.heads.choices:
            return None
        return gumbel_noise(rows, self.heads.choices, self.policies.stored, self.generator)

    def _first_of_current(self, shares: RowWeights, actions: Tensor) -> None:
        """Starts the critics' pass with each critic's own player acting by its current policy.

        With teammates as stored, only the own action's share of the first product differs from critic to critic.
        """
        memory = self._memory
        if self.algorithm.teammates == "current":
            _put(actions, shares.acts, memory.action)
            memory.judge.first(self._judges, memory.judges_now)
            return
        memory.judge.first(self._judges, memory.judges_now)
        torch.sub(actions, memory.action, out=memory.change)
        for own, weight in zip(memory.own, self._own_weights, strict=True):
            own.first.baddbmm_(own.change, weight)

    def _own_action_gradient(self) -> Tensor:
        """Returns what each player's own action changes in its policy's loss, minus its own critic's value `[B, U]`."""
        memory = self._memory
        for own, weight in zip(memory.own, self._own_weights, strict=True):
            torch.baddbmm(own.d_action, weight, own.d_first, beta=0, alpha=-1, out=own.d_action)
        return memory.d_action


def _put(actions: Tensor, acts: Tensor | None, into: Tensor) -> None:
    """Writes joint actions `[B, U]`, with zeros for agents that do not act."""
    if acts is None:
        into.copy_(actions)
    else:
        torch.mul(actions, acts, out=into)
