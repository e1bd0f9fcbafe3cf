"""Forward and backward passes of the stacked networks, in memory allocated once.

    N players     C critics     B rows of the batch     H width of a hidden layer
    O, U  length of the joint observation, of the joint action     o, u  length of one player's observation, action
    S     length of the global state, 0 if critics do not read it

The backward passes are written by hand for two reasons. Autograd also computes gradients that are not needed: those of
the critics' parameters in the policy loss, and those of observations. And it allocates memory in every update, where
page faults and the creation of views cost as much as the arithmetic. Results are valid until the same pass runs again.

Hidden layers are `[N, B, H]`, contiguous. Products with few outputs (logits, values) run along the batch, which is
twice as fast. A suffix `_t` marks a view with the last two axes transposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from learner_node.stacked.networks import Affine, Cohort, CriticTensors, PolicyTensors


class _Stack:
    """The hidden layers of all policies, or of all critics, `[N, B, H]`, and their gradients."""

    def __init__(self, networks: int, widths: Sequence[int], rows: int, like: Tensor, gradients: int) -> None:
        """Allocates the memory; gradients: number of layers, from the first, whose gradients are stored."""
        self.values = [like.new_empty(networks, rows, width) for width in widths]
        self.grads = [like.new_empty(networks, rows, width) for width in widths[:gradients]]
        self.first, self.d_first = self.values[0], self.grads[0]
        self._values_t = [value.transpose(1, 2) for value in self.values]
        self.last, self.last_t, self.d_last = self.values[-1], self._values_t[-1], self.grads[-1]

    def forward(self, layers: Sequence[Affine]) -> None:
        """Computes all hidden layers from the first layer before its ReLU."""
        self.values[0].relu_()
        for layer, below, above in zip(layers, self.values, self.values[1:], strict=False):
            torch.baddbmm(layer.bias, below, layer.weight, out=above).relu_()

    def backward(self, layers: Sequence[Affine], into: Sequence[Affine] | None) -> None:
        """Computes the gradients of all hidden layers from the last one's; the first layer's is before its ReLU."""
        for i in reversed(range(len(layers))):
            self._backward_one(i, _through_relu(self.grads[i + 1], self.values[i + 1]), layers[i].weight_t, into)
        _through_relu(self.grads[0], self.values[0])

    def _backward_one(self, i: int, grad: Tensor, weight_t: Tensor, into: Sequence[Affine] | None) -> None:
        """Computes the gradient of hidden layer i from that of layer i + 1 before its ReLU."""
        if into is not None:
            torch.sum(grad, 1, keepdim=True, out=into[i].bias)
            torch.bmm(self._values_t[i], grad, out=into[i].weight)
        torch.bmm(grad, weight_t, out=self.grads[i])


class _OneOutputStack(_Stack):
    """The hidden layers of networks with one output, and their gradients.

    The gradient of the last hidden layer is an outer product of the output's gradient and the last weights, where the
    ReLU is active. It is not stored: the output's gradient overwrites the layer's values, and the last weights are
    multiplied into the layer's weights and their gradients.
    """

    def __init__(self, networks: int, widths: Sequence[int], rows: int, like: Tensor) -> None:
        super().__init__(networks, widths, rows, like, gradients=max(1, len(widths) - 1))
        self._scaled: tuple[Tensor, Tensor] | None = None
        """The last hidden layer's weights, scaled, and their transpose."""
        if len(widths) > 1:
            weight = like.new_empty(networks, *widths[-2:])
            self._scaled = weight, weight.transpose(1, 2)

    def backward_from_output(
        self, layers: Sequence[Affine], into: Sequence[Affine] | None, d_out: Tensor, last_weight: Tensor
    ) -> None:
        """Computes the gradients of all hidden layers from the output's.

        d_out: gradient of the output, the same for each unit `[N, B, H]`. last_weight: `[N, 1, H]`.
        """
        if self._scaled is None:
            torch.mul(d_out, last_weight, out=self.d_first)
            self.backward(layers, into)
            return
        top, last = len(layers) - 1, self.last
        passed = torch.ops.aten.threshold_backward.grad_input(d_out, last, 0, grad_input=last)
        weight, weight_t = self._scaled
        torch.mul(layers[top].weight, last_weight, out=weight)
        self._backward_one(top, passed, weight_t, into)
        if into is not None:
            into[top].weight.mul_(last_weight)
            into[top].bias.mul_(last_weight)
        self.backward(layers[:top], into)


