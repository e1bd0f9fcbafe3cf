"""MASAC and ISAC: soft actor-critic with the multi-agent critics of MADDPG.

Notation of Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications" (arXiv 1812.05905), algorithm 1, for
the players i = 1..N of Lowe et al. 2017 (maddpg.py). Policies are distributions pi_i(a_i | o_i), H_i is the entropy of
pi_i, and alpha_i its weight in the reward, the temperature:

    masac   Q_i(x, a_1 .. a_N) reads everything      isac   Q_i(o_i, a_i) reads its own player alone

    target        y_i = r_i + gamma * (min_k Q'_ik(x', a') + alpha_i H_i(o'_i)),  a' ~ pi(o')        equations 3 and 5
    policy loss   -E[min_k Q_ik(x, a_1 .. pi_i(o_i) .. a_N) + alpha_i H_i(o_i)]                     equation 9
    temperature   descends E[log alpha_i * (H_i(o_i) - target entropy_i)]                           equation 18

distribution.py samples actions and estimates entropies. The entropy of a Box part is -log pi of the sampled action;
that of a Categorical part is exact. Critics read one action of each player, not the values of all choices, so a choice
passes its gradient to the policy through a Gumbel-softmax sample, as in MADDPG, and not through the expectation over
all choices of Christodoulou 2019 (arXiv 1910.07207). hasac.py changes the order in which policies learn.

Sides may mix algorithms: players that learn by another one have entropy 0, target policies and their own losses.

    N players     C critics     B rows of the batch     U length of the joint action     G numbers drawn from Gaussians
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from common.run.run import Run
from learner_node.algorithms.distribution import Distribution, Sample
from learner_node.algorithms.maddpg import Maddpg
from learner_node.update.batches import LossBatch, RowWeights
from learner_node.update.draws import gumbel_noise
from learner_node.update.network_state import NetworkState
from learner_node.update.optimiser import Adam, WeightDecay
from learner_node.update.signals import PlayerSignals
from learner_node.update.update_stats import PolicyStats

CHOICE_ENTROPY = 0.3
"""Target entropy of a choice among n under `algorithm.entropy_target = auto`, as a fraction of log n.

