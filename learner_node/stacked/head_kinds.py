"""The kinds of heads: classes that compute the actions of one segment, and the gradients of its logits.

A segment is a run of neighbouring action parts of one kind and size (common/policy/heads.py).

B rows of the batch     P parts of a segment     n length of each part
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from common.policy.heads import LEFT_DOWN, MIN_NORM, RIGHT_UP, Segment

Gumbel = Literal["straight_through", "soft"]
SavedTensors = tuple[Tensor, ...]


class Head(Protocol):
    """One head over the columns of one segment. `logits`, `out` and `d_actions` are `[B, P * n]`."""

    gumbel_dim: int
    """Number of Gumbel variables that `sample` takes for each row."""

    def greedy(self, logits: Tensor, out: Tensor) -> None:
        """Writes the actions without exploration."""

    def sample(self, logits: Tensor, noise: Tensor | None, out: Tensor) -> SavedTensors:
        """Writes the actions of the policy loss; returns the tensors that `backward` needs."""

    def backward(self, saved: SavedTensors, d_actions: Tensor, out: Tensor) -> None:
        """Writes the gradient of the logits, from the gradient of the sampled actions."""


class _Box:
    """`middle + half * tanh(logit)`."""

    gumbel_dim = 0

    def __init__(self, middle: Tensor, half: Tensor) -> None:
        self._middle, self._half = middle.flatten(), half.flatten()

    def greedy(self, logits: Tensor, out: Tensor) -> None:
        torch.addcmul(self._middle, torch.tanh(logits), self._half, out=out)

    def sample(self, logits: Tensor, noise: Tensor | None, out: Tensor) -> SavedTensors:  # noqa: ARG002  (draws nothing)
        tanh = torch.tanh(logits)
        torch.addcmul(self._middle, tanh, self._half, out=out)
        return (tanh,)

    def backward(self, saved: SavedTensors, d_actions: Tensor, out: Tensor) -> None:
        torch.ops.aten.tanh_backward.grad_input(d_actions * self._half, saved[0], grad_input=out)


class _UnitBox:
    """A box from 0 to 1, as in MPE: `sigmoid(2 * logit)`, which equals `_Box` and is faster."""

    gumbel_dim = 0

    def greedy(self, logits: Tensor, out: Tensor) -> None:
        torch.mul(logits, 2.0, out=out).sigmoid_()

    def sample(self, logits: Tensor, noise: Tensor | None, out: Tensor) -> SavedTensors:  # noqa: ARG002  (draws nothing)
        self.greedy(logits, out)
        return (out,)

    def backward(self, saved: SavedTensors, d_actions: Tensor, out: Tensor) -> None:
        torch.ops.aten.sigmoid_backward.grad_input(2.0 * d_actions, saved[0], grad_input=out)


class _Choice:
    """One of n choices, one-hot; in the policy loss a Gumbel-softmax sample (Jang et al. 2017)."""

    def __init__(self, shape: tuple[int, int], temperature: float, *, soft: bool) -> None:
        self.gumbel_dim, self._shape = shape[0] * shape[1], shape
        self._temperature, self._soft = temperature, soft

    def greedy(self, logits: Tensor, out: Tensor) -> None:
        _one_hot(logits.view(-1, *self._shape), out)

    def sample(self, logits: Tensor, noise: Tensor | None, out: Tensor) -> SavedTensors:
        noisy = logits if noise is None else logits + noise
        soft = torch.softmax(_transposed(noisy, self._shape) / self._temperature, 0)
        if self._soft:
            numbers_first(out, self._shape).copy_(soft)
        else:
            _one_hot(noisy.view(-1, *self._shape), out)
        return (soft,)

    def backward(self, saved: SavedTensors, d_actions: Tensor, out: Tensor) -> None:
        d_noisy = _through_softmax(saved[0], _transposed(d_actions, self._shape))
        torch.div(d_noisy, self._temperature, out=numbers_first(out, self._shape))


class _Soft:
    """`softmax(logits)`; in the policy loss `softmax(logits + Gumbel noise)`."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.gumbel_dim, self._shape = shape[0] * shape[1], shape

    def greedy(self, logits: Tensor, out: Tensor) -> None:
        self.sample(logits, None, out)

    def sample(self, logits: Tensor, noise: Tensor | None, out: Tensor) -> SavedTensors:
        noisy = logits if noise is None else logits + noise
        soft = torch.softmax(_transposed(noisy, self._shape), 0)
        numbers_first(out, self._shape).copy_(soft)
        return (soft,)

    def backward(self, saved: SavedTensors, d_actions: Tensor, out: Tensor) -> None:
        numbers_first(out, self._shape).copy_(_through_softmax(saved[0], _transposed(d_actions, self._shape)))


