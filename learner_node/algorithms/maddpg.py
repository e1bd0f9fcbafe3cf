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

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.policy import layer_shapes
from common.run import AlgorithmSpec, NetworkSpec
from common.spec import JointSpec
from learner_node.heads import Heads, gumbel_noise
from learner_node.networks import (
    CriticTensors,
    PolicyTensors,
    critic_order,
    critic_tensors,
    initial_weights,
    policy_order,
    policy_tensors,
)
from learner_node.optimiser import Adam, Blocks, clip_by_owner
from learner_node.passes import (
    critic_backward,
    critic_first,
    critic_input_gradient,
    critic_rest,
    policy_backward,
    policy_forward,
)

from learner_node.scratch import Scratch

_T = TypeVar("_T")


@dataclass(frozen=True)
class Batch:
    """Transitions as tensors; `joint` is obs and action side by side, as they stand in the records."""

    joint: Tensor
    """`[B, O+U]`."""
    next_obs: Tensor
    """`[B, O]`."""
    reward: Tensor
    """`[B, N]`, as are the two below."""
    discount: Tensor
    present: Tensor


@dataclass(frozen=True)
class Losses:
    """What one update measured, agent by agent `[N]`, still on its device."""

    critic_loss: Tensor
    policy_loss: Tensor
    critic_gradient_norm: Tensor
    policy_gradient_norm: Tensor
    value: Tensor


def td_target(batch: Batch, next_values: Tensor, gamma: float) -> Tensor:
    """Returns `y` `[N, B]` from the target critics' values of the next step `[N, B]`."""
    return torch.addcmul(batch.reward.t(), batch.discount.t(), next_values, value=gamma)


