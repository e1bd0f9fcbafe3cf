"""Forward and backward passes of the stacked networks, in memory taken once.

    N agents     C critics     B rows of the batch     H width of a hidden layer
    O, U         length of the joint observation, of the joint action        o, u  the same of one agent

The backward passes are written out because autograd would also compute what nobody needs (gradients of the critics'
parameters in the policy pass, of observations) and would allocate anew what is the same size in every update: here
page faults and view-making cost as much as the arithmetic. Results are valid until the same pass runs again.

Hidden layers stand side by side, `[B, N*H]`, so that biases and ReLUs run over long rows; products see them agent by
agent, `[N, B, H]`. Products with few outputs (logits, values) run along the batch, where they are twice as fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from learner_node.networks import Affine, Cohort, CriticTensors, PolicyTensors


class _Layer:
    """One hidden layer of all networks: `rows [B, N*H]`, and seen `by_agent [N, B, H]` and `turned [N, H, B]`."""

    def __init__(self, rows: int, networks: int, width: int, like: Tensor) -> None:
        self.rows = like.new_empty(rows, networks * width)
        self.by_agent = by_agent(self.rows, networks)
        self.turned = self.by_agent.transpose(1, 2)


class _Stack:
    """The hidden layers of all networks of one kind, and their gradients."""

    def __init__(self, rows: int, networks: int, widths: Sequence[int], like: Tensor) -> None:
        self.values = [_Layer(rows, networks, width, like) for width in widths]
        self.grads = [_Layer(rows, networks, width, like) for width in widths]

    def up(self, layers: Sequence[Affine]) -> None:
        """Runs from the first layer, before its ReLU, to the last hidden one."""
        self.values[0].rows.relu_()
        for layer, below, above in zip(layers, self.values, self.values[1:], strict=False):
            torch.bmm(below.by_agent, layer.weight, out=above.by_agent)
            above.rows.add_(layer.bias).relu_()

    def down(self, layers: Sequence[Affine], into: Sequence[Affine] | None) -> _Layer:
        """Runs back from the gradient of the last hidden layer; returns that of the first before its ReLU."""
        for i in reversed(range(len(layers))):
            grad = _through_relu(self.grads[i + 1], self.values[i + 1])
            if into is not None:
                torch.bmm(self.values[i].turned, grad.by_agent, out=into[i].weight)
                torch.sum(grad.rows, 0, out=into[i].bias)
            torch.bmm(grad.by_agent, layers[i].weight_t, out=self.grads[i].by_agent)
        return _through_relu(self.grads[0], self.values[0])


class PolicyPass:
    """Runs all policies forward and back over `rows` rows."""

    def __init__(self, cohorts: Sequence[Cohort], widths: Sequence[int], rows: int, like: Tensor) -> None:
        """Takes number type and device from `like`."""
        self._cohorts = cohorts
        self._stack = _Stack(rows, cohorts[-1].agents.stop, widths, like)
        self._turned = like.new_empty(cohorts[-1].action.stop, rows)
        self._logits = like.new_empty(rows, cohorts[-1].action.stop)

    def forward(self, policy: PolicyTensors, obs: Tensor) -> Tensor:
        """Returns the logits `[B, U]` for observations `[B, O]`."""
        first, last = self._stack.values[0], self._stack.values[-1]
        for run, weight in zip(self._cohorts, policy.first_weights, strict=True):
            torch.bmm(by_agent(obs[:, run.obs], run.size), weight, out=first.by_agent[run.agents])
        first.rows.add_(policy.first_bias)
        self._stack.up(policy.hidden)
        for run, weight, bias in zip(self._cohorts, policy.last_weights, policy.last_biases, strict=True):
            out = self._turned[run.action].view(run.size, run.action_dim, -1)
            torch.baddbmm(bias[:, :, None], weight, last.turned[run.agents], out=out)
        return self._logits.copy_(self._turned.t())

    def backward(self, policy: PolicyTensors, into: PolicyTensors, obs: Tensor, d_logits: Tensor) -> None:
        """Writes the gradients of the parameters, given those of the logits `[B, U]` of the last forward pass."""
        last, d_last = self._stack.values[-1], self._stack.grads[-1]
        for i, run in enumerate(self._cohorts):
            d_own = by_agent(d_logits[:, run.action], run.size)
            torch.bmm(d_own.transpose(1, 2), last.by_agent[run.agents], out=into.last_weights[i])
            torch.sum(d_own, 1, out=into.last_biases[i])
            torch.bmm(d_own, policy.last_weights[i], out=d_last.by_agent[run.agents])
        d_first = self._stack.down(policy.hidden, into.hidden)
        torch.sum(d_first.rows, 0, out=into.first_bias)
        for i, run in enumerate(self._cohorts):
            own = by_agent(obs[:, run.obs], run.size)
            torch.bmm(own.transpose(1, 2), d_first.by_agent[run.agents], out=into.first_weights[i])


class CriticPass:
    """Runs all critics forward and back over `rows` rows."""

    def __init__(self, critics: int, widths: Sequence[int], rows: int, like: Tensor) -> None:
        """Takes number type and device from `like`."""
        self._stack = _Stack(rows, critics, widths, like)
        self._values = like.new_empty(critics, 1, rows)

    def first(self, critic: CriticTensors, joint: Tensor) -> Tensor:
        """Starts with the first layer `[B, C*H]`, before its ReLU, from joint observations and actions `[B, O+U]`."""
        first = self._stack.values[0].rows
        return torch.mm(joint, critic.first_weight, out=first).add_(critic.first_bias)

    def rest(self, critic: CriticTensors) -> Tensor:
        """Goes on from the first layer, which may have been changed since; returns the values `[C, B]`."""
        self._stack.up(critic.hidden)
        last = self._stack.values[-1].turned
        return torch.baddbmm(critic.last_bias[:, None], critic.last_weight, last, out=self._values)[:, 0]

    def backward(self, critic: CriticTensors, into: CriticTensors, joint: Tensor, d_values: Tensor) -> None:
        """Writes the gradients of the parameters, given those of the values `[C, B]` of the last forward pass."""
        torch.bmm(d_values[:, None], self._stack.values[-1].by_agent, out=into.last_weight)
        torch.sum(d_values, 1, keepdim=True, out=into.last_bias)
        self._spread(critic, d_values)
        d_first = self._stack.down(critic.hidden, into.hidden).rows
        torch.sum(d_first, 0, out=into.first_bias)
        torch.mm(joint.t(), d_first, out=into.first_weight)

    def input_gradient(self, critic: CriticTensors, d_values: Tensor) -> Tensor:
        """Returns the gradient of the first layer before its ReLU `[B, C*H]`, given that of the values `[C, B]`."""
        self._spread(critic, d_values)
        return self._stack.down(critic.hidden, None).rows

    def _spread(self, critic: CriticTensors, d_values: Tensor) -> None:
        """Takes the gradient of the values back to the last hidden layer."""
        grad = self._stack.grads[-1]
        torch.mul(d_values[:, :, None], critic.last_weight, out=grad.by_agent)


def by_agent(rows: Tensor, agents: int) -> Tensor:
    """Sees `[B, agents*k]` as `[agents, B, k]` without copying."""
    return rows.unflatten(1, (agents, -1)).transpose(0, 1)


def _through_relu(grad: _Layer, value: _Layer) -> _Layer:
    torch.ops.aten.threshold_backward.grad_input(grad.rows, value.rows, 0, grad_input=grad.rows)
    return grad