class _Force:
    """`middle + half * f` for parts of two numbers; `f` is a force in the unit disc."""

    gumbel_dim = 0

    def __init__(self, middle: Tensor, half: Tensor) -> None:
        self._shape = (len(half), half.shape[1])
        self._middle, self._half = (tensor.t()[:, None].contiguous() for tensor in (middle, half))

    def greedy(self, logits: Tensor, out: Tensor) -> None:
        self.sample(logits, None, out)

    def sample(self, logits: Tensor, noise: Tensor | None, out: Tensor) -> SavedTensors:  # noqa: ARG002  (draws nothing)
        force, saved = _bounded(_transposed(logits, self._shape))
        torch.addcmul(self._middle, force, self._half, out=numbers_first(out, self._shape))
        return saved

    def backward(self, saved: SavedTensors, d_actions: Tensor, out: Tensor) -> None:
        d_force = _transposed(d_actions, self._shape) * self._half
        numbers_first(out, self._shape).copy_(_bounded_backward(saved, d_force))


class _Thrust:
    """A particle's move: stay 0; left, right `(1 -+ f_x) / 2`; down, up `(1 -+ f_y) / 2` of a force `f`."""

    gumbel_dim = 0

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape

    def greedy(self, logits: Tensor, out: Tensor) -> None:
        self.sample(logits, None, out)

    def sample(self, logits: Tensor, noise: Tensor | None, out: Tensor) -> SavedTensors:  # noqa: ARG002  (draws nothing)
        logits_t, thrust = _transposed(logits, self._shape), numbers_first(out, self._shape)
        force, saved = _bounded(logits_t[RIGHT_UP] - logits_t[LEFT_DOWN])
        force.mul_(0.5)
        thrust[0] = 0.0
        thrust[LEFT_DOWN] = 0.5 - force
        thrust[RIGHT_UP] = 0.5 + force
        return saved

    def backward(self, saved: SavedTensors, d_actions: Tensor, out: Tensor) -> None:
        d_thrust, d_logits = _transposed(d_actions, self._shape), numbers_first(out, self._shape)
        d_h = _bounded_backward(saved, (d_thrust[RIGHT_UP] - d_thrust[LEFT_DOWN]).mul_(0.5))
        d_logits[0] = 0.0
        d_logits[LEFT_DOWN] = -d_h
        d_logits[RIGHT_UP] = d_h


def head_of(segment: Segment, like: Tensor, gumbel: Gumbel, temperature: float) -> Head:
    """Returns the head of a segment, with the number type and on the device of `like`.

    gumbel, temperature: settings of the Gumbel-softmax samples of choices.
    """
    if segment.kind == "choice":
        return _Choice(segment.shape, temperature, soft=gumbel == "soft")
    if segment.kind == "soft":
        return _Soft(segment.shape)
    if segment.kind == "thrust":
        return _Thrust(segment.shape)
    middle, half = (torch.from_numpy(array).to(like) for array in segment.range())
    if segment.kind == "force":
        return _Force(middle, half)
    is_unit = bool((middle == 0.5).all() and (half == 0.5).all())
    return _UnitBox() if is_unit else _Box(middle, half)


def _one_hot(scores: Tensor, out: Tensor) -> None:
    """Writes 1.0 into `out` `[B, P*n]` at the highest of the scores `[B, P, n]` (the first of equal ones), else 0.0."""
    best = scores.argmax(2, keepdim=True)
    out.copy_(torch.zeros_like(scores).scatter_(2, best, 1.0).flatten(1))


def numbers_first(rows: Tensor, shape: tuple[int, int]) -> Tensor:
    """Returns `[B, P*n]` as a view `[n, B, P]`."""
    return rows.view(-1, *shape).movedim(2, 0)


def _transposed(rows: Tensor, shape: tuple[int, int]) -> Tensor:
    """Returns `[B, P*n]` as a contiguous copy `[n, B, P]`: sums over few numbers run far faster along the rows."""
    return numbers_first(rows, shape).contiguous()


def _through_softmax(soft: Tensor, d_soft: Tensor) -> Tensor:
    """Returns the gradient of a softmax's logits; all tensors are `[n, B, P]`."""
    return (d_soft - (d_soft * soft).sum(0)) * soft


def _bounded(h: Tensor) -> tuple[Tensor, SavedTensors]:
    """Returns `f = tanh(|h|) h / |h|` of `h` `[2, B, P]` (0 at 0), and the tensors that its gradient needs."""
    norm = torch.hypot(h[0], h[1]).clamp_(min=MIN_NORM)
    tanh = norm.tanh()
    shrink = tanh / norm
    return h * shrink, (h / norm, tanh, shrink)


def _bounded_backward(saved: SavedTensors, d_f: Tensor) -> Tensor:
    """Returns the gradient of `h`.

    The derivative of f along h is `1 - tanh^2`; across h it is `tanh / |h|`. Both are 1 at h = 0, where the direction
    does not matter.
    """
    direction, tanh, shrink = saved
    along = (d_f * direction).sum(0) * (1.0 - tanh * tanh - shrink)
    return d_f * shrink + direction * along
