"""Forward and backward passes of the stacked networks, in memory taken once.

    N agents     C critics     B rows of the batch     H width of a hidden layer
    O, U         length of the joint observation, of the joint action        o, u  the same of one agent

The backward passes are written out because autograd would also compute what nobody needs (gradients of the critics'
parameters in the policy pass, of observations) and would allocate anew what is the same size in every update: here
page faults and view-making cost as much as the arithmetic. Results are valid until the same pass runs again.

Hidden layers are `[N, B, H]`, contiguous. Products with few outputs (logits, values) run along the batch, where they
are twice as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from learner_node.stacked.networks import Affine, Cohort, CriticTensors, PolicyTensors


class _Stack:
    """The hidden layers of all networks of one kind, `[N, B, H]`, and their gradients."""

    def __init__(self, networks: int, widths: Sequence[int], rows: int, like: Tensor, gradients: int) -> None:
        """Takes the memory; gradients: of so many layers from the first they are written out."""
        self.values = [like.new_empty(networks, rows, width) for width in widths]
        self.grads = [like.new_empty(networks, rows, width) for width in widths[:gradients]]
        self.first, self.d_first = self.values[0], self.grads[0]
        self._turned = [value.transpose(1, 2) for value in self.values]
        self.last, self.last_turned, self.d_last = self.values[-1], self._turned[-1], self.grads[-1]

    def up(self, layers: Sequence[Affine]) -> None:
        """Runs from the first layer, before its ReLU, to the last hidden one."""
        self.values[0].relu_()
        for layer, below, above in zip(layers, self.values, self.values[1:], strict=False):
            torch.baddbmm(layer.bias, below, layer.weight, out=above).relu_()

    def down(self, layers: Sequence[Affine], into: Sequence[Affine] | None) -> None:
        """Runs back from the gradient of the last hidden layer to that of the first before its ReLU."""
        for i in reversed(range(len(layers))):
            self._down_one(i, _through_relu(self.grads[i + 1], self.values[i + 1]), layers[i].weight_t, into)
        _through_relu(self.grads[0], self.values[0])

    def _down_one(self, i: int, grad: Tensor, weight_t: Tensor, into: Sequence[Affine] | None) -> None:
        """Goes from hidden layer i + 1 to i, given the gradient of the upper before its ReLU."""
        if into is not None:
            torch.sum(grad, 1, keepdim=True, out=into[i].bias)
            torch.bmm(self._turned[i], grad, out=into[i].weight)
        torch.bmm(grad, weight_t, out=self.grads[i])


class _OneOutputStack(_Stack):
    """The same of networks that put out one number.

    The gradient of their last hidden layer is an outer product, of the output's gradient and the last weights, where
    the ReLU lets it through. It is not written out: the output's gradient goes over the layer's values, which are used
    up, and the last weights are multiplied into the layer's own and their gradients.
    """

    def __init__(self, networks: int, widths: Sequence[int], rows: int, like: Tensor) -> None:
        super().__init__(networks, widths, rows, like, gradients=max(1, len(widths) - 1))
        self._scaled: tuple[Tensor, Tensor] | None = None
        """The last hidden layer's weights, scaled, and their transpose."""
        if len(widths) > 1:
            weight = like.new_empty(networks, *widths[-2:])
            self._scaled = weight, weight.transpose(1, 2)

    def down_from_output(
        self, layers: Sequence[Affine], into: Sequence[Affine] | None, d_out: Tensor, last_weight: Tensor
    ) -> None:
        """Runs back to the first layer, given the output's gradient `[N, B, H]`, one number repeated, and last weights.

        last_weight: `[N, 1, H]`.
        """
        if self._scaled is None:
            torch.mul(d_out, last_weight, out=self.d_first)
            self.down(layers, into)
            return
        top, last = len(layers) - 1, self.last
        passed = torch.ops.aten.threshold_backward.grad_input(d_out, last, 0, grad_input=last)
        weight, weight_t = self._scaled
        torch.mul(layers[top].weight, last_weight, out=weight)
        self._down_one(top, passed, weight_t, into)
        if into is not None:
            into[top].weight.mul_(last_weight)
            into[top].bias.mul_(last_weight)
        self.down(layers[:top], into)


class _RunViews(NamedTuple):
    """Where one cohort's first and last hidden layers, their gradients and its logits lie: `[n, ...]`."""

    first: Tensor
    d_first: Tensor
    last: Tensor
    last_turned: Tensor
    d_last: Tensor
    logits: Tensor
    """`[n, u, B]`, as are the gradients below."""
    d_logits: Tensor
    d_logits_turned: Tensor
    """`[n, B, u]`."""


class Inputs(NamedTuple):
    """What several networks of one kind read, seen in the memory it lies in."""

    rows: Tensor
    """`[n, B, inputs]`."""
    turned: Tensor
    """`[n, inputs, B]`."""


def _inputs(rows: Tensor) -> Inputs:
    return Inputs(rows, rows.transpose(1, 2))


