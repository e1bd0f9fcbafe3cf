"""MADDPG and its family, written plainly: one module for each network, loops over players, autograd, torch.optim.

Notation of Lowe et al. 2017 (arXiv 1706.02275), algorithm 1. Players i = 1..N have observations o_i, actions a_i and
rewards r_i; x = (o_1 .. o_N). Policies are mu_i, critics are Q_i(x, a_1 .. a_N), primes mark target networks and the
next step. MATD3 (Ackermann et al. 2019, arXiv 1910.01465) adds the three changes of TD3 (Fujimoto et al. 2018,
arXiv 1802.09477): two critics with the lower value as target, target noise, and delayed policy updates.

    maddpg   Q_i reads everything          matd3   two such critics, target noise, policy delay 2
    iddpg    Q_i reads o_i and a_i alone   joint   maddpg, where a whole side is one player

This module defines what a run learns. Runs compute the update with learner_node/stacked/, which is faster. Both agree
to 1e-9 in float64 (tests/learner_node/stacked/test_update.py).

Observations and rewards are normalised before the update, if a run asks for it (learner_node/normalisation.py).

`players.agents` are the players, each an agent or, under `joint`, a whole side; `player.team` is a player's side.

Shapes: `[batch]` has one number for each transition, `[batch, players]` one for each transition and player,
`[batch, O]` are joint observations and `[batch, U]` joint actions.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.run.players import Algorithm, algorithms_by_side, members_of, players
from common.run.run import AlgorithmSpec, NetworkSpec
from common.spec import AgentsSpec
from learner_node.algorithms.actions import (
    add_target_noise,
    allowed_numbers,
    differentiable_action,
    greedy_action,
    lower_forbidden,
)
from learner_node.algorithms.networks import Mlp, flatten, load_flat


class Minibatch(NamedTuple):
    """A minibatch of transitions of all agents."""

    obs: Tensor
    """`[batch, O]`."""
    action: Tensor
    """`[batch, U]`."""
    reward: Tensor
    """`[batch, agents]`."""
    discount: Tensor
    """0 where the agent terminated, else 1 `[batch, agents]`."""
    next_obs: Tensor
    """`[batch, O]`."""
    present: Tensor
    """1 where the agent acts, 0 where it is absent `[batch, agents]`."""
    reward_factor: Tensor | None = None
    """Factor on each player's reward `[players]`, if rewards are normalised (learner_node/normalisation.py)."""
    state: Tensor | None = None
    """Global states `[batch, S]`; None if critics do not read them."""
    next_state: Tensor | None = None
    """`[batch, S]`."""


class Noise(NamedTuple):
    """The random numbers of one update, `[batch, U]` each."""

    target: Tensor
    """Standard normal, for target noise."""
    gumbel: Tensor
    """Gumbel, for choices in the policy loss."""


class Signals(NamedTuple):
    """Rewards, discounts and presence of the players, derived from those of their agents."""

    reward: Tensor
    """`[batch, players]`."""
    discount: Tensor
    """`[batch, players]`."""
    present: Tensor
    """`[batch, players]`."""
    acting: Tensor
    """1 in the columns of agents that act `[batch, U]`."""
    next_acting: Tensor
    """1 in the columns of agents that act in the next step too `[batch, U]`."""