class _CohortViews(NamedTuple):
    """Views of one cohort's first and last hidden layers, their gradients and its logits, `[n, ...]` each."""

    first: Tensor
    d_first: Tensor
    last: Tensor
    last_t: Tensor
    d_last: Tensor
    logits: Tensor
    """`[n, u, B]`."""
    d_logits: Tensor
    """`[n, u, B]`."""
    d_logits_t: Tensor
    """`[n, B, u]`."""


class Inputs(NamedTuple):
    """The inputs of several networks of one kind, as views."""

    rows: Tensor
    """`[n, B, inputs]`."""
    rows_t: Tensor
    """`[n, inputs, B]`."""


def _inputs(rows: Tensor) -> Inputs:
    return Inputs(rows, rows.transpose(1, 2))


class PolicyPass:
    """Forward and backward pass of all policies over `rows` rows."""

    def __init__(self, cohorts: Sequence[Cohort], widths: Sequence[int], rows: int, like: Tensor) -> None:
        """Takes the number type and the device from `like`."""
        self._cohorts = cohorts
        self._stack = _Stack(cohorts[-1].agents.stop, widths, rows, like, gradients=len(widths))
        logits_t, d_logits_t = (like.new_empty(cohorts[-1].action.stop, rows) for _ in range(2))
        self._logits, self.d_logits = logits_t.t(), d_logits_t.t()
        """`[B, U]`, contiguous along the batch."""
        logits_by_cohort = [
            tuple(along[cohort.action].view(cohort.size, cohort.action_dim, rows) for along in (logits_t, d_logits_t))
            for cohort in cohorts
        ]
        self._by_cohort = [
            _CohortViews(
                self._stack.first[cohort.agents],
                self._stack.d_first[cohort.agents],
                self._stack.last[cohort.agents],
                self._stack.last_t[cohort.agents],
                self._stack.d_last[cohort.agents],
                logits,
                d_logits,
                d_logits.transpose(1, 2),
            )
            for cohort, (logits, d_logits) in zip(cohorts, logits_by_cohort, strict=True)
        ]

    def inputs(self, obs: Tensor) -> list[Inputs]:
        """Returns the observations of each cohort as views of joint observations `[B, O]`."""
        return [_inputs(_by_agent(obs, cohort.obs, cohort.size)) for cohort in self._cohorts]

    def forward(self, policy: PolicyTensors, inputs: Sequence[Inputs]) -> Tensor:
        """Returns the logits `[B, U]`, contiguous along the batch; inputs: the result of `inputs`."""
        firsts = zip(inputs, policy.first_weights, policy.first_biases, self._by_cohort, strict=True)
        for cohort_inputs, weight, bias, views in firsts:
            torch.baddbmm(bias, cohort_inputs.rows, weight, out=views.first)
        self._stack.forward(policy.hidden)
        for views, weight, bias in zip(self._by_cohort, policy.last_weights, policy.last_biases, strict=True):
            torch.baddbmm(bias, weight, views.last_t, out=views.logits)
        return self._logits

    def backward(self, policy: PolicyTensors, into: PolicyTensors, inputs: Sequence[Inputs]) -> None:
        """Writes the gradients of the parameters, from the gradient of the logits in `d_logits`."""
        for i, views in enumerate(self._by_cohort):
            torch.bmm(views.d_logits, views.last, out=into.last_weights[i])
            torch.sum(views.d_logits, 2, keepdim=True, out=into.last_biases[i])
            torch.bmm(views.d_logits_t, policy.last_weights[i], out=views.d_last)
        self._stack.backward(policy.hidden, into.hidden)
        torch.sum(self._stack.d_first, 1, keepdim=True, out=into.first_bias)
        for cohort_inputs, views, weight in zip(inputs, self._by_cohort, into.first_weights, strict=True):
            torch.bmm(cohort_inputs.rows_t, views.d_first, out=weight)