Departure: Christodoulou 2019 takes 0.98, which keeps policies nearly uniform: five choices then have the entropy of 4.8
equally likely ones. 0.3 is that of 1.6."""
LARGEST_LOG_TEMPERATURE = 10.0
"""Bound of |log alpha|: a target entropy that no policy reaches would raise alpha beyond all numbers."""


class _PolicyLoss(NamedTuple):
    """The policy loss, and what it is made of."""

    loss: Tensor
    logits: Tensor
    """Logits of the policies, 0 for forbidden choices `[B, U]`."""
    v: Tensor
    """Soft values `[N, B]`."""
    entropy: Tensor
    """Entropies of the policies `[N, B]`."""
    target_entropy: Tensor
    """`[N, B]`."""


class Masac(Maddpg):
    """The critics, policies and temperatures of all players, and their update.

    Example:
        masac = Masac(run, torch.zeros(()))
        stats = masac.update(batch, policy_learning_rate=1e-3, critic_learning_rate=1e-3)
        alpha = masac.temperatures.by_network
    """

    def __init__(self, run: Run, like: Tensor) -> None:
        """Draws the initial parameters from the run's seed, with the number type and on the device of `like`.

        ConfigError for settings that do not fit the run's agents.
        """
        super().__init__(run, like)
        algorithm = self.algorithm
        self.distribution = Distribution(self.players, like)
        self._policy_of = torch.tensor(self.layout.policy_networks, device=like.device)
        players = self.players.agents
        first_users = [self.layout.policy_networks.index(i) for i in range(1 + max(self.layout.policy_networks))]
        rates = [algorithm.side_learning_rate(players[i].team) for i in first_users]
        self.temperatures = Temperatures(rates, algorithm.initial_temperature, like)
        """One alpha for each policy: players that share a policy share its temperature."""
        self._first_columns = torch.tensor([player.action_start for player in players], device=like.device)
        """The first column of each player in the joint action."""
        self._is_stochastic = torch.tensor([player.stochastic for player in players], device=like.device)[:, None]
        owned = [player.stochastic for player in players for _ in range(player.action_dim)]
        stochastic_outputs = owned + [True] * len(self.players.gaussian_columns)
        self._all_stochastic = all(owned)
        self._is_stochastic_output = torch.tensor(stochastic_outputs, device=like.device)
        """Whether an output of the policies belongs to a stochastic player `[U + G]`."""
        choices = [p.action_start + column for p in players if p.stochastic for column in p.choice_columns]
        self._choice_columns = torch.tensor(choices, dtype=torch.int64, device=like.device)
        """Columns, in the joint action, of the Categorical parts of stochastic players."""

    # ---- the update -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def td_target(self, batch: LossBatch, signals: PlayerSignals, row_weights: RowWeights) -> Tensor:
        """Returns `y_i = r_i + gamma * discount_i * (min_k Q'_ik(x', a') + alpha_i H_i(o'_i))` `[N, B]`.

        Haarnoja et al. 2018, equations 3 and 5. Departure: the multi-step rewards of `replay.n_step` contain no
        entropies of the steps between.
        """
        next_sample = self._sample(self._next_outputs(batch), batch.next_obs)
        next_action = self.with_target_noise(self.actions.greedy(self._with_gumbel(next_sample.noisy_logits)))
        bonus = self.entropy_bonus(next_sample.entropy, row_weights.next_acting)
        next_v = self.next_q(batch, next_action, row_weights) + bonus
        return self.returns(batch, signals, next_v)

    def policy_loss(
        self, batch: LossBatch, inputs: Sequence[Tensor], row_weights: RowWeights
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns `-E[V_i(x)] + lambda * mean logits_i^2`, summed over the players (Haarnoja et al. 2018, equation 9).

        `V_i(x) = min_k Q_ik(x, a_1 .. pi_i(o_i) .. a_N) + alpha_i H_i(o_i)` is the soft value of equation 3. Also
        returns the logits `[B, U]`, 0 for forbidden choices, and the soft values `[N, B]`. The penalty is a departure,
        as in MADDPG; of Box parts it holds the means. inputs: what the critics read of the batch.
        """
        result = self._policy_loss(batch, inputs, row_weights)
        return result.loss, result.logits, result.v

    def update_policies(self, batch: LossBatch, inputs: Sequence[Tensor], row_weights: RowWeights) -> PolicyStats:
        """Updates the policies once, then their temperatures; inputs: what the critics read of the batch."""
        result = self._policy_loss(batch, inputs, row_weights)
        entropy, alpha = result.entropy.detach(), self._alpha()
        squared_norms = self.descend_policies(result.loss, lambda: self._policy_loss(batch, inputs, row_weights).loss)
        self.temperatures.descend(self.temperature_gradient(entropy - result.target_entropy, row_weights))
        return PolicyStats(
            result.logits.detach(),
            result.v.detach(),
            squared_norms,
            entropy,
            torch.where(self._is_stochastic, alpha, 0.0)[:, 0],
        )

    def entropy_bonus(self, entropy: Tensor, acting: Tensor | None) -> Tensor:
        """Returns what the players' entropies `[N, B]` add to their values, `alpha_i H_i` `[N, B]`.

        Players of one critic (`algorithm.team_critic`) learn from the mean of theirs. acting: 0.0 in the columns of
        agents that do not act `[B, U]`, whose entropy adds 0; None if all act.
        """
        bonus = self._alpha() * entropy
        return bonus if acting is None else bonus * acting.index_select(1, self._first_columns).t()

    def temperature_gradient(self, excess: Tensor, row_weights: RowWeights) -> Tensor:
        """Returns the gradient of `E[log alpha_i * (H_i(o_i) - target entropy_i)]` by log alpha, policy by policy.

        excess: `H_i - target entropy_i` `[N, B]`. A policy with more entropy than its target lowers its temperature.
        Departure: equation 18 has alpha in place of log alpha, whose steps would shrink with alpha; the authors' code
        has log alpha too.
        """
        by_player = (excess * row_weights.present).sum(1)
        return torch.zeros_like(self.temperatures.log).index_add(0, self._policy_of, by_player)

    def _policy_loss(self, batch: LossBatch, inputs: Sequence[Tensor], row_weights: RowWeights) -> _PolicyLoss:
        """Returns the loss of `policy_loss` with its intermediate results."""
        obs = self.split(batch.obs_action)[0]
        sample = self._sample(self.current_outputs(self.policies.online, batch), obs)
        current = self.actions.differentiable(sample.noisy_logits, self.gumbel_noise(len(obs)))
        q = self.q_of_current_actions(batch, inputs, current, row_weights)  # [C, B]
        # Deterministic players of other sides learn from their first critics, as in maddpg.py.
        min_q = torch.where(self._is_stochastic, self.min_q(q), q[: len(self.players.agents)])
        v = min_q + self.entropy_bonus(sample.entropy, row_weights.acting)
        penalty, allowed_logits = self.logit_penalty(obs, sample.logits, row_weights)
        loss = penalty - (v * self.critic_weights(row_weights)[: len(v)]).sum()
        return _PolicyLoss(loss, allowed_logits, v, sample.entropy, self._target_entropy(sample.logits.detach()))

    # ---- the policies ---------------------------------------------------------------------------------------------

    def _next_outputs(self, batch: LossBatch) -> Tensor:
        """Returns the outputs of the policies that choose the next actions `[B, U + G]`.

        Soft actor-critic has no target policies: the current policies choose (Haarnoja et al. 2018, equation 3).
        """
        current = self.next_outputs(self.policies.online, batch)
        if self._all_stochastic:
            return current
        return torch.where(self._is_stochastic_output, current, self.next_outputs(self.policies.target, batch))

    def _sample(self, outputs: Tensor, obs: Tensor) -> Sample:
        """Draws the Box parts of stochastic players, from outputs of the policies `[B, U + G]`."""
        logits, output = torch.split(outputs, [self.players.action_dim, len(self.distribution.gaussian_columns)], 1)
        noise = torch.empty_like(output, memory_format=torch.contiguous_format).normal_(generator=self.generator)
        return self.distribution.sample(self.lower_forbidden(logits, obs), output, noise)

    def _with_gumbel(self, logits: Tensor) -> Tensor:
        """Returns logits `[B, U]` with Gumbel noise for the choices of stochastic players, whose argmax is a draw."""
        columns = self._choice_columns
        if not len(columns):
            return logits
        return logits.index_add(1, columns, gumbel_noise(len(logits), len(columns), logits, self.generator))

    def _target_entropy(self, logits: Tensor) -> Tensor:
        """Returns the target entropies `[N, B]`, from logits that are low for forbidden choices."""
        target = self.algorithm.entropy_target
        if target == "auto":
            return self.distribution.target_entropy(logits, CHOICE_ENTROPY)
        return target * self._is_stochastic.to(logits)

    def _alpha(self) -> Tensor:
        """Returns the temperatures of the players `[N, 1]`."""
        return self.temperatures.by_network.index_select(0, self._policy_of)[:, None]

    # ---- what a learner calls -------------------------------------------------------------------------------------

    def set_rates(self, policy_learning_rate: float, critic_learning_rate: float) -> None:
        """Sets the learning rates of the following updates; temperatures learn at the rate of their policies."""
        super().set_rates(policy_learning_rate, critic_learning_rate)
        self.temperatures.adam.learning_rate.fill_(policy_learning_rate)

    def network_states(self) -> dict[str, NetworkState]:
        """Returns all learnt state by the name that checkpoints give it."""
        return {**super().network_states(), "temperatures": self.temperatures}


