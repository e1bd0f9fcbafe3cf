"""MADDPG (Lowe et al. 2017): the one update of all agents' critics and policies.

    N agents     C critics     B rows of the batch     O, U  length of the joint observation, of the joint action
    obs, action, reward, discount, next_obs      the transition; `next_` is one step later
    q, q'                                        values by the critics, by their targets

For agent i, over the rows in which it is present:

    y_i   = reward_i + gamma * discount_i * q'_i(next_obs, pi'(next_obs))                  (Lowe et al., equation 6)
    critic loss_i = mean (q_i(obs, action) - y_i)^2
    policy loss_i = -mean q_i(obs, action with agent i's replaced by pi_i(obs_i)) + lambda * mean logits_i^2   (eq. 5)

A time limit is no end of the task: `discount` stays 1 there and y bootstraps from `next_obs`, the true final
observation. An agent that is gone next step acts nothing then: its share of pi' is zero, as in stored actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.policy import layer_shapes
from common.run import AlgorithmSpec, NetworkSpec
from common.spec import JointSpec
from learner_node.algorithms.losses import (
    Batch,
    Losses,
    Shares,
    add_logit_penalty_gradient,
    critic_loss_gradient,
    shares_of,
    td_target,
)
from learner_node.heads import Heads, gumbel_noise
from learner_node.networks import (
    CriticTensors,
    PolicyTensors,
    cohorts,
    critic_order,
    critic_tensors,
    initial_weights,
    policy_order,
    policy_tensors,
)
from learner_node.optimiser import Adam, Clip
from learner_node.passes import CriticPass, PolicyPass

_T = TypeVar("_T", PolicyTensors, CriticTensors)


class Trained(Generic[_T]):
    """Networks of one kind: parameters, their targets and gradients, each flat with views, and the optimiser."""

    def __init__(self, initial: Tensor, order: Tensor, views: Callable[[Tensor], _T]) -> None:
        """Starts networks and targets at `initial` `[P]`, network by network; `order` says where each number lies."""
        self.order = order
        flat = torch.empty_like(initial)
        flat[order] = initial
        self.flat = flat
        self.target_flat = flat.clone()
        self.gradient_flat = torch.zeros_like(flat)
        self.adam = Adam(flat)
        self.online: _T = views(flat)
        self.target: _T = views(self.target_flat)
        self.gradient: _T = views(self.gradient_flat)
        self._clip = Clip(self.gradient.blocks)

    def step(self, clip: float, learning_rate: float) -> Tensor:
        """Clips the gradients, steps the optimiser, and returns the norms before clipping, network by network."""
        norms = self._clip(clip)
        self.adam.step(self.flat, self.gradient_flat, learning_rate)
        return norms

    def follow(self, rate: float) -> None:
        """Moves the targets a share of the way to the parameters."""
        self.target_flat.lerp_(self.flat, rate)


class _Own(NamedTuple):
    """One agent's places in the policy loss: its own action, and its critic's first layer."""

    change: Tensor
    """By how much its action differs from the stored one `[B, u]`."""
    first: Tensor
    """`[B, H]`."""
    d_first: Tensor
    """`[H, B]`."""
    d_action: Tensor
    """`[u, B]`."""


class _Memory:
    """What an update of B rows computes into, taken once."""

    def __init__(self, joint: JointSpec, network: NetworkSpec, rows: int, like: Tensor) -> None:
        self.policy = PolicyPass(cohorts(joint), network.policy_hidden, rows, like)
        self.critic = CriticPass(len(joint.agents), network.critic_hidden, rows, like)
        self.joint = like.new_empty(rows, joint.obs_dim + joint.action_dim)
        self.obs, self.action = self.joint[:, : joint.obs_dim], self.joint[:, joint.obs_dim :]
        self.change = like.new_empty(rows, joint.action_dim)
        self.shares: Shares | None = None
        """What rows count for where all agents act."""
        self.turned = like.new_empty(joint.action_dim, rows)
        first, d_first, width = self.critic.first_layer, self.critic.d_first_layer, network.critic_hidden[0]
        self.own = [
            _Own(
                self.change[:, agent.action_slice],
                first[:, i * width : (i + 1) * width],
                d_first[:, i * width : (i + 1) * width].t(),
                self.turned[agent.action_slice],
            )
            for i, agent in enumerate(joint.agents)
        ]


class Maddpg:
    """All agents' critics and policies, and the update that trains them together."""

    def __init__(
        self, joint: JointSpec, network: NetworkSpec, algorithm: AlgorithmSpec, seed: int, like: Tensor
    ) -> None:
        """Starts from seeded parameters, of the number type and on the device of `like`."""
        self.joint, self.network, self.algorithm = joint, network, algorithm
        self.generator = torch.Generator(like.device).manual_seed(seed)
        self.heads = Heads(joint, like, algorithm.gumbel, algorithm.gumbel_temperature)
        inputs, agents, widths = joint.obs_dim + joint.action_dim, len(joint.agents), network.critic_hidden
        self.policies = Trained(
            _initial([layer_shapes(agent, network) for agent in joint.agents], (seed, 0)).to(like),
            policy_order(joint, network).to(like.device),
            lambda flat: policy_tensors(flat, joint, network),
        )
        self.critics = Trained(
            _initial([list(pairwise((inputs, *widths, 1)))] * agents, (seed, 1)).to(like),
            critic_order(inputs, agents, widths).to(like.device),
            lambda flat: critic_tensors(flat, inputs, agents, widths),
        )
        owners = [i for i, agent in enumerate(joint.agents) for _ in range(agent.action_dim)]
        self._action_owner = torch.tensor(owners, device=like.device)
        lengths = torch.tensor([joint.agents[i].action_dim for i in owners])
        self._penalty = algorithm.action_regularisation / lengths.to(like)
        self._memory = _Memory(joint, network, 0, like)
        first_of_actions = self.critics.online.first_weight[joint.obs_dim :]
        self._own_weights = [
            first_of_actions[agent.action_slice, i * widths[0] : (i + 1) * widths[0]]
            for i, agent in enumerate(joint.agents)
        ]
        """Each critic's first weights for its own agent's action `[u, H]`."""

    @torch.inference_mode()
    def update(self, batch: Batch, policy_learning_rate: float, critic_learning_rate: float) -> Losses:
        """Trains critics, then policies, then moves the targets, all on one batch."""
        self._memory_for(len(batch.joint))
        shares = self._shares_of(batch)
        error = self._critic_error(batch, shares)
        critic_norm = self._update_critics(batch, critic_loss_gradient(error, shares), critic_learning_rate)
        logits, values, policy_norm = self._update_policies(batch, shares, policy_learning_rate)
        self.critics.follow(self.algorithm.target_rate)
        self.policies.follow(self.algorithm.target_rate)
        return Losses(critic_norm, policy_norm, error, values, logits, shares, self._action_owner)

    @torch.inference_mode()
    def logits(self, obs: Tensor) -> Tensor:
        """Returns the policies' logits `[B, U]` for observations `[B, O]`, valid until the next call."""
        return self._memory_for(len(obs)).policy.forward(self.policies.online, obs)

    def policy_weights(self) -> npt.NDArray[np.float32]:
        """Returns all policies in the flat layout of common/policy.py."""
        flat: npt.NDArray[np.float32] = self.policies.flat[self.policies.order].float().cpu().numpy()
        return flat

    def load_policy_weights(self, flat: npt.NDArray[np.float32]) -> None:
        """Takes all policies from the flat layout of common/policy.py; targets stay as they are."""
        self.policies.flat[self.policies.order] = torch.from_numpy(flat.copy()).to(self.policies.flat)

    def _memory_for(self, rows: int) -> _Memory:
        if len(self._memory.joint) != rows:
            self._memory = _Memory(self.joint, self.network, rows, self.policies.flat)
        return self._memory

    def _shares_of(self, batch: Batch) -> Shares:
        if not batch.complete:
            return shares_of(batch, self._action_owner, self._penalty)
        if self._memory.shares is None:
            self._memory.shares = shares_of(batch, self._action_owner, self._penalty)
        return self._memory.shares

    @torch.inference_mode()
    def td_targets(self, batch: Batch) -> Tensor:
        """Returns `y` `[N, B]` by the target networks."""
        self._memory_for(len(batch.joint))
        return self._td_targets(batch, self._shares_of(batch))

    def _td_targets(self, batch: Batch, shares: Shares) -> Tensor:
        memory = self._memory
        memory.obs.copy_(batch.next_obs)
        actions = self.heads.greedy(memory.policy.forward(self.policies.target, memory.obs))
        _put(actions, shares.acts_next, memory.action)
        memory.critic.first(self.critics.target, memory.joint)
        return td_target(batch, memory.critic.rest(self.critics.target), self.algorithm.discount)

    def _critic_error(self, batch: Batch, shares: Shares) -> Tensor:
        """Runs the critics forward; returns by how much their values miss the target `[N, B]`."""
        target = self._td_targets(batch, shares)
        self._memory.critic.first(self.critics.online, batch.joint)
        return self._memory.critic.rest(self.critics.online) - target

    def _update_critics(self, batch: Batch, d_values: Tensor, learning_rate: float) -> Tensor:
        critics = self.critics
        self._memory.critic.backward(critics.online, critics.gradient, batch.joint, d_values)
        return critics.step(self.algorithm.gradient_clip, learning_rate)

    def _update_policies(self, batch: Batch, shares: Shares, learning_rate: float) -> tuple[Tensor, Tensor, Tensor]:
        policies, critic, memory = self.policies, self.critics.online, self._memory
        obs = batch.joint[:, : self.joint.obs_dim]
        logits = memory.policy.forward(policies.online, obs)
        sample = self.heads.sample(logits, self._noise(len(obs)))
        self._first_of_current(batch, shares, sample.actions)
        values = memory.critic.rest(critic)
        memory.critic.input_backward(critic, shares.rows.neg())
        d_logits = self.heads.backward(sample, self._own_action_gradient())
        add_logit_penalty_gradient(d_logits, logits, shares)
        memory.policy.backward(policies.online, policies.gradient, obs, d_logits)
        return logits, values, policies.step(self.algorithm.gradient_clip, learning_rate)

    def _noise(self, rows: int) -> Tensor | None:
        if not self.heads.choices:
            return None
        return gumbel_noise(rows, self.heads.choices, self.policies.flat, self.generator)

    def _first_of_current(self, batch: Batch, shares: Shares, actions: Tensor) -> None:
        """Starts the critics' pass with each critic's own agent acting by its current policy.

        With teammates as stored, only the own action's share of the first product differs from critic to critic.
        """
        critic, memory = self.critics.online, self._memory
        if self.algorithm.teammates == "current":
            memory.obs.copy_(batch.joint[:, : self.joint.obs_dim])
            _put(actions, shares.acts, memory.action)
            memory.critic.first(critic, memory.joint)
            return
        memory.critic.first(critic, batch.joint)
        torch.sub(actions, batch.joint[:, self.joint.obs_dim :], out=memory.change)
        for own, weight in zip(memory.own, self._own_weights, strict=True):
            own.first.addmm_(own.change, weight)

    def _own_action_gradient(self) -> Tensor:
        """Returns what each agent's own action changes in its own critic's loss `[B, U]`."""
        memory = self._memory
        for own, weight in zip(memory.own, self._own_weights, strict=True):
            torch.mm(weight, own.d_first, out=own.d_action)
        return memory.change.copy_(memory.turned.t())


def _put(actions: Tensor, acts: Tensor | None, into: Tensor) -> None:
    """Writes joint actions `[B, U]`, with zeros for agents that do not act."""
    if acts is None:
        into.copy_(actions)
    else:
        torch.mul(actions, acts, out=into)


def _initial(shapes: Sequence[Sequence[tuple[int, int]]], seed: tuple[int, int]) -> Tensor:
    """Draws networks given by the (inputs, outputs) of their layers, each from a stream of its own."""
    drawn = [initial_weights(own, (*seed, i)) for i, own in enumerate(shapes)]
    return torch.from_numpy(np.concatenate(drawn))