class Maddpg:
    """N players with a policy and one or two critics each.

    Example:
        maddpg = Maddpg(run.joint, run.spec.network, run.spec.algorithm)
        critic_losses, policy_losses = maddpg.update(minibatch, noise)
    """

    def __init__(
        self,
        agents: AgentsSpec,
        network: NetworkSpec,
        algorithm: AlgorithmSpec,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Starts with torch's initial parameters."""
        self.agents, self.players = agents, players(agents, algorithm.name)
        self.network, self.algorithm, self.head = network, algorithm, network.head
        self.player_numbers = range(len(self.players.agents))
        """The indices of all players: i and j below."""
        algorithm_by_side = algorithms_by_side(self.players, algorithm.name)
        self.algorithm_of: list[Algorithm] = [algorithm_by_side[player.team] for player in self.players.agents]
        """The name of each player's algorithm: its side's entry in the setting `algorithm.name`."""
        self.policy_networks: list[Mlp] = []
        self.policies: dict[int, Mlp] = {}
        """The policy of each player."""
        for group in self.sharing_groups(shared=network.share_policies):
            player = self.players.agents[group[0]]
            sizes = (player.obs_dim, *network.policy_hidden, player.action_dim)
            self.policy_networks.append(Mlp(sizes, group, separate_biases=network.tell_apart, dtype=dtype))
            self.policies |= dict.fromkeys(group, self.policy_networks[-1])
        self.critic_networks: list[Mlp] = []
        self.critics: tuple[dict[int, Mlp], dict[int, Mlp]] = ({}, {})
        """The first critic of each player, and the second critic of those that have two."""
        for k in (0, 1):
            for group in self.sharing_groups(shared=network.share_critics):
                if k == 1 and self.algorithm_of[group[0]] != "matd3":
                    continue
                inputs = sum(len(columns) for columns in self.input_columns(group[0]))
                sizes = (inputs, *network.critic_hidden, 1)
                self.critic_networks.append(Mlp(sizes, group, separate_biases=network.tell_apart, dtype=dtype))
                self.critics[k].update(dict.fromkeys(group, self.critic_networks[-1]))
        self.reset()

    # ---- the update -----------------------------------------------------------------------------------------------

    def update(
        self, batch: Minibatch, noise: Noise, importance: Tensor | None = None, *, update_policies: bool = True
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Updates all players on one minibatch; returns the critic and policy losses, player by player.

        importance: importance-sampling weights `[batch]`. update_policies: False updates the critics alone. With a
        policy delay of d, every d-th update includes the policies and all targets (Fujimoto et al. 2018, section 5.2).
        """
        # Departure from Lowe et al., algorithm 1: all players learn from one minibatch, not from one each.
        signals = self.signals(batch)
        target_q = self.td_target(batch, signals, noise.target)  # N times [batch]
        critic_losses = [
            self.critic_loss(k, i, batch, signals, target_q, importance=importance)
            for k in (0, 1)
            for i in self.critics[k]
        ]
        # The first critics' losses are reported without importance weights, so that runs can be compared.
        reported = [self.critic_loss(0, i, batch, signals, target_q).detach() for i in self.player_numbers]
        self.descend(self.critic_networks, critic_losses)
        if not update_policies:
            return reported, []
        policy_losses = self.policy_losses(batch, signals, noise.gumbel)
        self.descend(self.policy_networks, policy_losses)
        self.soft_update(self.algorithm.target_rate)
        return reported, [loss.detach() for loss in policy_losses]

    @torch.no_grad()
    def td_target(self, batch: Minibatch, signals: Signals, noise: Tensor) -> list[Tensor]:
        """Returns `y_i = r_i + gamma * discount_i * min_k Q'_ik(x', mu'(o') + noise)`, `[batch]` for each player.

        Lowe et al. 2017, equation 6. Only matd3 has the minimum and the noise.
        """
        next_actions = []
        for j, player in enumerate(self.players.agents):
            logits = self.logits(self.target_policies, j, batch.next_obs)
            next_action = greedy_action(player, logits, self.head)  # [batch, numbers of a_j]
            if self.algorithm_of[j] == "matd3":
                # Target policy smoothing (Fujimoto et al. 2018, section 5.3), in units of half the action's range.
                target_noise = (noise[:, player.action_slice] * self.algorithm.smoothing).clamp(
                    -self.algorithm.smoothing_clip, self.algorithm.smoothing_clip
                )
                next_action = add_target_noise(player, next_action, target_noise, self.head)
            # An agent that is absent in the next step has a next action of zeros, as in stored transitions.
            next_actions.append(next_action * signals.next_acting[:, player.action_slice])
        targets = []
        for i in self.player_numbers:
            next_q = [
                self.q(critics[i], i, batch.next_obs, next_actions, batch.next_state)
                for critics in self.target_critics
                if i in critics
            ]
            # Clipped double Q-learning (Fujimoto et al. 2018, equation 10): matd3 has two critics, the others one.
            min_next_q = torch.stack(next_q).min(0).values  # [batch]
            # The discount is 0 where the player terminated. A time limit is not an end of the task: there the discount
            # stays 1, and the target bootstraps from next_obs, the true final observation.
            discount = self.algorithm.discount * signals.discount[:, i]
            targets.append(signals.reward[:, i] + discount * min_next_q)
        return targets

    def critic_loss(
        self,
        k: int,
        i: int,
        batch: Minibatch,
        signals: Signals,
        target_q: Sequence[Tensor],
        *,
        importance: Tensor | None = None,
    ) -> Tensor:
        """Returns `E[(Q_i(x, a_1 .. a_N) - y_i)^2]` of player i's critic k (Lowe et al. 2017, equation 6)."""
        actions = [batch.action[:, player.action_slice] for player in self.players.agents]
        q = self.q(self.critics[k][i], i, batch.obs, actions, batch.state)
        td_error = q - target_q[i]  # [batch]
        if self.algorithm.critic_loss == "huber":
            # Departure, a setting: Huber's loss bounds the gradient of a surprising reward.
            loss = nn.functional.smooth_l1_loss(td_error, torch.zeros_like(td_error), reduction="none")
        else:
            loss = td_error.square()
        if importance is not None:
            # Departure, a setting: prioritised replay (Schaul et al. 2016, section 3.4).
            loss = loss * importance
        return self.mean_over_present(loss, signals.present[:, i])

    def policy_losses(self, batch: Minibatch, signals: Signals, gumbel: Tensor) -> list[Tensor]:
        """Returns the policy loss of each player, from the current policies' actions."""
        logits = [self.logits(self.policies, i, batch.obs) for i in self.player_numbers]
        current_actions = [
            differentiable_action(
                player,
                logits[i],
                gumbel[:, player.action_slice],
                hard=self.algorithm.gumbel == "straight_through",
                temperature=self.algorithm.gumbel_temperature,
                head=self.head,
            )
            for i, player in enumerate(self.players.agents)
        ]
        return [self.policy_loss(i, batch, signals, logits[i], current_actions) for i in self.player_numbers]

    def policy_loss(
        self, i: int, batch: Minibatch, signals: Signals, logits: Tensor, current_actions: Sequence[Tensor]
    ) -> Tensor:
        """Returns `-E[Q_i(x, a_1 .. mu_i(o_i) .. a_N)] + lambda * mean logits_i^2`.

        Its gradient is the policy gradient of Lowe et al. 2017, equation 5, negated. With two critics, Q_i is the first
        (Fujimoto et al. 2018, algorithm 1).

        logits: of player i's policy. current_actions: actions of all players by their current policies.
        """
        actions = [batch.action[:, player.action_slice] for player in self.players.agents]
        if self.algorithm.teammates == "current":
            # Departure, a setting: the other players act by their current policies (FACMAC, Peng et al. 2021).
            actions = [
                current_actions[j].detach() * signals.acting[:, player.action_slice]
                for j, player in enumerate(self.players.agents)
            ]
            actions[i] = current_actions[i] * signals.acting[:, self.players.agents[i].action_slice]
        else:
            actions[i] = current_actions[i]
        q = self.q(self.critics[0][i], i, batch.obs, actions, batch.state)  # [batch]
        # Departure: the penalty on logits is in openai/maddpg's code, not in the paper. Forbidden choices count as 0.
        allowed_logits = logits * allowed_numbers(self.players.agents[i], batch.obs)
        penalty = self.algorithm.action_regularisation * allowed_logits.square().mean(1)
        return self.mean_over_present(penalty - q, signals.present[:, i])

    @torch.no_grad()
    def soft_update(self, tau: float) -> None:
        """Moves every target: `theta' = tau * theta + (1 - tau) * theta'` (Lowe et al. 2017, algorithm 1)."""
        targets = [*self.target_policy_networks, *self.target_critic_networks]
        for network, target in zip([*self.policy_networks, *self.critic_networks], targets, strict=True):
            for new, old in zip(network.parameters(), target.parameters(), strict=True):
                old.copy_((1 - tau) * old + tau * new)

    def descend(self, networks: Sequence[Mlp], losses: Sequence[Tensor]) -> None:
        """Does one step of Adam on the sum of the losses, with each network's gradient clipped."""
        for network in networks:
            self.optimizers[network].zero_grad()
        parameters = [parameter for network in networks for parameter in network.parameters()]
        torch.stack(list(losses)).sum().backward(inputs=parameters)  # type: ignore[no-untyped-call]
        for network in networks:
            gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
            norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
            self.gradient_norms[network] = norm
            # Departure: openai/maddpg clips each variable, this clips each network as a whole, as PyTorch ports do
            # (torch's clip_grad_norm_ divides by the norm + 1e-6).
            if 0 < self.algorithm.gradient_clip < norm:
                for gradient in gradients:
                    gradient.mul_(self.algorithm.gradient_clip / norm)
            self.optimizers[network].step()

    def logits(self, policies: Mapping[int, Mlp], i: int, obs: Tensor) -> Tensor:
        """Returns the logits of player i's policy `[batch, numbers of a_i]`; those of forbidden choices are lowered."""
        player = self.players.agents[i]
        return lower_forbidden(policies[i](obs[:, player.obs_slice], i), allowed_numbers(player, obs))

    def q(self, critic: Mlp, i: int, obs: Tensor, actions: Sequence[Tensor], state: Tensor | None) -> Tensor:
        """Returns `Q_i(x, a_1 .. a_N)` `[batch]`, or `Q_i(s, a_1 .. a_N)` or `Q_i(x, s, a_1 .. a_N)` with a state s."""
        critic_input = torch.cat([obs, *actions] if state is None else [obs, *actions, state], 1)
        columns = [column for columns in self.input_columns(i) for column in columns]
        values: Tensor = critic(critic_input[:, columns], i)
        return values[:, 0]

    @staticmethod
    def mean_over_present(loss: Tensor, present: Tensor) -> Tensor:
        """Returns the mean of a loss `[batch]` over the rows in which the player is present `[batch]`."""
        return (loss * present).sum() / present.sum().clamp(min=1)

    def signals(self, batch: Minibatch) -> Signals:
        """Returns the players' rewards, discounts and presence.

        An agent's reward is mixed with the mean reward of its team ("Team Spirit", OpenAI Five, 2018). A player of
        several agents (`joint`) learns their mean reward and continues as long as one of them does.
        """
        spirit, agents = self.algorithm.team_spirit, self.agents.agents
        rewards = []
        for i, agent in enumerate(agents):
            team = [j for j, other in enumerate(agents) if other.team == agent.team]
            team_mean = batch.reward[:, team].mean(1)
            rewards.append(self.algorithm.reward_scale * ((1 - spirit) * batch.reward[:, i] + spirit * team_mean))
        members_by_player = [list(members_of(self.agents, player)) for player in self.players.agents]
        agent_of = [i for i, agent in enumerate(agents) for _ in range(agent.action_dim)]
        next_present = batch.present * (batch.discount > 0)
        reward = torch.stack([torch.stack([rewards[i] for i in members]).mean(0) for members in members_by_player], 1)
        return Signals(
            reward=reward if batch.reward_factor is None else reward * batch.reward_factor,
            discount=torch.stack([batch.discount[:, members].max(1).values for members in members_by_player], 1),
            present=torch.stack([batch.present[:, members].max(1).values for members in members_by_player], 1),
            acting=batch.present[:, agent_of],
            next_acting=next_present[:, agent_of],
        )

    # ---- the networks ---------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Makes new targets equal to the networks, and new optimisers."""
        networks = self.policy_networks, self.critic_networks, self.policies, self.critics
        targets = copy.deepcopy(networks)
        self.target_policy_networks, self.target_critic_networks, self.target_policies, self.target_critics = targets
        self.optimizers: dict[Mlp, torch.optim.Adam] = {}
        self.gradient_norms: dict[Mlp, Tensor] = {}
        """Norm of each network's last gradient, before clipping."""
        algorithm = self.algorithm
        for nets, learning_rate, decay in (
            (self.policy_networks, algorithm.policy_learning_rate, algorithm.policy_weight_decay),
            (self.critic_networks, algorithm.critic_learning_rate, algorithm.critic_weight_decay),
        ):
            for net in nets:
                side = self.players.agents[net.users[0]].team
                factor = algorithm.side_learning_rates.get(side, 1.0)
                self.optimizers[net] = torch.optim.Adam(net.parameters(), lr=learning_rate * factor, weight_decay=decay)

    def sharing_groups(self, *, shared: bool) -> list[list[int]]:
        """Returns the players of each network. Neighbours of one name (without number), side and size share one."""
        groups: list[list[int]] = []
        last: object = None
        for i, player in enumerate(self.players.agents):
            role = re.sub(r"_?[0-9]+$", "", player.name), player.team, player.obs_dim, player.parts, player.masked
            if shared and groups and role == last:
                groups[-1].append(i)
            else:
                groups.append([i])
            last = role
        return groups

    def input_columns(self, i: int) -> list[range]:
        """Returns the columns of `(x, a_1 .. a_N, s)` that player i's critic reads, in order.

        Departure, a setting (`critic_sees`): the state s of the environment replaces or extends the observations x;
        Lowe et al. 2017, section 4.1, allow "additional state information" in x.
        """
        observed_and_acted = self.joint_columns(i)
        state = range(self.players.obs_dim + self.players.action_dim, self.players.critic_input_dim)
        if self.algorithm.critic_sees == "observations":
            return observed_and_acted
        if self.algorithm.critic_sees == "both":
            return [*observed_and_acted, state]
        return [
            *(range(max(columns.start, self.players.obs_dim), columns.stop) for columns in observed_and_acted),
            state,
        ]

    def joint_columns(self, i: int) -> list[range]:
        """Returns the columns of `(x, a_1 .. a_N)` that player i's critic reads if it sees observations, in order.

        A shared critic reads its own player first, then the network's other users in turn, then all other players: it
        is one function of "me, the next one, the one after".
        """
        if self.algorithm_of[i] == "iddpg":
            return self.player_columns(i)
        users = next(group for group in self.sharing_groups(shared=self.network.share_critics) if i in group)
        if len(users) == 1:
            return [range(self.players.obs_dim + self.players.action_dim)]
        position = users.index(i)
        order = users[position:] + users[:position] + [j for j in self.player_numbers if j not in users]
        return [columns for j in order for columns in self.player_columns(j)]

    def player_columns(self, i: int) -> list[range]:
        """Returns the columns of player i's observation and action in `(x, a_1 .. a_N)`."""
        player, obs_dim = self.players.agents[i], self.players.obs_dim
        obs, action = player.obs_slice, player.action_slice
        return [range(obs.start, obs.stop), range(obs_dim + action.start, obs_dim + action.stop)]

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Sets the parameters from a checkpoint's `policies/online` and `critics/online`, and resets the rest."""
        load_flat(self.policy_networks, tensors["policies/online"])
        load_flat(self.critic_networks, tensors["critics/online"])
        self.reset()

    def tensors(self) -> dict[str, Tensor]:
        """Returns all parameters and targets by their names in checkpoints."""
        return {
            "policies/online": flatten(self.policy_networks),
            "policies/target": flatten(self.target_policy_networks),
            "critics/online": flatten(self.critic_networks),
            "critics/target": flatten(self.target_critic_networks),
        }