class CriticPass:
    """Forward and backward pass of all critics over `rows` rows.

    `first_layer` and its gradient `d_first_layer` are `[C, B, H]`, before the ReLU. A backward pass overwrites the
    forward pass: call it at most once after each `forward_rest`.
    """

    def __init__(self, critics: int, widths: Sequence[int], rows: int, like: Tensor) -> None:
        """Takes the number type and the device from `like`."""
        self._critics = critics
        self._stack = _OneOutputStack(critics, widths, rows, like)
        self.first_layer, self.d_first_layer = self._stack.first, self._stack.d_first
        self._values = like.new_empty(critics, 1, rows)
        self._values_of = self._values[:, 0]
        self.d_values = like.new_empty(critics, rows)
        """`[C, B]`."""
        self._d_values_t = self.d_values[:, None]
        self._d_values_by_unit = self._by_unit(self.d_values)

    def inputs(self, obs_action: Tensor) -> Inputs:
        """Returns observations, actions, states and a 1, `[B, O+U+S+1]`, as each critic's inputs, without copying."""
        return _inputs(obs_action.expand(self._critics, -1, -1))

    def forward_first(self, critic: CriticTensors, inputs: Inputs) -> None:
        """Computes the first layer, before its ReLU; inputs: the result of `inputs`."""
        torch.bmm(inputs.rows, critic.first_weight, out=self.first_layer)

    def forward_rest(self, critic: CriticTensors) -> Tensor:
        """Continues from `first_layer`, which the caller may have changed; returns the values `[C, B]`."""
        self._stack.forward(critic.hidden)
        torch.baddbmm(critic.last_bias, critic.last_weight, self._stack.last_t, out=self._values)
        return self._values_of

    def backward(self, critic: CriticTensors, into: CriticTensors, inputs: Inputs) -> None:
        """Writes the gradients of the parameters, from the gradient of the values in `d_values`."""
        torch.bmm(self._d_values_t, self._stack.last, out=into.last_weight)
        torch.sum(self._d_values_t, 2, keepdim=True, out=into.last_bias)
        self._stack.backward_from_output(critic.hidden, into.hidden, self._d_values_by_unit, critic.last_weight)
        torch.bmm(inputs.rows_t, self.d_first_layer, out=into.first_weight)

    def backward_to_first(self, critic: CriticTensors, d_values: Tensor) -> None:
        """Computes the first layer's gradient `d_first_layer` alone, from the gradient of the values `[C, B]`."""
        self._stack.backward_from_output(critic.hidden, None, self._by_unit(d_values), critic.last_weight)

    def _by_unit(self, d_values: Tensor) -> Tensor:
        """Returns gradients of the values, repeated for every unit of the last hidden layer `[C, B, H]`."""
        return d_values[:, :, None].expand_as(self._stack.last)


def _by_agent(rows: Tensor, columns: slice, agents: int) -> Tensor:
    """Returns columns of `[B, ...]`, k an agent, as a view `[agents, B, k]`."""
    return rows[:, columns].view(len(rows), agents, (columns.stop - columns.start) // agents).transpose(0, 1)


def _through_relu(grad: Tensor, value: Tensor) -> Tensor:
    torch.ops.aten.threshold_backward.grad_input(grad, value, 0, grad_input=grad)
    return grad
