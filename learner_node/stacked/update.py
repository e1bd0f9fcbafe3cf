"""The update that runs use: the update of learner_node/algorithms/maddpg.py, made fast. Read that module first.

The networks of all players are stacked and updated together, and the gradients are written by hand, which is 1.5 to 2
times as fast on a CPU core as autograd. Both updates agree to 1e-9 in float64 for every setting
(tests/learner_node/stacked/test_update.py), and each step here has the name of the plain one: `td_target`,
`critic_loss`, `policy_loss`, `soft_update`.

    N players     C critics, one or two a player     B rows of the batch
    n players of a cohort     u length of their actions     H units of a first hidden layer
    O, U, S  length of the joint observation, of the joint action, of the global state if critics read it
    players.agents, player.team                  the players, and a player's side
    obs, action, reward, discount, next_obs      the transition
    q, q', pi, pi'                               critics and their targets, policies and their targets

A cohort is a group of neighbouring players of equal sizes, whose first and last layers are stacked. A player's first
critic is the one that its policy learns from (with matd3 it has a second). The first layer of a network is computed
apart from the rest (`forward_first`, `forward_rest`), because many of its inputs are the same for all players.

For player i, over the rows in which it is present:

    y_i           = reward_i + gamma * discount_i * min q'_i(next_obs, pi'(next_obs) + noise)
    critic_loss_i = mean loss(q_i(obs, action) - y_i)                                      one for each of its critics
    policy_loss_i = -mean q_i(obs, action with player i's replaced by pi_i(obs_i)) + lambda * mean logits_i^2

Under an action mask, the logits of forbidden choices are lowered before they become actions, and count as 0 in the
penalty.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.policy.masks import FORBIDDEN
from common.policy.network import Layer
from common.run.run import Run
from learner_node.engine_choice import refuse_uncovered
from learner_node.stacked.heads import Heads
from learner_node.stacked.losses import add_logit_penalty_gradient, critic_loss_gradient, critic_loss_slope
from learner_node.stacked.networks import CriticTensors, PolicyTensors, cohorts, critic_pieces, policy_pieces
from learner_node.stacked.parameters import ParameterSet, make_critics, make_policies
from learner_node.stacked.workspace import Workspace
from learner_node.update.batches import LossBatch, RowWeights
from learner_node.update.draws import gumbel_noise
from learner_node.update.engine_base import EngineBase
from learner_node.update.losses import td_target
from learner_node.update.optimiser import ClipRule, WeightDecay
from learner_node.update.signals import PlayerSignals
from learner_node.update.update_stats import PolicyStats, UpdateStats


class StackedUpdate(EngineBase):
    """The critics and policies of all players, and their update.

    Example:
        update = StackedUpdate(run, torch.zeros(()))
        stats = update.update(batch, policy_learning_rate=2e-3, critic_learning_rate=2e-3)
        flat = update.policy_weights()
    """

    policies: ParameterSet[PolicyTensors]
    critics: ParameterSet[CriticTensors]

    def __init__(self, run: Run, like: Tensor) -> None:
        """Draws the initial parameters from the run's seed, with the number type and on the device of `like`.

        ConfigError for settings that do not fit the run's agents, or that the hand-written passes do not cover.
        """
        refuse_uncovered(run.spec.network, run.spec.algorithm)
        super().__init__(run, like)
        agents, network, algorithm, seed = self.agents, self.network, self.algorithm, run.spec.seed
        self.heads = Heads(agents, like, algorithm.gumbel, algorithm.gumbel_temperature, network.head)
        rates = [algorithm.side_learning_rate(player.team) for player in self.players.agents]
        arguments = (self.players, network, self.layout, rates)
        clip = ClipRule.of(algorithm)
        decay_of_policies, decay_of_critics = (
            WeightDecay(rate, algorithm.decoupled_weight_decay)
            for rate in (algorithm.policy_weight_decay, algorithm.critic_weight_decay)
        )
        self.policies = make_policies(*arguments, decay=decay_of_policies, clip=clip, seed=seed, like=like)
        self.critics = make_critics(*arguments, decay=decay_of_critics, clip=clip, seed=seed, like=like)
        self._first_critics = self.critics.online.first_critics(len(self.players.agents))
        self._noise_scale = self._target_noise_scale()
        self._workspace = self._make_workspace(0)
        action_weights = self._first_critics.first_weight[:, agents.obs_dim :]
        self._policy_action_weights = [
            action_weights[cohort.agents, cohort.action]
            .view(cohort.size, cohort.size, cohort.action_dim, -1)
            .diagonal()
            .movedim(-1, 0)
            for cohort in cohorts(self.players)
        ]
        """For each cohort: the weights from each player's action to the first layer of its first critic `[n, u, H]`."""

    @torch.inference_mode()
    def step(self, batch: LossBatch, *, update_policies: bool) -> UpdateStats:
        """Updates once on a batch, with the learning rates of `set_rates`.

        Batches of one size need the same tensor operations on the same memory, so a CUDA graph can capture them.
        """
        self._workspace_for(len(batch.obs_action))
        signals = self.mixer.signals(batch)
        row_weights = self._row_weights(batch, signals)
        td_error = self._td_error(batch, signals, row_weights)
        self._critic_loss_backward(batch, td_error, row_weights)
        squared_norms = self.critics.step()
        policy = None
        if update_policies:
            logits, q = self._policy_loss_backward(row_weights)
            policy = PolicyStats(logits, q, self.policies.step())
            self.critics.soft_update(self.algorithm.target_rate)
            self.policies.soft_update(self.algorithm.target_rate)
        return self.update_stats(batch, td_error, row_weights, squared_norms, policy)

    @torch.inference_mode()
    def logits(self, obs: Tensor) -> Tensor:
        """Returns the policies' logits `[B, U]` for observations `[B, O]`, valid until the next call."""
        policy = self._workspace_for(len(obs)).policy
        return self._lower_forbidden(policy.forward(self.policies.online, policy.inputs(obs)), obs)

    @torch.inference_mode()
    def td_target(self, batch: LossBatch) -> Tensor:
        """Returns the targets `y` `[N, B]` of a batch."""
        self._workspace_for(len(batch.obs_action))
        signals = self.mixer.signals(batch)
        return self._td_target(batch, signals, self._row_weights(batch, signals))

    def policy_weights(self) -> npt.NDArray[np.float32]:
        """Returns all policies in the flat layout of common/policy/network.py."""
        pieces = [
            piece.flatten()
            for i in range(len(self.players.agents))
            for piece in policy_pieces(self.policies.online, self.players, i)
        ]
        flat: npt.NDArray[np.float32] = torch.cat(pieces).float().cpu().numpy()
        return self.normaliser.fold(flat)

    def critic_layers(self, critic: int) -> list[Layer]:
        """Returns the layers of one critic in numpy; its inputs and output are normalised, if the run normalises."""
        pieces = critic_pieces(self.critics.online, critic, self.layout.critics[critic].input_columns)
        arrays = [piece.float().cpu().numpy() for piece in pieces]
        *hidden, last = [Layer(weight, bias.ravel()) for weight, bias in zip(arrays[::2], arrays[1::2], strict=True)]
        return [*(layer._replace(activation="relu") for layer in hidden), last]

    def first_values(self, critic_input: Tensor, acting: Tensor | None = None) -> Tensor:  # noqa: ARG002  (MLPs)
        """Returns the values of each player's first critic `[N, B]` for observations, actions, states `[B, O+U+S]`."""
        values = []
        for i, critic in enumerate(self.layout.critics[: len(self.players.agents)]):
            outputs = critic_input[:, critic.input_columns].float().cpu().numpy()
            for layer in self.critic_layers(i):
                outputs = layer.forward(outputs)
            values.append(torch.from_numpy(outputs[:, 0]))
        return torch.stack(values)

    def _target_noise_scale(self) -> Tensor | None:
        """Returns the size of target noise of scale 1 for each action number `[U]`; None without target noise."""
        if not any(self.layout.target_noise):
            return None
        noisy = [self.layout.target_noise[i] for i in self.mixer.player_of.tolist()]
        return self.heads.noise_scale * torch.tensor(noisy, device=self.heads.noise_scale.device)

    def _make_workspace(self, rows: int) -> Workspace:
        return Workspace(self.players, self.network, len(self.layout.critics), rows, self.policies.shared)

    def _workspace_for(self, rows: int) -> Workspace:
        if len(self._workspace.critic_input) != rows:
            self._workspace = self._make_workspace(rows)
        return self._workspace

    def _row_weights(self, batch: LossBatch, signals: PlayerSignals) -> RowWeights:
        if not batch.complete:
            return self.mixer.row_weights(batch, signals)
        # Every agent acts in every row and in the step after it, so the weights depend on the number of rows alone.
        if self._workspace.row_weights is None:
            self._workspace.row_weights = self.mixer.row_weights(batch, signals)
        return self._workspace.row_weights

    # ---- targets --------------------------------------------------------------------------------------------------

    def _td_target(self, batch: LossBatch, signals: PlayerSignals, row_weights: RowWeights) -> Tensor:
        """Returns the targets `y` `[N, B]`."""
        workspace = self._workspace
        workspace.next_obs.copy_(batch.next_obs)
        if batch.next_state is not None:
            workspace.next_state.copy_(batch.next_state)
        logits = workspace.policy.forward(self.policies.target, workspace.next_policy_inputs)
        logits = self._lower_forbidden(logits, workspace.next_obs)
        next_action = self._add_target_noise(self._target_action(logits))
        _write_actions(next_action, row_weights.next_acting, workspace.next_action)
        workspace.critic.forward_first(self.critics.target, workspace.next_critic_inputs)
        next_q = self._min_q(workspace.critic.forward_rest(self.critics.target))
        return td_target(signals.reward, signals.discount, next_q, self.algorithm.discount)

    def _target_action(self, logits: Tensor) -> Tensor:
        """Returns the actions of the target policies `[B, U]`, greedy or drawn as actors draw them."""
        if self.algorithm.target_actions == "sampled":
            self.heads.add_gumbel(logits, self._gumbel_noise(len(logits)))
        return self.heads.greedy(logits, self._workspace.policy_action)

    def _add_target_noise(self, action: Tensor) -> Tensor:
        """Adds clipped noise to target actions `[B, U]` in place, and clamps them to the actions' bounds."""
        if self._noise_scale is None:
            return action
        algorithm = self.algorithm
        # The noise is drawn transposed, because torch fills contiguous memory far faster.
        noise_t = torch.empty_like(action.t()).normal_(0.0, algorithm.smoothing, generator=self.generator)
        noise = noise_t.clamp_(-algorithm.smoothing_clip, algorithm.smoothing_clip).t()
        # `couple` makes the noise on opposite thrusts opposite.
        action.addcmul_(self.heads.couple(noise), self._noise_scale)
        return torch.clamp(action, self.heads.low, self.heads.high, out=action)

    def _min_q(self, q: Tensor) -> Tensor:
        """Returns the lower value of each player's critics `[N, B]`, from the values of all critics `[C, B]`."""
        players = len(self.players.agents)
        if len(q) == players:
            return q
        first, second = q[:players], q[players:]
        if len(second) == players:
            return torch.minimum(first, second)
        first.index_copy_(0, self._twin_players, torch.minimum(first.index_select(0, self._twin_players), second))
        return first

    # ---- critics --------------------------------------------------------------------------------------------------

    def _td_error(self, batch: LossBatch, signals: PlayerSignals, row_weights: RowWeights) -> Tensor:
        """Returns the TD errors `q - y` of all critics `[C, B]`."""
        workspace, target_q = self._workspace, self._td_target(batch, signals, row_weights)
        workspace.obs_action_state.copy_(batch.obs_action)
        workspace.critic.forward_first(self.critics.online, workspace.critic_inputs)
        return workspace.critic.forward_rest(self.critics.online) - self._by_critic(target_q)

    def _by_critic(self, by_player: Tensor) -> Tensor:
        """Repeats the rows of players `[N, B]` for each of their critics `[C, B]`."""
        return by_player.index_select(0, self._critic_players) if len(self._twin_players) else by_player

    def _critic_loss_backward(self, batch: LossBatch, td_error: Tensor, row_weights: RowWeights) -> None:
        """Writes the gradients of the critic losses."""
        workspace, critics = self._workspace, self.critics
        # The factor from each TD error to its gradient.
        slope = self._critic_loss_slope(batch, row_weights)
        critic_loss_gradient(td_error, slope, self.algorithm.critic_loss, workspace.critic.d_values)
        workspace.critic.backward(critics.online, critics.gradient, workspace.critic_inputs)

    def _critic_loss_slope(self, batch: LossBatch, row_weights: RowWeights) -> Tensor:
        is_constant = batch.complete and batch.importance is None
        if is_constant and self._workspace.critic_loss_slope is not None:
            return self._workspace.critic_loss_slope
        rows = self._by_critic(row_weights.loss)
        if batch.importance is not None:
            rows = rows * batch.importance
        slope = critic_loss_slope(rows, self.algorithm.critic_loss)
        if is_constant:
            self._workspace.critic_loss_slope = slope
        return slope

    # ---- policies -------------------------------------------------------------------------------------------------

    def _policy_loss_backward(self, row_weights: RowWeights) -> tuple[Tensor, Tensor]:
        """Writes the gradients of the policy losses; returns the allowed logits `[B, U]` and the values `[N, B]`."""
        policies, workspace = self.policies, self._workspace
        logits = workspace.policy.forward(policies.online, workspace.policy_inputs)
        logits = self._lower_forbidden(logits, workspace.obs_action_state)
        sample = self.heads.sample(logits, self._gumbel_noise(len(logits)), workspace.policy_action)
        self._forward_first_with_policy_actions(row_weights, sample.actions)
        q = workspace.first_critic.forward_rest(self._first_critics)
        workspace.first_critic.backward_to_first(self._first_critics, row_weights.loss)
        d_logits = self.heads.backward(sample, self._policy_action_gradient(), workspace.policy.d_logits)
        if workspace.allowed is not None:
            logits = logits.mul_(workspace.allowed)
        add_logit_penalty_gradient(d_logits, logits, row_weights)
        workspace.policy.backward(policies.online, policies.gradient, workspace.policy_inputs)
        return logits, q

    def _lower_forbidden(self, logits: Tensor, obs: Tensor) -> Tensor:
        """Lowers the logits `[B, U]` of forbidden choices in place, by the action masks in `obs` `[B, O or more]`."""
        allowed = self._workspace.allowed
        if allowed is None:
            return logits
        obs_columns, action_columns = self._mask_columns
        allowed.t().index_copy_(0, action_columns, obs.index_select(1, obs_columns).t())
        return logits.add_(allowed - 1.0, alpha=FORBIDDEN)

    def _gumbel_noise(self, rows: int) -> Tensor | None:
        if not self.heads.gumbel_dim:
            return None
        return gumbel_noise(rows, self.heads.gumbel_dim, self.policies.shared, self.generator)

    def _forward_first_with_policy_actions(self, row_weights: RowWeights, action: Tensor) -> None:
        """Computes the first layer of each first critic; the action of its player is that of the current policy.

        If all other players act as stored, the first layer is computed for the stored actions, and the change that the
        replaced action causes is added: `(new action - stored action) @ weights`.
        """
        workspace = self._workspace
        if self.algorithm.teammates == "current":
            _write_actions(action, row_weights.acting, workspace.action)
            workspace.first_critic.forward_first(self._first_critics, workspace.first_critic_inputs)
            return
        workspace.first_critic.forward_first(self._first_critics, workspace.first_critic_inputs)
        torch.sub(action, workspace.action, out=workspace.action_change)
        for views, weight in zip(workspace.policy_action_views, self._policy_action_weights, strict=True):
            views.first.baddbmm_(views.change, weight)

    def _policy_action_gradient(self) -> Tensor:
        """Returns the gradient of each player's policy loss over its action, without the penalty on logits `[B, U]`."""
        workspace = self._workspace
        for views, weight in zip(workspace.policy_action_views, self._policy_action_weights, strict=True):
            torch.baddbmm(views.d_action, weight, views.d_first, beta=0, alpha=-1, out=views.d_action)
        return workspace.d_action


def _write_actions(actions: Tensor, acting: Tensor | None, out: Tensor) -> None:
    """Copies joint actions `[B, U]`, with zeros for agents that do not act (`acting` is 0)."""
    if acting is None:
        out.copy_(actions)
    else:
        torch.mul(actions, acting, out=out)
