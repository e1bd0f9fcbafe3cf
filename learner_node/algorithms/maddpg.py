"""MADDPG and its family as in the papers: torch modules, losses, autograd. The engine `autograd` of a run.

Notation of Lowe et al. 2017 (arXiv 1706.02275), algorithm 1. Players i = 1..N have observations o_i, actions a_i and
rewards r_i; x = (o_1 .. o_N). Policies are mu_i, critics are Q_i(x, a_1 .. a_N), primes mark target networks and the
next step. MATD3 (Ackermann et al. 2019, arXiv 1910.01465) adds the three changes of TD3 (Fujimoto et al. 2018,
arXiv 1802.09477): two critics with the lower value as target, target noise, and delayed policy updates.

    maddpg   Q_i reads everything          matd3   two such critics, target noise, policy delay 2
    iddpg    Q_i reads o_i and a_i alone   joint   maddpg, where a whole side is one player

masac.py changes what stochastic policies need (`masac`, `isac`), hatd3.py the order in which policies learn (`hatd3`,
`hasac`), networks/mixing_critics.py the critics (`facmac`), m3ddpg.py what critics read of other players (`m3ddpg`).

This page defines what a run learns: `td_target`, `critic_loss`, `policy_loss`, `soft_update`. The engine `stacked`
(learner_node/stacked/) computes the same with gradients written by hand, which is faster for small networks. Both agree
to 1e-9 in float64 (tests/learner_node/stacked/test_update.py).

Networks of equal sizes are one module (learner_node/networks/), and so all players are updated at once:

    N players     C critics: the first critics of all players, then the second ones of those that learn by matd3
    B rows of the batch     O, U, S  length of the joint observation, of the joint action, of the global state

Observations and rewards are normalised before the update, if a run asks for it (learner_node/update/normalisation.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from common.policy.masks import FORBIDDEN
from common.policy.network import Layer
from common.run.run import Run
from learner_node.algorithms.actions import Actions
from learner_node.algorithms.m3ddpg import WorstCase
from learner_node.networks.grouped import GroupedNetworks
from learner_node.networks.grouped_gru import Memories, unrolled
from learner_node.networks.groups import CriticGroups, PolicyGroups, position_of
from learner_node.networks.make_networks import make_critics, make_policies
from learner_node.networks.network_set import NetworkSet
from learner_node.networks.value_bins import ValueBins, cross_entropy
from learner_node.update.batches import LossBatch, RowWeights
from learner_node.update.draws import gumbel_noise
from learner_node.update.engine_base import EngineBase
from learner_node.update.signals import PlayerSignals
from learner_node.update.update_stats import PolicyStats, UpdateStats


class Maddpg(EngineBase):
    """The critics and policies of all players, and their update.

    Example:
        maddpg = Maddpg(run, torch.zeros(()))
        stats = maddpg.update(batch, policy_learning_rate=2e-3, critic_learning_rate=2e-3)
        flat = maddpg.policy_weights()
    """

    policies: NetworkSet
    critics: NetworkSet

    def __init__(self, run: Run, like: Tensor) -> None:
        """Draws the initial parameters from the run's seed, with the number type and on the device of `like`.

        ConfigError for settings that do not fit the run's agents.
        """
        super().__init__(run, like)
        network, algorithm, seed = self.network, self.algorithm, run.spec.seed
        self.actions = Actions(self.agents, like, algorithm.gumbel, algorithm.gumbel_temperature, network.head)
        self._n_step = run.spec.replay.n_step
        self._policy_groups = PolicyGroups(self.players, self.layout, like.device)
        self._critic_groups = CriticGroups(self.players, self.layout, network, like)
        self.bins = ValueBins(like) if algorithm.critic_loss == "hl_gauss" else None
        """The bins of critics that learn a distribution over values; else None."""
        groups = self._policy_groups.groups, self._critic_groups.groups
        self.policies = make_policies(self.players, groups[0], network, algorithm, seed=seed, like=like)
        self.critics = make_critics(self.players, self.layout, groups[1], network, algorithm, seed=seed, like=like)
        self._policy_critics = self.critics.frozen(self._critic_groups.policy_counts)
        """The critics that the policy loss reads, in the same memory, without gradients: it trains policies alone."""
        half_range = (self.actions.high - self.actions.low) / 2
        parts = self.players, self.layout, self._critic_groups, algorithm, half_range
        self._worst_case = WorstCase(*parts, values=self._values) if any(self.layout.minimax) else None
        """What the other players do in the critics of players that learn by m3ddpg; None if no player does."""
        is_noisy = [float(self.layout.target_noise[i]) for i in self.mixer.player_of.tolist()]
        self._is_noisy = torch.tensor(is_noisy).to(like)
        """1 for the numbers of the joint action whose targets carry noise, else 0 `[U]`."""

    # ---- the update -----------------------------------------------------------------------------------------------

    @torch.enable_grad()
    def step(self, batch: LossBatch, *, update_policies: bool) -> UpdateStats:
        """Updates all players once on a batch, with the learning rates of `set_rates`.

        update_policies: False updates the critics alone. With a policy delay of d, every d-th update includes the
        policies and all targets (Fujimoto et al. 2018, section 5.2).
        """
        # Departure from Lowe et al., algorithm 1: all players learn from one minibatch, not from one each.
        signals = self.mixer.signals(batch)
        row_weights = self.mixer.row_weights(batch, signals)
        target_q = self.td_target(batch, signals, row_weights)  # [N, B]
        memories = [one.before for one in self._memories(self.critics.online, self._critic_groups, batch)]
        inputs = self.critic_inputs(batch.obs_action, memories, row_weights.acting)
        target_q = target_q.index_select(0, self._critic_players)  # [C, B]
        if self.bins is None:
            td_error = self.q(self.critics.online, inputs) - target_q
            loss = self.critic_loss(td_error, batch, row_weights)
        else:
            logits = self.critic_outputs(self.critics.online, inputs)  # [C, B, M]
            td_error = self.bins.values(logits.detach()) - target_q
            loss = self.classification_loss(logits, self.bins.probabilities(target_q), batch, row_weights)
        squared_norms = self.critics.descend(loss)
        policy = None
        if update_policies:
            # No gradient of the policy loss flows into the memories of critics.
            policy = self.update_policies(batch, [rows.detach() for rows in inputs], row_weights)
            self.soft_update(self.algorithm.target_rate)
        return self.update_stats(batch, td_error.detach(), row_weights, squared_norms, policy)

    @torch.no_grad()
    def td_target(self, batch: LossBatch, signals: PlayerSignals, row_weights: RowWeights) -> Tensor:
        """Returns `y_i = r_i + gamma * discount_i * min_k Q'_ik(x', mu'(o') + noise)` `[N, B]`.

        Lowe et al. 2017, equation 6. Only matd3 has the minimum and the noise.
        """
        next_logits = self.lower_forbidden(self.next_outputs(self.policies.target, batch), batch.next_obs)
        next_action = self.with_target_noise(self.target_action(next_logits))
        return self.returns(batch, signals, self.next_q(batch, next_action, row_weights))

    def returns(self, batch: LossBatch, signals: PlayerSignals, next_value: Tensor) -> Tensor:
        """Returns `r_i + gamma * discount_i * V'_i` `[N, B]` for values V' of the next states `[N, B]`.

        In sequences, up to `replay.n_step` rewards are summed before a value follows, fewer where a sequence ends. In
        batches of single transitions, the replay server has summed them.
        """
        # The discount is 0 where the player terminated. A time limit is not an end of the task: there the discount
        # stays 1, and the target bootstraps from next_obs, the true final observation.
        reward, discount = signals.reward.t(), self.algorithm.discount * signals.discount.t()
        value = reward + discount * next_value
        if batch.sequences is not None:
            for _ in range(self._n_step - 1):
                value = reward + discount * torch.where(batch.sequences.continues, value.roll(-1, 1), next_value)
        return value

    def target_action(self, logits: Tensor) -> Tensor:
        """Returns mu'(o') `[B, U]` from the logits of the target policies."""
        if self.algorithm.target_actions == "sampled":
            # Departure, a setting: openai/maddpg draws target actions as actors draw theirs.
            logits = self.actions.with_gumbel(logits, self.gumbel_noise(len(logits)))
        return self.actions.greedy(logits)

    def with_target_noise(self, next_action: Tensor) -> Tensor:
        """Returns the next actions `[B, U]` plus clipped noise for players that learn by matd3.

        Target policy smoothing (Fujimoto et al. 2018, section 5.3), in units of half the action's range.
        """
        if not any(self.layout.target_noise):
            return next_action
        bound = self.algorithm.smoothing_clip
        noise_t = torch.empty_like(next_action.t(), memory_format=torch.contiguous_format)
        noise = noise_t.normal_(0.0, self.algorithm.smoothing, generator=self.generator).clamp_(-bound, bound).t()
        return self.actions.add_target_noise(next_action, noise * self._is_noisy)

    def next_q(self, batch: LossBatch, next_action: Tensor, row_weights: RowWeights) -> Tensor:
        """Returns `min_k Q'_ik(x', a')` `[N, B]` for next actions a' `[B, U]`."""
        # An agent that is absent in the next step has a next action of zeros, as in stored transitions.
        next_action = _of_acting(next_action, row_weights.next_acting)
        next_state = [] if batch.next_state is None else [batch.next_state]
        next_input = torch.cat([batch.next_obs, next_action, *next_state], 1)
        memories = [one.after for one in self._memories(self.critics.target, self._critic_groups, batch)]
        inputs = self.critic_inputs(next_input, memories, row_weights.next_acting)
        if self._worst_case is not None:
            unchanged = [None] * len(inputs)
            inputs = self._worst_case.inputs(self.critics.target, inputs, row_weights.next_acting, unchanged)
        return self.min_q(self.q(self.critics.target, inputs))

    def critic_loss(self, td_error: Tensor, batch: LossBatch, row_weights: RowWeights) -> Tensor:
        """Returns `E[(Q_i(x, a_1 .. a_N) - y_i)^2]`, summed over the critics (Lowe et al. 2017, equation 6).

        td_error: `Q_i - y_i` `[C, B]`. The mean is over the rows in which the player is present.
        """
        if self.algorithm.critic_loss == "huber":
            # Departure, a setting: Huber's loss bounds the gradient of a surprising reward.
            loss = nn.functional.smooth_l1_loss(td_error, torch.zeros_like(td_error), reduction="none")
        else:
            loss = td_error.square()
        return self._mean_over_rows(loss, batch, row_weights)

    def classification_loss(
        self, logits: Tensor, probabilities: Tensor, batch: LossBatch, row_weights: RowWeights
    ) -> Tensor:
        """Returns the cross-entropy of critics that learn a distribution over values, summed over the critics.

        logits: of M bins `[C, B, M]`. probabilities: those of the bins for the targets y_i `[C, B, M]`. Departure, a
        setting: Farebrother et al. 2024 (arXiv 2403.03950), section 3.1; value_bins.py has the bins.
        """
        return self._mean_over_rows(cross_entropy(logits, probabilities), batch, row_weights)

    def _mean_over_rows(self, loss: Tensor, batch: LossBatch, row_weights: RowWeights) -> Tensor:
        """Returns the mean over rows of losses `[C, B]`, summed over the critics."""
        if batch.importance is not None:
            # Departure, a setting: prioritised replay (Schaul et al. 2016, section 3.4).
            loss = loss * batch.importance
        return (loss * self.critic_weights(row_weights)).sum()

    def update_policies(self, batch: LossBatch, inputs: Sequence[Tensor], row_weights: RowWeights) -> PolicyStats:
        """Updates the policies once; inputs: what the critics read of the batch."""
        loss, allowed_logits, q = self.policy_loss(batch, inputs, row_weights)
        squared_norms = self.descend_policies(loss, lambda: self.policy_loss(batch, inputs, row_weights)[0])
        return PolicyStats(allowed_logits.detach(), q.detach(), squared_norms)

    def descend_policies(self, loss: Tensor, next_loss: Callable[[], Tensor]) -> Tensor:  # noqa: ARG002
        """Does one step of all policies on their loss; returns the squared norms of their gradients, by network.

        next_loss: computes the loss of the policies as they are then, for policies that learn one after another
        (hatd3.py).
        """
        return self.policies.descend(loss)

    def policy_loss(
        self, batch: LossBatch, inputs: Sequence[Tensor], row_weights: RowWeights
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns `-E[Q_i(x, a_1 .. mu_i(o_i) .. a_N)] + lambda * mean logits_i^2`, summed over the players.

        Its gradient is the policy gradient of Lowe et al. 2017, equation 5, negated. With two critics, Q_i is the first
        (Fujimoto et al. 2018, algorithm 1). Also returns the logits `[B, U]`, 0 for forbidden choices, and the values
        Q_i `[N, B]`. inputs: what the critics read of the batch.
        """
        obs = self.split(batch.obs_action)[0]
        logits = self.lower_forbidden(self.current_outputs(self.policies.online, batch), obs)
        current = self.actions.differentiable(logits, self.gumbel_noise(len(logits)))
        q = self.q_of_current_actions(batch, inputs, current, row_weights)
        penalty, allowed_logits = self.logit_penalty(obs, logits, row_weights)
        return penalty - (q * self.critic_weights(row_weights)[: len(q)]).sum(), allowed_logits, q

    def q_of_current_actions(
        self, batch: LossBatch, inputs: Sequence[Tensor], current: Tensor, row_weights: RowWeights
    ) -> Tensor:
        """Returns `Q_i(x, a_1 .. mu_i(o_i) .. a_N)` of the critics in the policy loss.

        current: all mu_i(o_i) `[B, U]`. Shapes are those of `q_of_player_actions`.
        """
        obs, action, state = self.split(batch.obs_action)
        if any(self.layout.team_critic):
            # Departure, a setting of maddpg: all members of a team act by their current policies in the one critic that
            # they have, and learn from one gradient (FACMAC, Peng et al. 2021, section 4.2).
            current = _of_acting(current, row_weights.acting)
        if self.algorithm.teammates == "current":
            # Departure, a setting: the other players act by their current policies (FACMAC, Peng et al. 2021).
            current = _of_acting(current, row_weights.acting)
            action = current.detach()
            memories = [rows[..., -self.network.critic_hidden[-1] :] for rows in inputs] if batch.sequences else []
            inputs = self.critic_inputs(torch.cat([obs, action, state], 1), memories, row_weights.acting)
        # Each Q_i sees the current action of player i, and the actions of all others in `action`.
        change = current - action
        if self._worst_case is not None:
            read, changes = self._critic_groups.policy_inputs(inputs), self._critic_groups.player_action_changes(change)
            inputs = self._worst_case.inputs(self._policy_critics, read, row_weights.acting, changes)
        return self.q_of_player_actions(inputs, change)

    def logit_penalty(self, obs: Tensor, logits: Tensor, row_weights: RowWeights) -> tuple[Tensor, Tensor]:
        """Returns `lambda * mean logits^2`, summed over the players, and the logits with 0 for forbidden choices."""
        # Departure: the penalty on logits is in openai/maddpg's code, not in the paper.
        allowed = self.allowed(obs)
        allowed_logits = logits if allowed is None else logits * allowed
        return (allowed_logits.square() * row_weights.penalty).sum(), allowed_logits

    def critic_weights(self, row_weights: RowWeights) -> Tensor:
        """Returns the weight of each row in the loss of each critic `[C, B]`; a team's critic counts once."""
        weights = row_weights.loss.index_select(0, self._critic_players)
        fractions = self._critic_groups.fractions
        return weights if fractions is None else weights * fractions

    def soft_update(self, tau: float) -> None:
        """Moves every target: `theta' = tau * theta + (1 - tau) * theta'` (Lowe et al. 2017, algorithm 1)."""
        self.critics.soft_update(tau)
        self.policies.soft_update(tau)

    # ---- the networks ---------------------------------------------------------------------------------------------

    def policy_logits(self, policies: Sequence[GroupedNetworks], obs: Tensor) -> Tensor:
        """Returns the logits of all policies `[B, U]`; those of forbidden choices are lowered.

        ValueError if the policies are recurrent.
        """
        return self.lower_forbidden(self.policy_outputs(policies, obs), obs)

    def current_outputs(self, policies: Sequence[GroupedNetworks], batch: LossBatch) -> Tensor:
        """Returns the outputs of all policies `[B, U + L]` for the observations of a batch."""
        memories = self._memories(policies, self._policy_groups, batch)
        return self._policy_outputs(policies, batch.obs_action, [one.before for one in memories])

    def next_outputs(self, policies: Sequence[GroupedNetworks], batch: LossBatch) -> Tensor:
        """Returns the outputs of all policies `[B, U + L]` for the next observations of a batch."""
        memories = self._memories(policies, self._policy_groups, batch)
        return self._policy_outputs(policies, batch.next_obs, [one.after for one in memories])

    def policy_outputs(self, policies: Sequence[GroupedNetworks], obs: Tensor) -> Tensor:
        """Returns the outputs of all policies `[B, U + L]`: logits, then those of stochastic players' Gaussians.

        ValueError if the policies are recurrent.
        """
        if self.network.recurrent:
            raise ValueError("the outputs of recurrent policies depend on earlier steps: use current_outputs")
        return self._policy_outputs(policies, obs, [])

    def _policy_outputs(self, policies: Sequence[GroupedNetworks], obs: Tensor, memories: Sequence[Tensor]) -> Tensor:
        """memories: of recurrent policies before the step, group by group `[G, B * K, units]`; else empty."""
        rows = _with_memories(self._policy_groups.inputs(obs), memories)
        outputs = [policy(x) for policy, x in zip(policies, rows, strict=True)]
        return self._policy_groups.joint_outputs(outputs)

    def _memories(
        self, networks: Sequence[GroupedNetworks], groups: PolicyGroups | CriticGroups, batch: LossBatch
    ) -> list[Memories]:
        """Returns the memories of recurrent networks before and after each row, group by group; else nothing."""
        sequences = batch.sequences
        if sequences is None:
            return []
        inputs = groups.inputs(batch.obs_action)
        burn_in = groups.inputs(sequences.burn_in) if len(sequences.burn_in) else [rows[:, :0] for rows in inputs]
        return [
            unrolled(network, steps, earlier, len(group.users[0]), sequences.burn_in_valid)
            for network, steps, earlier, group in zip(networks, inputs, burn_in, groups.groups, strict=True)
        ]

    def lower_forbidden(self, outputs: Tensor, obs: Tensor) -> Tensor:
        """Returns the logits `[B, U]` of outputs `[B, U + L]`; those of choices that action masks forbid are lowered.

        Huang and Ontanon 2022, arXiv 2006.14171: no softmax or argmax takes a forbidden choice.
        """
        logits, allowed = outputs[:, : self.players.action_dim], self.allowed(obs)
        return logits if allowed is None else logits - (1 - allowed) * FORBIDDEN

    def allowed(self, obs: Tensor) -> Tensor | None:
        """Returns 0 for the numbers of joint actions `[B, U]` that action masks forbid, else 1; None without masks."""
        obs_columns, action_columns = self._mask_columns
        if not len(obs_columns):
            return None
        allowed = obs.new_ones(len(obs), self.agents.action_dim)
        return allowed.index_copy_(1, action_columns, obs.index_select(1, obs_columns))

    def critic_inputs(
        self, critic_input: Tensor, memories: Sequence[Tensor] = (), acting: Tensor | None = None
    ) -> list[Tensor]:
        """Returns what the critics of each group read of observations, actions and states side by side `[B, O+U+S]`.

        memories: of recurrent critics before the step, group by group `[G, B * K, units]`. acting: 0.0 in the columns
        of agents that do not act `[B, U]`, which set and attention critics leave out; None if all act.
        """
        return _with_memories(self._critic_groups.inputs(critic_input, acting), memories)

    def q(self, critics: Sequence[GroupedNetworks], inputs: Sequence[Tensor]) -> Tensor:
        """Returns `Q_i(x, a_1 .. a_N)` of all critics `[C, B]`; inputs: what they read, group by group."""
        return self._values(self.critic_outputs(critics, inputs))

    def critic_outputs(self, critics: Sequence[GroupedNetworks], inputs: Sequence[Tensor]) -> Tensor:
        """Returns the outputs of all critics `[C, B, 1]`, or logits of bins `[C, B, M]`; inputs: as in `q`."""
        return self._critic_groups.values([critic(rows) for critic, rows in zip(critics, inputs, strict=True)])

    def _values(self, outputs: Tensor) -> Tensor:
        """Returns the values `[C, B]` of critics' outputs."""
        return outputs.squeeze(2) if self.bins is None else self.bins.values(outputs)

    def q_of_player_actions(self, inputs: Sequence[Tensor], change: Tensor) -> Tensor:
        """Returns `Q_i(x, a_1 .. mu_i(o_i) .. a_N)` of first critics `[N, B]`; with stochastic players of all `[C, B]`.

        inputs: what all critics read. change: difference of the current actions from those in `inputs` `[B, U]`, of
        which each critic reads that of its own player.
        """
        groups = self._critic_groups
        by_group = zip(
            self._policy_critics, groups.policy_inputs(inputs), groups.player_action_changes(change), strict=True
        )
        outputs = [critic(rows, change_of_action) for critic, rows, change_of_action in by_group]
        return self._values(groups.policy_values(outputs))

    def min_q(self, q: Tensor) -> Tensor:
        """Returns the lower value of each player's critics `[N, B]`, from the values of all critics `[C, B]`.

        Clipped double Q-learning (Fujimoto et al. 2018, equation 10): matd3 has two critics, the others one.
        """
        first, second = torch.split(q, [len(self.players.agents), len(self._twin_players)])
        if not len(second):
            return first
        lower = torch.minimum(first.index_select(0, self._twin_players), second)
        return first.index_copy(0, self._twin_players, lower)

    def gumbel_noise(self, rows: int) -> Tensor | None:
        """Returns Gumbel noise for `actions.differentiable` `[rows, gumbel_dim]`; None if no action needs it."""
        if not self.actions.gumbel_dim:
            return None
        return gumbel_noise(rows, self.actions.gumbel_dim, self.actions.low, self.generator)

    def split(self, critic_input: Tensor) -> Sequence[Tensor]:
        """Returns the observations, actions and states of a critic input `[B, O+U+S]`."""
        sizes = [self.players.obs_dim, self.players.action_dim, self.players.state_dim]
        return torch.split(critic_input, sizes, 1)

    # ---- what a learner calls -------------------------------------------------------------------------------------

    @torch.no_grad()
    def logits(self, obs: Tensor) -> Tensor:
        """Returns the policies' logits `[B, U]` for observations `[B, O]`; ValueError if they are recurrent."""
        return self.policy_logits(self.policies.online, obs)

    def policy_weights(self) -> npt.NDArray[np.float32]:
        """Returns all policies in the flat layout of common/policy/network.py."""
        groups, modules = self._policy_groups.groups, self.policies.online
        layers: list[Layer] = []
        for i in range(len(self.players.agents)):
            group, network, user = position_of(groups, i)
            layers += modules[group].of_user(network, user)
        parameters = [numbers for layer in layers for numbers in (layer.weight, layer.bias, *(layer.norm or ()))]
        return self.normaliser.fold(np.concatenate([numbers.ravel() for numbers in parameters]))

    def critic_layers(self, critic: int) -> list[Layer]:
        """Returns the layers of one critic in numpy; none if the critic is not an MLP.

        Inputs and output are normalised, if the run normalises.
        """
        if self.network.recurrent:
            return []
        group, network, user = position_of(self._critic_groups.groups, self._critic_groups.computed[critic])
        return self.critics.online[group].of_user(network, user)

    @torch.no_grad()
    def first_values(self, critic_input: Tensor, acting: Tensor | None = None) -> Tensor:
        """Returns the values of each player's first critic `[N, B]` for observations, actions, states `[B, O+U+S]`.

        acting: as in `critic_inputs`. Inputs and values are normalised, if the run normalises.
        """
        groups = self._critic_groups
        inputs = groups.policy_inputs(self.critic_inputs(critic_input, acting=acting))
        outputs = [critic(rows) for critic, rows in zip(self._policy_critics, inputs, strict=True)]
        values = self._values(groups.policy_values(outputs))
        return values[: len(self.players.agents)]


def _with_memories(inputs: list[Tensor], memories: Sequence[Tensor]) -> list[Tensor]:
    """Returns the inputs of each group, followed by the memories of recurrent networks, if there are any."""
    return [torch.cat(pair, 2) for pair in zip(inputs, memories, strict=True)] if memories else inputs


def _of_acting(action: Tensor, acting: Tensor | None) -> Tensor:
    """Returns joint actions `[B, U]`, with zeros for agents that do not act (`acting` is 0; None = all act)."""
    return action if acting is None else action * acting
