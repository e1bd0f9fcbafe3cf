"""Forward and backward passes of the stacked networks.

    N agents     C critics     B rows of the batch     H width of a hidden layer
    O, U         length of the joint observation, of the joint action        o, u  the same of one agent

Products with few outputs (logits, values, gradients of actions) are computed with the rows last, along the batch,
where they are twice as fast, and turned afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from learner_node.networks import Affine, CriticTensors, PolicyTensors
from learner_node.scratch import Scratch


def policy_forward(policy: PolicyTensors, obs: Tensor, scratch: Scratch) -> tuple[list[Tensor], Tensor]:
    """Returns each hidden layer after its ReLU `[N, B, H]` and the logits `[B, U]` for observations `[B, O]`."""
    agents, width = policy.first_bias.shape
    first = scratch.empty(agents, len(obs), width)
    logits = scratch.empty(policy.cohorts[-1].action.stop, len(obs))
    for run, weight in zip(policy.cohorts, policy.first_weights, strict=True):
        own = _agent_views(obs[:, run.obs], run.size)
        torch.baddbmm(policy.first_bias[run.agents, None], own, weight, out=first[run.agents])
    hidden = _up(policy.hidden, first.relu_(), scratch)
    for run, weight, bias in zip(policy.cohorts, policy.last_weights, policy.last_biases, strict=True):
        out = logits[run.action].unflatten(0, (run.size, run.action_dim))
        torch.baddbmm(bias[:, :, None], weight, hidden[-1][run.agents].transpose(1, 2), out=out)
    return hidden, logits.t().contiguous()


def policy_backward(
    policy: PolicyTensors, into: PolicyTensors, obs: Tensor, hidden: Sequence[Tensor], d_logits: Tensor, scratch: Scratch
) -> None:
    """Adds to `into` the gradients of the policies' parameters, given those of the logits `[B, U]`."""
    grad = scratch.empty_like(hidden[-1])
    for i, run in enumerate(policy.cohorts):
        d_own = _agent_views(d_logits[:, run.action], run.size).transpose(1, 2)
        into.last_weights[i].baddbmm_(d_own, hidden[-1][run.agents])
        into.last_biases[i].add_(d_own.sum(2))
        torch.bmm(d_own.transpose(1, 2), policy.last_weights[i], out=grad[run.agents])
    grad = _down(policy.hidden, hidden, grad, into.hidden, scratch)
    into.first_bias.add_(grad.sum(1))
    for i, run in enumerate(policy.cohorts):
        own = _agent_views(obs[:, run.obs], run.size)
        into.first_weights[i].baddbmm_(own.transpose(1, 2), grad[run.agents])


def critic_first(critic: CriticTensors, joint: Tensor, scratch: Scratch) -> Tensor:
    """Returns the first layer before its ReLU `[B, C*H]` for joint observations and actions `[B, O+U]`."""
    out = scratch.empty(len(joint), critic.first_weight.shape[1])
    return torch.addmm(critic.first_bias.flatten(), joint, critic.first_weight, out=out)


def critic_rest(critic: CriticTensors, first: Tensor, scratch: Scratch) -> tuple[list[Tensor], Tensor]:
    """Returns each hidden layer after its ReLU `[C, B, H]` and the values `[C, B]`; overwrites `first`."""
    hidden = _up(critic.hidden, _agent_views(first.relu_(), len(critic.first_bias)), scratch)
    values = torch.baddbmm(critic.last_bias[:, None], critic.last_weight, hidden[-1].transpose(1, 2))
    return hidden, values.squeeze(1)


def critic_backward(
    critic: CriticTensors, into: CriticTensors, joint: Tensor, hidden: Sequence[Tensor], d_values: Tensor, scratch: Scratch
) -> None:
    """Adds to `into` the gradients of the critics' parameters, given those of the values `[C, B]`."""
    into.last_weight.baddbmm_(d_values[:, None], hidden[-1])
    into.last_bias.add_(d_values.sum(1, keepdim=True))
    d_first = _down(critic.hidden, hidden, _outer(critic, hidden, d_values, scratch), into.hidden, scratch)
    into.first_bias.add_(d_first.sum(1))
    into.first_weight.addmm_(joint.t(), d_first.transpose(0, 1).flatten(1))


def critic_input_gradient(
    critic: CriticTensors, hidden: Sequence[Tensor], d_values: Tensor, scratch: Scratch
) -> Tensor:
    """Returns the gradient of the first layer before its ReLU `[C, B, H]`, given that of the values `[C, B]`."""
    return _down(critic.hidden, hidden, _outer(critic, hidden, d_values, scratch), None, scratch)


def _agent_views(rows: Tensor, agents: int) -> Tensor:
    """Sees `[B, agents*k]` as `[agents, B, k]` without copying."""
    return rows.unflatten(1, (agents, -1)).transpose(0, 1)


def _outer(critic: CriticTensors, hidden: Sequence[Tensor], d_values: Tensor, scratch: Scratch) -> Tensor:
    """Returns the gradient of the last hidden layer `[C, B, H]`."""
    return torch.mul(d_values[:, :, None], critic.last_weight, out=scratch.empty_like(hidden[-1]))


def _up(layers: Sequence[Affine], first: Tensor, scratch: Scratch) -> list[Tensor]:
    hidden = [first]
    for layer in layers:
        below = hidden[-1]
        out = scratch.empty(len(below), below.shape[1], layer.weight.shape[2])
        hidden.append(torch.baddbmm(layer.bias[:, None], below, layer.weight, out=out).relu_())
    return hidden


def _down(
    layers: Sequence[Affine],
    hidden: Sequence[Tensor],
    grad: Tensor,
    into: Sequence[Affine] | None,
    scratch: Scratch,
) -> Tensor:
    """Goes back through the hidden layers; returns the gradient of the first layer before its ReLU."""
    for i in reversed(range(len(layers))):
        grad = _relu_backward(grad, hidden[i + 1])
        if into is not None:
            into[i].weight.baddbmm_(hidden[i].transpose(1, 2), grad)
            into[i].bias.add_(grad.sum(1))
        grad = torch.bmm(grad, layers[i].weight.transpose(1, 2), out=scratch.empty_like(hidden[i]))
    return _relu_backward(grad, hidden[0])


def _relu_backward(grad: Tensor, activation: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward.grad_input(grad, activation, 0, grad_input=grad)