def squared_error(values: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the critics' losses `[C]` and the gradient of the values `[C, B]`.

    `weight` `[C, B]` is each row's share of the mean; it sums to 1 over the rows an agent is present in.
    """
    error = values - target
    weighted = error * weight
    return (weighted * error).sum(1), weighted.mul_(2.0)


def row_weights(present: Tensor) -> Tensor:
    """Returns each row's share of an agent's mean `[N, B]`: 0 where it is absent, and all 0 where it always is."""
    mask = present.t()
    return mask / mask.sum(1, keepdim=True).clamp_(min=1.0)


class Trained(Generic[_T]):
    """Networks of one kind: parameters, their targets and gradients, each flat with views, and the optimiser."""

    def __init__(self, flat: Tensor, views: Callable[[Tensor], _T]) -> None:
        """Starts targets equal to the parameters `[P]`."""
        self.flat = flat
        self.target_flat = flat.clone()
        self.gradient_flat = torch.zeros_like(flat)
        self.adam = Adam(flat)
        self.online, self.target, self.gradient = map(views, (flat, self.target_flat, self.gradient_flat))

    def step(self, blocks: Blocks, owners: int, clip: float, learning_rate: float) -> Tensor:
        """Clips the gradients, steps the optimiser, and returns the norms before clipping `[owners]`."""
        norms = clip_by_owner(blocks, owners, clip)
        self.adam.step(self.flat, self.gradient_flat, learning_rate)
        return norms

    def follow(self, rate: float) -> None:
        """Moves the targets a share of the way to the parameters."""
        self.target_flat.lerp_(self.flat, rate)


class Maddpg:
    """All agents' critics and policies, and the update that trains them together."""

    def __init__(
        self,
        joint: JointSpec,
        network: NetworkSpec,
        algorithm: AlgorithmSpec,
        seed: int,
        like: Tensor,
    ) -> None:
        """Starts from seeded parameters, of the number type and on the device of `like`."""
        self.joint, self.algorithm = joint, algorithm
        self.generator = torch.Generator(like.device).manual_seed(seed)
        self.heads = Heads(joint, like, algorithm.gumbel, algorithm.gumbel_temperature)
        self._scratch = Scratch(like)
        inputs, agents, hidden = joint.obs_dim + joint.action_dim, len(joint.agents), network.critic_hidden
        self.policies = Trained(
            _initial_policies(joint, network, seed).to(like), lambda flat: policy_tensors(flat, joint, network)
        )
        self.critics = Trained(
            _initial_critics(inputs, agents, hidden, seed).to(like),
            lambda flat: critic_tensors(flat, inputs, agents, hidden),
        )
        owners = [i for i, agent in enumerate(joint.agents) for _ in range(agent.action_dim)]
        lengths = [joint.agents[i].action_dim for i in owners]
        self._action_owner = torch.tensor(owners, device=like.device)
        self._penalty = algorithm.action_regularisation / torch.tensor(lengths).to(like)

    def update(self, batch: Batch, policy_learning_rate: float, critic_learning_rate: float) -> Losses:
        """Trains critics, then policies, then moves the targets, all on one batch."""
        weight = row_weights(batch.present)
        critic_loss, critic_norm = self._update_critics(batch, weight, critic_learning_rate)
        policy_loss, value, policy_norm = self._update_policies(batch, weight, policy_learning_rate)
        self.critics.follow(self.algorithm.target_rate)
        self.policies.follow(self.algorithm.target_rate)
        return Losses(critic_loss, policy_loss, critic_norm, policy_norm, value)

    def _target(self, batch: Batch) -> Tensor:
        alive = (batch.present * (batch.discount > 0))[:, self._action_owner]
        scratch = self._scratch
        scratch.reset()
        next_joint = scratch.empty(*batch.joint.shape)
        next_joint[:, : self.joint.obs_dim] = batch.next_obs
        _, logits = policy_forward(self.policies.target, batch.next_obs, scratch)
        torch.mul(self.heads.greedy(logits), alive, out=next_joint[:, self.joint.obs_dim :])
        _, values = critic_rest(self.critics.target, critic_first(self.critics.target, next_joint, scratch), scratch)
        return td_target(batch, values, self.algorithm.discount)

    def _update_critics(self, batch: Batch, weight: Tensor, learning_rate: float) -> tuple[Tensor, Tensor]:
        target = self._target(batch)
        critics, scratch = self.critics, self._scratch
        scratch.reset()
        hidden, values = critic_rest(critics.online, critic_first(critics.online, batch.joint, scratch), scratch)
        loss, d_values = squared_error(values, target, weight)
        critics.gradient_flat.zero_()
        critic_backward(critics.online, critics.gradient, batch.joint, hidden, d_values, scratch)
        norms = critics.step(critics.gradient.blocks, len(loss), self.algorithm.gradient_clip, learning_rate)
        return loss, norms

    def _update_policies(self, batch: Batch, weight: Tensor, learning_rate: float) -> tuple[Tensor, Tensor, Tensor]:
        policies, critic, scratch = self.policies, self.critics.online, self._scratch
        scratch.reset()
        obs = batch.joint[:, : self.joint.obs_dim]
        hidden, logits = policy_forward(policies.online, obs, scratch)
        noise = None
        if self.heads.choices:
            noise = gumbel_noise(len(obs), self.heads.choices, obs, self.generator)
        sample = self.heads.sample(logits, noise)
        critic_hidden, values = critic_rest(critic, self._first_of_current(batch, sample.actions), scratch)
        d_first = critic_input_gradient(critic, critic_hidden, weight.neg(), scratch)
        d_logits = self.heads.backward(sample, self._own_action_gradient(d_first))
        penalty = self._regularise(logits, weight, d_logits)
        policies.gradient_flat.zero_()
        policy_backward(policies.online, policies.gradient, obs, hidden, d_logits, scratch)
        value = (values * weight).sum(1)
        norms = policies.step(policies.gradient.blocks, len(value), self.algorithm.gradient_clip, learning_rate)
        return penalty - value, value, norms

    def _first_of_current(self, batch: Batch, actions: Tensor) -> Tensor:
        """Returns the critics' first layer `[B, N*H]` with each critic's own agent acting by its current policy.

        With teammates as stored, only the own action's share of the product differs from critic to critic.
        """
        critic, stored = self.critics.online, batch.joint[:, self.joint.obs_dim :]
        if self.algorithm.teammates == "current":
            acting = batch.present[:, self._action_owner]
            return critic_first(critic, torch.cat([batch.joint[:, : self.joint.obs_dim], actions * acting], 1), self._scratch)
        first = critic_first(critic, batch.joint, self._scratch)
        change = actions - stored
        for own, columns, weight in self._own_action_weights():
            first[:, columns].addmm_(change[:, own], weight)
        return first

    def _own_action_gradient(self, d_first: Tensor) -> Tensor:
        """Returns what each agent's own action changes in its own critic `[B, U]`."""
        d_actions = d_first.new_empty(self.joint.action_dim, d_first.shape[1])
        for agent, (own, _, weight) in enumerate(self._own_action_weights()):
            torch.mm(weight, d_first[agent].t(), out=d_actions[own])
        return d_actions.t().contiguous()

    def _own_action_weights(self) -> list[tuple[slice, slice, Tensor]]:
        """Returns, agent by agent, its columns of the joint action, of the critics' first layer, and the weights."""
        first, width = self.critics.online.first_weight, self.critics.online.first_bias.shape[1]
        actions = first[self.joint.obs_dim :]
        places = [(a.action_slice, slice(i * width, (i + 1) * width)) for i, a in enumerate(self.joint.agents)]
        return [(own, columns, actions[own, columns]) for own, columns in places]

    def _regularise(self, logits: Tensor, weight: Tensor, d_logits: Tensor) -> Tensor:
        """Adds the gradient of lambda * mean logits^2 to `d_logits`; returns that penalty `[N]`."""
        owner = self._action_owner
        share = weight.t()[:, owner] * self._penalty
        d_logits.addcmul_(logits, share, value=2.0)
        by_number = (logits.square() * share).sum(0)
        return torch.zeros_like(weight[:, 0]).index_add_(0, owner, by_number)


def _initial_policies(joint: JointSpec, network: NetworkSpec, seed: int) -> Tensor:
    drawn = [initial_weights(layer_shapes(agent, network), (seed, 0, i)) for i, agent in enumerate(joint.agents)]
    return _stacked(drawn, policy_order(joint, network))


def _initial_critics(inputs: int, critics: int, hidden: tuple[int, ...], seed: int) -> Tensor:
    shapes = list(pairwise((inputs, *hidden, 1)))
    drawn = [initial_weights(shapes, (seed, 1, i)) for i in range(critics)]
    return _stacked(drawn, critic_order(inputs, critics, hidden))


def _stacked(drawn: list[npt.NDArray[np.float32]], order: Tensor) -> Tensor:
    flat = torch.empty(len(order))
    flat[order] = torch.from_numpy(np.concatenate(drawn))
    return flat