class PolicyPass:
    """Runs all policies forward and back over `rows` rows."""

    def __init__(self, cohorts: Sequence[Cohort], widths: Sequence[int], rows: int, like: Tensor) -> None:
        """Takes number type and device from `like`."""
        self._cohorts = cohorts
        self._stack = _Stack(cohorts[-1].agents.stop, widths, rows, like, gradients=len(widths))
        turned, d_turned = (like.new_empty(cohorts[-1].action.stop, rows) for _ in range(2))
        self._logits, self.d_logits = turned.t(), d_turned.t()
        """`[B, U]`; in memory they lie along the batch."""
        by_run = [
            tuple(along[run.action].view(run.size, run.action_dim, rows) for along in (turned, d_turned))
            for run in cohorts
        ]
        self._runs = [
            _RunViews(
                self._stack.first[run.agents],
                self._stack.d_first[run.agents],
                self._stack.last[run.agents],
                self._stack.last_turned[run.agents],
                self._stack.d_last[run.agents],
                logits,
                d_logits,
                d_logits.transpose(1, 2),
            )
            for run, (logits, d_logits) in zip(cohorts, by_run, strict=True)
        ]

    def own_obs(self, obs: Tensor) -> list[Inputs]:
        """Sees observations `[B, O]` as each cohort's, without copying."""
        return [_inputs(_by_agent(obs, run.obs, run.size)) for run in self._cohorts]

    def forward(self, policy: PolicyTensors, own_obs: Sequence[Inputs]) -> Tensor:
        """Returns the logits `[B, U]` for observations as `own_obs` sees them; in memory they lie along the batch."""
        firsts = zip(own_obs, policy.first_weights, policy.first_biases, self._runs, strict=True)
        for own, weight, bias, views in firsts:
            torch.baddbmm(bias, own.rows, weight, out=views.first)
        self._stack.up(policy.hidden)
        for views, weight, bias in zip(self._runs, policy.last_weights, policy.last_biases, strict=True):
            torch.baddbmm(bias, weight, views.last_turned, out=views.logits)
        return self._logits

    def backward(self, policy: PolicyTensors, into: PolicyTensors, own_obs: Sequence[Inputs]) -> None:
        """Writes the gradients of the parameters, given those of the last forward pass' logits in `d_logits`."""
        for i, views in enumerate(self._runs):
            torch.bmm(views.d_logits, views.last, out=into.last_weights[i])
            torch.sum(views.d_logits, 2, keepdim=True, out=into.last_biases[i])
            torch.bmm(views.d_logits_turned, policy.last_weights[i], out=views.d_last)
        self._stack.down(policy.hidden, into.hidden)
        torch.sum(self._stack.d_first, 1, keepdim=True, out=into.first_bias)
        for own, views, weight in zip(own_obs, self._runs, into.first_weights, strict=True):
            torch.bmm(own.turned, views.d_first, out=weight)


class CriticPass:
    """Runs all critics forward and back over `rows` rows.

    `first_layer` and `d_first_layer`, its gradient, are `[C, B, H]` before the ReLU. A pass back uses up the pass
    forward: once after each `rest`.
    """

    def __init__(self, critics: int, widths: Sequence[int], rows: int, like: Tensor) -> None:
        """Takes number type and device from `like`."""
        self._critics = critics
        self._stack = _OneOutputStack(critics, widths, rows, like)
        self.first_layer, self.d_first_layer = self._stack.first, self._stack.d_first
        self._values = like.new_empty(critics, 1, rows)
        self._values_of = self._values[:, 0]
        self.d_values = like.new_empty(critics, rows)
        """`[C, B]`."""
        self._d_values_turned = self.d_values[:, None]
        self._d_values_by_unit = self._by_unit(self.d_values)

    def inputs(self, joint: Tensor) -> Inputs:
        """Sees joint observations, actions and a 1, `[B, O+U+1]`, as each critic's, without copying."""
        return _inputs(joint.expand(self._critics, -1, -1))

    def first(self, critic: CriticTensors, joint: Inputs) -> None:
        """Starts with the first layer, before its ReLU, from what `inputs` returned."""
        torch.bmm(joint.rows, critic.first_weight, out=self.first_layer)

    def rest(self, critic: CriticTensors) -> Tensor:
        """Goes on from the first layer, which may have been changed since; returns the values `[C, B]`."""
        self._stack.up(critic.hidden)
        torch.baddbmm(critic.last_bias, critic.last_weight, self._stack.last_turned, out=self._values)
        return self._values_of

    def backward(self, critic: CriticTensors, into: CriticTensors, joint: Inputs) -> None:
        """Writes the gradients of the parameters, given those of the last forward pass' values in `d_values`."""
        torch.bmm(self._d_values_turned, self._stack.last, out=into.last_weight)
        torch.sum(self._d_values_turned, 2, keepdim=True, out=into.last_bias)
        self._stack.down_from_output(critic.hidden, into.hidden, self._d_values_by_unit, critic.last_weight)
        torch.bmm(joint.turned, self.d_first_layer, out=into.first_weight)

    def input_backward(self, critic: CriticTensors, d_values: Tensor) -> None:
        """Goes back to the first layer only (`d_first_layer`), given the gradient of the values `[C, B]`."""
        self._stack.down_from_output(critic.hidden, None, self._by_unit(d_values), critic.last_weight)

    def _by_unit(self, d_values: Tensor) -> Tensor:
        """Sees gradients of the values as those of every unit of the last hidden layer `[C, B, H]`."""
        return d_values[:, :, None].expand_as(self._stack.last)


def _by_agent(rows: Tensor, columns: slice, agents: int) -> Tensor:
    """Sees columns of `[B, ...]`, k an agent, as `[agents, B, k]` without copying."""
    return rows[:, columns].view(len(rows), agents, (columns.stop - columns.start) // agents).transpose(0, 1)


def _through_relu(grad: Tensor, value: Tensor) -> Tensor:
    torch.ops.aten.threshold_backward.grad_input(grad, value, 0, grad_input=grad)
    return grad