class Temperatures:
    """The temperatures alpha of policies, as `log alpha` `[policies]`, with their optimiser."""

    def __init__(self, rates: Sequence[float], initial: float, like: Tensor) -> None:
        """Starts at alpha = `initial`. rates: the factor on the learning rate of each."""
        self.log = like.new_full((len(rates),), math.log(initial))
        self.adam = Adam(self.log, WeightDecay(0.0), None if set(rates) == {1.0} else torch.tensor(rates).to(like))

    @property
    def by_network(self) -> Tensor:
        """The temperature of each policy `[policies]`."""
        return self.log.exp()

    def descend(self, gradient: Tensor) -> None:
        """Does one step of Adam on log alpha, from its gradient `[policies]`."""
        self.adam.step(self.log, gradient)
        self.log.clamp_(-LARGEST_LOG_TEMPERATURE, LARGEST_LOG_TEMPERATURE)

    def tensors(self) -> dict[str, Tensor]:
        """Returns a copy of all state on the CPU as tensors by name."""
        state = {"log": self.log, "adam/mean": self.adam.mean, "adam/square": self.adam.square}
        return {name: tensor.to("cpu", copy=True) for name, tensor in {**state, "adam/steps": self.adam.steps}.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Replaces all state by what `tensors` returned."""
        self.log.copy_(tensors["log"])
        self.adam.mean.copy_(tensors["adam/mean"])
        self.adam.square.copy_(tensors["adam/square"])
        self.adam.steps.copy_(tensors["adam/steps"])
