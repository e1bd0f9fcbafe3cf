"""The slow, literal twin of the learner's update: a module a network, loops over players, autograd, torch.optim.

Notation of Lowe et al. 2017, algorithm 1: players i = 1..N with observations o_i, actions a_i, rewards r_i; x = (o_1 ..
o_N); policies mu_i, critics Q_i(x, a_1 .. a_N); primes mark target networks and the next step.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.run.players import algorithms_by_side, members_of, players
from common.run.run import AlgorithmSpec, NetworkSpec
from common.spec import AgentSpec, AgentsSpec, Box


class Net(nn.Module):
    """A ReLU network of one or several users; each may have first biases of its own."""

    def __init__(self, sizes: Sequence[int], users: Sequence[int], *, apart: bool) -> None:
        super().__init__()
        self.users = list(users)
        layers = [nn.Linear(i, o, dtype=torch.float64) for i, o in pairwise(sizes)]
        self.weights = nn.ParameterList([layer.weight for layer in layers])
        sets = len(users) if apart else 1
        self.first_biases = nn.ParameterList([nn.Parameter(layers[0].bias.detach().clone()) for _ in range(sets)])
        self.biases = nn.ParameterList([layer.bias for layer in layers[1:]])

    def forward(self, x: Tensor, user: int) -> Tensor:
        first = self.first_biases[self.users.index(user) if len(self.first_biases) > 1 else 0]
        for depth, (weight, bias) in enumerate(zip(self.weights, [first, *self.biases], strict=True)):
            x = F.linear(x, weight, bias)
            x = F.relu(x) if depth < len(self.weights) - 1 else x
        return x

    def pieces(self) -> list[Tensor]:
        """Returns what a flat copy holds: layer by layer, weight `[inputs, outputs]`, then bias (or biases)."""
        rest = [
            p for weight, bias in zip(self.weights[1:], self.biases, strict=True) for p in (weight.data.t(), bias.data)
        ]
        return [self.weights[0].data.t(), *(bias.data for bias in self.first_biases), *rest]


def load(networks: Sequence[Net], flat: Tensor) -> None:
    """Gives flat parameters, network by network."""
    at = 0
    for network in networks:
        for piece in network.pieces():
            piece.copy_(flat[at : at + piece.numel()].view(piece.shape))
            at += piece.numel()
    assert at == len(flat)


def flatten(networks: Sequence[Net]) -> Tensor:
    """Returns the parameters in the order of `load`."""
    return torch.cat([piece.flatten() for network in networks for piece in network.pieces()])


def bounds(part: Box, like: Tensor) -> tuple[Tensor, Tensor]:
    low, high = torch.tensor(part.low).to(like), torch.tensor(part.high).to(like)
    return (high + low) / 2, (high - low) / 2


def force(h: Tensor) -> Tensor:
    """Returns tanh(|h|) h / |h| of `[B, 2]`, by its series near 0."""
    square = h.square().sum(1, keepdim=True)
    is_short = square < 1e-6
    norm = torch.where(is_short, 1.0, square).sqrt()
    return h * torch.where(is_short, 1 - square / 3 + 2 * square**2 / 15, torch.tanh(norm) / norm)


def box_action(part: Box, logits: Tensor, head: str, noise: Tensor | float = 0.0) -> Tensor:
    """Returns what a Box part does by one of the heads; `noise` is Gumbel noise for a soft choice."""
    middle, half = bounds(part, logits)
    if head == "soft":
        return F.softmax(logits + noise, 1)
    if head == "force" and part.size == 2:
        return middle + half * force(logits)
    if head == "force" and part == Box((0.0,) * 5, (1.0,) * 5):
        _, left, right, down, up = logits.t()
        x, y = force(torch.stack([right - left, up - down], 1)).t()
        return torch.stack([0 * x, (1 - x) / 2, (1 + x) / 2, (1 - y) / 2, (1 + y) / 2], 1)
    return middle + half * torch.tanh(logits)


def greedy_action(agent: AgentSpec, logits: Tensor, head: str = "box") -> Tensor:
    """Returns a_i = mu_i(o_i) without exploration."""
    parts = []
    for part, columns in zip(agent.parts, agent.part_slices, strict=True):
        own = logits[:, columns]
        if isinstance(part, Box):
            parts.append(box_action(part, own, head))
        else:
            parts.append(F.one_hot(own.argmax(1), part.n).to(own))
    return torch.cat(parts, 1)


def differentiable_action(
    agent: AgentSpec, logits: Tensor, noise: Tensor, *, hard: bool, temperature: float, head: str = "box"
) -> Tensor:
    """Returns a_i with a gradient; `noise` holds Gumbel noise where the action has Categorical or soft parts."""
    parts = []
    for part, columns in zip(agent.parts, agent.part_slices, strict=True):
        own = logits[:, columns]
        if isinstance(part, Box):
            parts.append(box_action(part, own, head, noise[:, columns]))
            continue
        soft = F.softmax((own + noise[:, columns]) / temperature, 1)
        one_hot = F.one_hot(soft.argmax(1), part.n).to(own)
        parts.append(one_hot + soft - soft.detach() if hard else soft)
    return torch.cat(parts, 1)


class Noise(NamedTuple):
    """What an update draws at random, `[B, U]` each."""

    smoothing: Tensor
    gumbel: Tensor


class LiteralMaddpg:
    """N players with a policy and one or two critics each, updated one after the other."""

    def __init__(self, joint: AgentsSpec, network: NetworkSpec, algorithm: AlgorithmSpec) -> None:
        self.agents, self.joint = joint, players(joint, algorithm.name)
        self.network, self.algorithm, self.head = network, algorithm, network.head
        by_side = algorithms_by_side(self.joint, algorithm.name)
        self.kinds = [by_side[player.team] for player in self.joint.agents]
        self.everyone = range(len(self.joint.agents))
        apart = network.tell_apart
        self.mu, self.mu_of = [], {}
        for group in self.groups(shared=network.share_policies):
            player = self.joint.agents[group[0]]
            self.mu.append(Net((player.obs_dim, *network.policy_hidden, player.action_dim), group, apart=apart))
            self.mu_of |= dict.fromkeys(group, self.mu[-1])
        self.q: list[Net] = []
        self.q_of: list[dict[int, Net]] = [{}, {}]
        for k in (0, 1):
            for group in self.groups(shared=network.share_critics):
                if k and self.kinds[group[0]] != "matd3":
                    continue
                inputs = sum(len(columns) for columns in self.sees(group[0]))
                self.q.append(Net((inputs, *network.critic_hidden, 1), group, apart=apart))
                self.q_of[k] |= dict.fromkeys(group, self.q[-1])
        self.restart()

    def groups(self, *, shared: bool) -> list[list[int]]:
        """Returns who shares: neighbours of one name (without number), side and shape."""
        found: list[list[int]] = []
        last: object = None
        for i, player in enumerate(self.joint.agents):
            kin = re.sub(r"_?[0-9]+$", "", player.name), player.team, player.obs_dim, player.parts
            if shared and found and kin == last:
                found[-1].append(i)
            else:
                found.append([i])
            last = kin
        return found

    def sees(self, i: int) -> list[range]:
        """Returns the columns of (x, a) that critic i reads, in order."""
        if self.kinds[i] == "iddpg":
            return self.own_columns(i)
        mates = next(group for group in self.groups(shared=self.network.share_critics) if i in group)
        if len(mates) == 1:
            return [range(self.joint.obs_dim + self.joint.action_dim)]
        at = mates.index(i)
        order = mates[at:] + mates[:at] + [j for j in self.everyone if j not in mates]
        return [columns for j in order for columns in self.own_columns(j)]

    def own_columns(self, i: int) -> list[range]:
        player, obs_dim = self.joint.agents[i], self.joint.obs_dim
        obs, action = player.obs_slice, player.action_slice
        return [range(obs.start, obs.stop), range(obs_dim + action.start, obs_dim + action.stop)]

    def value(self, critics: dict[int, Net], i: int, x: Tensor, actions: Sequence[Tensor]) -> Tensor:
        """Returns Q_i(x, a_1 .. a_N) `[B]`."""
        everything = torch.cat([x, *actions], 1)
        columns = [column for run in self.sees(i) for column in run]
        return critics[i](everything[:, columns], i)[:, 0]

    def restart(self) -> None:
        """Sets targets equal to the networks and optimisers to their start."""
        self.target = copy.deepcopy((self.mu, self.q, self.mu_of, self.q_of))
        algorithm = self.algorithm
        self.adam, self.norms = {}, {}
        for nets, rate, decay in (
            (self.mu, algorithm.policy_learning_rate, algorithm.policy_weight_decay),
            (self.q, algorithm.critic_learning_rate, algorithm.critic_weight_decay),
        ):
            for net in nets:
                own = rate * algorithm.side_learning_rates.get(self.joint.agents[net.users[0]].team, 1.0)
                self.adam[net] = torch.optim.Adam(net.parameters(), lr=own, weight_decay=decay)

    def update(
        self, batch: dict[str, Tensor], noise: Noise, importance: Tensor | None = None, *, policies: bool = True
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Updates all on one minibatch of joint rows; returns critic and policy losses, player by player."""
        self.batch = {**batch, **self.told(batch)}
        targets = self.td_targets(noise.smoothing)
        critic_losses = self.update_critics(targets, importance)
        if not policies:
            return critic_losses, []
        policy_losses = self.update_policies(noise.gumbel)
        self.move_targets()
        return critic_losses, policy_losses

    def told(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns what players are told: rewards mixed with their team's, and whether any of their agents is there."""
        spirit, agents = self.algorithm.team_spirit, self.agents.agents
        mixed = []
        for i, agent in enumerate(agents):
            team = [j for j, other in enumerate(agents) if other.team == agent.team]
            mean = batch["reward"][:, team].mean(1)
            mixed.append(self.algorithm.reward_scale * ((1 - spirit) * batch["reward"][:, i] + spirit * mean))
        members = [list(members_of(self.agents, player)) for player in self.joint.agents]
        return {
            "r": torch.stack([torch.stack([mixed[i] for i in own]).mean(0) for own in members], 1),
            "d": torch.stack([batch["discount"][:, own].max(1).values for own in members], 1),
            "there": torch.stack([batch["present"][:, own].max(1).values for own in members], 1),
            "acts": self.by_number(batch["present"]),
            "acts_next": self.by_number(batch["present"] * (batch["discount"] > 0)),
        }

    def by_number(self, agents: Tensor) -> Tensor:
        owners = [i for i, agent in enumerate(self.agents.agents) for _ in range(agent.action_dim)]
        return agents[:, owners]

    @torch.no_grad()
    def td_targets(self, smoothing: Tensor) -> list[Tensor]:
        """Returns y_i = r_i + gamma d_i min Q'_i(x', mu'(o') + noise)."""
        algorithm, x_next = self.algorithm, self.batch["next_obs"]
        _, _, mu_target, q_target = self.target
        actions = []
        for j, player in enumerate(self.joint.agents):
            action = greedy_action(player, mu_target[j](x_next[:, player.obs_slice], j), self.head)
            if self.kinds[j] == "matd3":
                action = self.smoothed(player, action, smoothing[:, player.action_slice])
            actions.append(action * self.batch["acts_next"][:, player.action_slice])
        found = []
        for i in self.everyone:
            values = [self.value(q_target[k], i, x_next, actions) for k in (0, 1) if i in q_target[k]]
            q_next = torch.stack(values).min(0).values
            found.append(self.batch["r"][:, i] + algorithm.discount * self.batch["d"][:, i] * q_next)
        return found

    def smoothed(self, player: AgentSpec, action: Tensor, drawn: Tensor) -> Tensor:
        clip = self.algorithm.smoothing_clip
        drawn = (drawn * self.algorithm.smoothing).clamp(-clip, clip)
        parts = []
        for part, columns in zip(player.parts, player.part_slices, strict=True):
            own = action[:, columns]
            if isinstance(part, Box) and self.head != "soft":
                low, high = torch.tensor(part.low).to(own), torch.tensor(part.high).to(own)
                noise = drawn[:, columns] * (high - low) / 2
                if self.head == "force" and part == Box((0.0,) * 5, (1.0,) * 5):
                    right, up = noise[:, 2], noise[:, 4]
                    noise = torch.stack([0 * up, -right, right, -up, up], 1)
                own = (own + noise).clamp(low, high)
            parts.append(own)
        return torch.cat(parts, 1)

    def mean(self, rows: Tensor, i: int) -> Tensor:
        """Returns the mean over the rows in which player i is there."""
        there = self.batch["there"][:, i]
        return (rows * there).sum() / there.sum().clamp(min=1)

    def update_critics(self, targets: list[Tensor], importance: Tensor | None) -> list[Tensor]:
        actions = [self.batch["action"][:, player.action_slice] for player in self.joint.agents]
        reported, losses = [], []
        for k in (0, 1):
            for i in self.q_of[k]:
                error = self.value(self.q_of[k], i, self.batch["obs"], actions) - targets[i]
                if self.algorithm.critic_loss == "huber":
                    each = F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none")
                else:
                    each = error.square()
                reported += [self.mean(each, i).detach()] if k == 0 else []
                losses.append(self.mean(each if importance is None else each * importance, i))
        self.descend(self.q, sum(losses))
        return reported

    def update_policies(self, gumbel: Tensor) -> list[Tensor]:
        obs = self.batch["obs"]
        logits, current = [], []
        for i, player in enumerate(self.joint.agents):
            logits.append(self.mu_of[i](obs[:, player.obs_slice], i))
            action = differentiable_action(
                player,
                logits[i],
                gumbel[:, player.action_slice],
                hard=self.algorithm.gumbel == "straight_through",
                temperature=self.algorithm.gumbel_temperature,
                head=self.head,
            )
            current.append(action)
        losses = []
        for i in self.everyone:
            actions = [self.teammate(j, current[j]) for j in self.everyone]
            actions[i] = current[i]
            if self.algorithm.teammates == "current":
                actions[i] = current[i] * self.batch["acts"][:, self.joint.agents[i].action_slice]
            q = self.value(self.q_of[0], i, obs, actions)
            losses.append(self.mean(self.algorithm.action_regularisation * logits[i].square().mean(1) - q, i))
        self.descend(self.mu, sum(losses))
        return [loss.detach() for loss in losses]

    def teammate(self, j: int, current: Tensor) -> Tensor:
        columns = self.joint.agents[j].action_slice
        if self.algorithm.teammates == "current":
            return current.detach() * self.batch["acts"][:, columns]
        return self.batch["action"][:, columns]

    def descend(self, networks: Sequence[Net], loss: Tensor) -> None:
        for network in networks:
            self.adam[network].zero_grad()
        loss.backward(inputs=[parameter for network in networks for parameter in network.parameters()])
        for network in networks:
            gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
            self.norms[network] = torch.cat([gradient.flatten() for gradient in gradients]).norm()
            self.clip(gradients, self.norms[network])
            self.adam[network].step()

    def clip(self, gradients: Sequence[Tensor], norm: Tensor) -> None:
        """Shortens a network's gradient to the largest norm (torch's own function divides by the norm + 1e-6)."""
        if 0 < self.algorithm.gradient_clip < norm:
            for gradient in gradients:
                gradient.mul_(self.algorithm.gradient_clip / norm)

    @torch.no_grad()
    def move_targets(self) -> None:
        tau = self.algorithm.target_rate
        for network, target in zip(self.mu + self.q, self.target[0] + self.target[1], strict=True):
            for new, old in zip(network.parameters(), target.parameters(), strict=True):
                old.copy_((1 - tau) * old + tau * new)
