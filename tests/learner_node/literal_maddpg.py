"""The slow, literal twin of the learner's update: one module an agent, loops, autograd, torch.optim.

Notation of Lowe et al. 2017, algorithm 1: agents i = 1..N with observations o_i, actions a_i, rewards r_i; x = (o_1 ..
o_N); policies mu_i, critics Q_i(x, a_1 .. a_N); primes mark target networks and the next step.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.run import AlgorithmSpec, NetworkSpec
from common.spec import AgentSpec, Box, JointSpec


def mlp(sizes: Sequence[int], dtype: torch.dtype) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, dtype=dtype), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def bounds(part: Box, like: Tensor) -> tuple[Tensor, Tensor]:
    low, high = torch.tensor(part.low).to(like), torch.tensor(part.high).to(like)
    return (high + low) / 2, (high - low) / 2


def greedy_action(agent: AgentSpec, logits: Tensor) -> Tensor:
    """Returns a_i = mu_i(o_i) without exploration."""
    parts = []
    for part, columns in zip(agent.parts, agent.part_slices, strict=True):
        own = logits[:, columns]
        if isinstance(part, Box):
            middle, half = bounds(part, own)
            parts.append(middle + half * torch.tanh(own))
        else:
            parts.append(F.one_hot(own.argmax(1), part.n).to(own))
    return torch.cat(parts, 1)


def differentiable_action(agent: AgentSpec, logits: Tensor, noise: Tensor, *, hard: bool, temperature: float) -> Tensor:
    """Returns a_i with a gradient; `noise` holds Gumbel noise where the action has Categorical parts."""
    parts = []
    for part, columns in zip(agent.parts, agent.part_slices, strict=True):
        own = logits[:, columns]
        if isinstance(part, Box):
            middle, half = bounds(part, own)
            parts.append(middle + half * torch.tanh(own))
            continue
        soft = F.softmax((own + noise[:, columns]) / temperature, 1)
        one_hot = F.one_hot(soft.argmax(1), part.n).to(own)
        parts.append(one_hot + soft - soft.detach() if hard else soft)
    return torch.cat(parts, 1)


class LiteralMaddpg:
    """N agents with a policy and a centralised critic each, updated one after the other."""

    def __init__(
        self, joint: JointSpec, network: NetworkSpec, algorithm: AlgorithmSpec, dtype: torch.dtype = torch.float32
    ) -> None:
        self.joint, self.algorithm = joint, algorithm
        inputs = joint.obs_dim + joint.action_dim
        self.mu = [mlp((a.obs_dim, *network.policy_hidden, a.action_dim), dtype) for a in joint.agents]
        self.q = [mlp((inputs, *network.critic_hidden, 1), dtype) for _ in joint.agents]
        self.restart()

    def restart(self) -> None:
        """Sets targets equal to the networks and optimisers to their start."""
        self.mu_target, self.q_target = copy.deepcopy(self.mu), copy.deepcopy(self.q)
        rates = self.algorithm.policy_learning_rate, self.algorithm.critic_learning_rate
        self.mu_adam, self.q_adam = (
            [torch.optim.Adam(net.parameters(), lr=rate) for net in nets]
            for nets, rate in zip((self.mu, self.q), rates, strict=True)
        )

    def update(self, batch: dict[str, Tensor], noise: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Updates all agents on one minibatch of joint rows; returns critic and policy losses, agent by agent."""
        agents = range(len(self.joint.agents))
        a_next = self.next_actions(batch)
        critic_losses = [self.update_critic(i, batch, a_next) for i in agents]
        if self.algorithm.teammates == "current":
            self.mu_before = copy.deepcopy(self.mu)
        policy_losses = [self.update_policy(i, batch, noise) for i in agents]
        self.move_targets()
        return critic_losses, policy_losses

    @torch.no_grad()
    def next_actions(self, batch: dict[str, Tensor]) -> list[Tensor]:
        """Returns a'_j = mu'_j(o'_j), or nothing of an agent that is gone by then."""
        actions = []
        for j, agent in enumerate(self.joint.agents):
            alive = (batch["present"][:, j] > 0) & (batch["discount"][:, j] > 0)
            mu_target = greedy_action(agent, self.mu_target[j](batch["next_obs"][:, agent.obs_slice]))
            actions.append(mu_target * alive[:, None])
        return actions

    def update_critic(self, i: int, batch: dict[str, Tensor], a_next: list[Tensor]) -> Tensor:
        x, a, x_next = batch["obs"], batch["action"], batch["next_obs"]
        r, discount, present = (batch[name][:, i] for name in ("reward", "discount", "present"))
        with torch.no_grad():
            q_next = self.q_target[i](torch.cat([x_next, *a_next], 1))[:, 0]
            y = r + self.algorithm.discount * discount * q_next
        error = self.q[i](torch.cat([x, a], 1))[:, 0] - y
        loss = (error.square() * present).sum() / present.sum().clamp(min=1)
        self.descend(self.q[i], self.q_adam[i], loss)
        return loss.detach()

    def update_policy(self, i: int, batch: dict[str, Tensor], noise: Tensor) -> Tensor:
        x, a, present = batch["obs"], batch["action"], batch["present"]
        agent = self.joint.agents[i]
        logits = self.mu[i](x[:, agent.obs_slice])
        hard = self.algorithm.gumbel == "straight_through"
        own = differentiable_action(
            agent, logits, noise[:, agent.action_slice], hard=hard, temperature=self.algorithm.gumbel_temperature
        )
        actions = [a[:, other.action_slice] for other in self.joint.agents]
        if self.algorithm.teammates == "current":
            actions = self.current_actions(batch, noise)
        actions[i] = own
        q = self.q[i](torch.cat([x, *actions], 1))[:, 0]
        penalty = self.algorithm.action_regularisation * logits.square().mean(1)
        loss = ((penalty - q) * present[:, i]).sum() / present[:, i].sum().clamp(min=1)
        self.descend(self.mu[i], self.mu_adam[i], loss)
        return loss.detach()

    def current_actions(self, batch: dict[str, Tensor], noise: Tensor) -> list[Tensor]:
        """Returns every agent's action by the policies as they were before this update."""
        hard = self.algorithm.gumbel == "straight_through"
        actions = []
        for j, agent in enumerate(self.joint.agents):
            with torch.no_grad():
                logits = self.mu_before[j](batch["obs"][:, agent.obs_slice])
                action = differentiable_action(
                    agent,
                    logits,
                    noise[:, agent.action_slice],
                    hard=hard,
                    temperature=self.algorithm.gumbel_temperature,
                )
            actions.append(action * batch["present"][:, j, None])
        return actions

    def descend(self, network: nn.Module, adam: torch.optim.Adam, loss: Tensor) -> None:
        adam.zero_grad()
        loss.backward()
        if self.algorithm.gradient_clip > 0:
            nn.utils.clip_grad_norm_(network.parameters(), self.algorithm.gradient_clip)
        adam.step()

    @torch.no_grad()
    def move_targets(self) -> None:
        tau = self.algorithm.target_rate
        for network, target in zip(self.mu + self.q, self.mu_target + self.q_target, strict=True):
            for new, old in zip(network.parameters(), target.parameters(), strict=True):
                old.copy_((1 - tau) * old + tau * new)
