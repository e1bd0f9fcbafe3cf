"""Heads: from the policies' logits to joint actions, and the gradients back.

    B rows of the batch     U length of the joint action     P parts of a segment     n numbers of each

Which part acts by which head, and what that executes, stands in `common/heads.py`. In the policy loss a Categorical
part is a Gumbel-softmax sample (Jang et al. 2017): soft, or one-hot forward with the soft sample's gradient
(straight-through). A soft part is one too, at temperature 1: what exploring actors execute. Neighbouring parts of one
kind are treated together, whichever agents they belong to.

The gradients are written out (`backward`), as all of the update's are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from common.heads import LEFT_DOWN, RIGHT_UP, SMALLEST_NORM, Segment, ranges, segments
from common.spec import JointSpec

Gumbel = Literal["straight_through", "soft"]
Kept = tuple[Tensor, ...]

_SMALLEST_UNIFORM = 1e-30


@dataclass(frozen=True)
class Sample:
    """Actions taken in the policy loss and what their gradient needs."""

    actions: Tensor
    """`[B, U]`; left as they are until `backward`, which may want them back."""
    kept: tuple[Kept, ...]
    """By segment: what its head wants back."""


class Head(Protocol):
    """One head over the columns of one segment; `logits`, `out` and `d_actions` are `[B, P * n]`."""

    noise: int
    """Gumbel numbers `sample` takes for each row."""

    def greedy(self, logits: Tensor, out: Tensor) -> None:
        """Writes the actions without exploration."""

    def sample(self, logits: Tensor, noise: Tensor | None, out: Tensor) -> Kept:
        """Writes the actions of the policy loss; returns what `backward` needs."""

    def backward(self, kept: Kept, d_actions: Tensor, out: Tensor) -> None:
        """Writes the gradient of the logits, given that of the sampled actions."""


class Heads:
    """The heads of all agents over the joint action."""

    def __init__(
        self,
        joint: JointSpec,
        like: Tensor,
        gumbel: Gumbel = "straight_through",
        temperature: float = 1.0,
        head: str = "box",
    ) -> None:
        """Takes number type and device from `like`; ConfigError for parts of an action that `head` cannot make.

        gumbel, temperature: of Categorical parts. head: of Box parts, `network.head`.
        """
        layout = segments(joint, head)
        self._columns = [segment.columns for segment in layout]
        self._thrusts = [(segment.columns, segment.shape) for segment in layout if segment.kind == "thrust"]
        self._heads = [_head(segment, like, gumbel, temperature) for segment in layout]
        self.choices = sum(head.noise for head in self._heads)
        """Gumbel numbers `sample` takes for each row: one a choice of Categorical and soft parts, in joint order."""
        self.low, self.high, self.reach = (torch.from_numpy(side).to(like) for side in ranges(joint, head))
        """Bounds of the joint action, and how far noise of scale 1 moves each number (0 = not at all), each `[U]`."""

    def greedy(self, logits: Tensor, out: Tensor | None = None) -> Tensor:
        """Returns the actions `[B, U]` without exploration, in `out` if given."""
        actions = torch.empty_like(logits) if out is None else out
        for head, own, acted in zip(self._heads, self._split(logits), self._split(actions), strict=True):
            head.greedy(own, acted)
        return actions

    def sample(self, logits: Tensor, noise: Tensor | None, out: Tensor | None = None) -> Sample:
        """Returns the actions of the policy loss, in `out` if given.

        noise: Gumbel noise `[B, choices]`, None where none is needed.
        """
        actions, kept, at = torch.empty_like(logits) if out is None else out, [], 0
        for head, own, acted in zip(self._heads, self._split(logits), self._split(actions), strict=True):
            drawn = None if noise is None else noise[:, at : at + head.noise]
            at += head.noise
            kept.append(head.sample(own, drawn, acted))
        return Sample(actions, tuple(kept))

    def backward(self, sample: Sample, d_actions: Tensor, out: Tensor | None = None) -> Tensor:
        """Returns the gradient of the logits `[B, U]`, given that of the sampled actions, in `out` if given."""
        d_logits = torch.empty_like(d_actions) if out is None else out
        d_own, d_outs = self._split(d_actions), self._split(d_logits)
        for head, kept, own, d_out in zip(self._heads, sample.kept, d_own, d_outs, strict=True):
            head.backward(kept, own, d_out)
        return d_logits

    def couple(self, noise: Tensor) -> Tensor:
        """Makes noise on actions `[B, U]` push a thrust one way as much as it holds back the other, in place."""
        for columns, shape in self._thrusts:
            five = _turn(noise[:, columns], shape)
            five[LEFT_DOWN] = -five[RIGHT_UP]
        return noise

    def _split(self, joint: Tensor) -> Sequence[Tensor]:
        return [joint] if len(self._columns) == 1 else [joint[:, columns] for columns in self._columns]


class _Box:
    """`middle + half * tanh(logit)`."""

    noise = 0

    def __init__(self, middle: Tensor, half: Tensor) -> None:
        self._middle, self._half = middle.flatten(), half.flatten()

    def greedy(self, logits: Tensor, out: Tensor) -> None:
        torch.addcmul(self._middle, torch.tanh(logits), self._half, out=out)

    def sample(self, logits: Tensor, noise: Tensor | None, out: Tensor) -> Kept:  # noqa: ARG002  (draws nothing)
        tanh = torch.tanh(logits)
        torch.addcmul(self._middle, tanh, self._half, out=out)
        return (tanh,)

    def backward(self, kept: Kept, d_actions: Tensor, out: Tensor) -> None:
        torch.ops.aten.tanh_backward.grad_input(d_actions * self._half, kept[0], grad_input=out)


class _UnitBox:
    """The same for numbers from 0 to 1, as MPE's: there it is `sigmoid(2 * logit)`, which takes a third of the time."""

    noise = 0

    def greedy(self, logits: Tensor, out: Tensor) -> None:
        torch.mul(logits, 2.0, out=out).sigmoid_()

    def sample(self, logits: Tensor, noise: Tensor | None, out: Tensor) -> Kept:  # noqa: ARG002  (draws nothing)
        self.greedy(logits, out)
        return (out,)

    def backward(self, kept: Kept, d_actions: Tensor, out: Tensor) -> None:
        torch.ops.aten.sigmoid_backward.grad_input(2.0 * d_actions, kept[0], grad_input=out)


class _Choice:
    """One of n, one-hot; in the policy loss a Gumbel-softmax sample, straight-through or soft."""

    def __init__(self, shape: tuple[int, int], temperature: float, *, soft: bool) -> None:
        self.noise, self._shape = shape[0] * shape[1], shape
        self._temperature, self._soft = temperature, soft

    def greedy(self, logits: Tensor, out: Tensor) -> None:
        _one_hot(logits.view(-1, *self._shape), out)

    def sample(self, logits: Tensor, noise: Tensor | None, out: Tensor) -> Kept:
        noisy = logits if noise is None else logits + noise
        soft = torch.softmax(_turned(noisy, self._shape) / self._temperature, 0)
        if self._soft:
            _turn(out, self._shape).copy_(soft)
        else:
            _one_hot(noisy.view(-1, *self._shape), out)
        return (soft,)

    def backward(self, kept: Kept, d_actions: Tensor, out: Tensor) -> None:
        d_noisy = _through_softmax(kept[0], _turned(d_actions, self._shape))
        torch.div(d_noisy, self._temperature, out=_turn(out, self._shape))


class _Soft:
    """`softmax(logits)`, in the policy loss of logits and Gumbel noise."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.noise, self._shape = shape[0] * shape[1], shape

    def greedy(self, logits: Tensor, out: Tensor) -> None:
        self.sample(logits, None, out)

    def sample(self, logits: Tensor, noise: Tensor | None, out: Tensor) -> Kept:
        noisy = logits if noise is None else logits + noise
        soft = torch.softmax(_turned(noisy, self._shape), 0)
        _turn(out, self._shape).copy_(soft)
        return (soft,)

    def backward(self, kept: Kept, d_actions: Tensor, out: Tensor) -> None:
        _turn(out, self._shape).copy_(_through_softmax(kept[0], _turned(d_actions, self._shape)))


class _Force:
    """`middle + half * f` of two numbers, `f` a force in the unit disc."""

    noise = 0

    def __init__(self, middle: Tensor, half: Tensor) -> None:
        self._shape = (len(half), half.shape[1])
        self._middle, self._half = (side.t()[:, None].contiguous() for side in (middle, half))

    def greedy(self, logits: Tensor, out: Tensor) -> None:
        self.sample(logits, None, out)

    def sample(self, logits: Tensor, noise: Tensor | None, out: Tensor) -> Kept:  # noqa: ARG002  (draws nothing)
        force, kept = _bounded(_turned(logits, self._shape))
        torch.addcmul(self._middle, force, self._half, out=_turn(out, self._shape))
        return kept

    def backward(self, kept: Kept, d_actions: Tensor, out: Tensor) -> None:
        d_force = _turned(d_actions, self._shape) * self._half
        _turn(out, self._shape).copy_(_bounded_backward(kept, d_force))


class _Thrust:
    """Five numbers, stay, left, right, down and up: `(1 -+ f_x) / 2`, `(1 -+ f_y) / 2` of a force `f`, and no stay."""

    noise = 0

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape

    def greedy(self, logits: Tensor, out: Tensor) -> None:
        self.sample(logits, None, out)

    def sample(self, logits: Tensor, noise: Tensor | None, out: Tensor) -> Kept:  # noqa: ARG002  (draws nothing)
        own, five = _turned(logits, self._shape), _turn(out, self._shape)
        force, kept = _bounded(own[RIGHT_UP] - own[LEFT_DOWN])
        force.mul_(0.5)
        five[0] = 0.0
        five[LEFT_DOWN] = 0.5 - force
        five[RIGHT_UP] = 0.5 + force
        return kept

    def backward(self, kept: Kept, d_actions: Tensor, out: Tensor) -> None:
        own, five = _turned(d_actions, self._shape), _turn(out, self._shape)
        d_h = _bounded_backward(kept, (own[RIGHT_UP] - own[LEFT_DOWN]).mul_(0.5))
        five[0] = 0.0
        five[LEFT_DOWN] = -d_h
        five[RIGHT_UP] = d_h


def gumbel_noise(rows: int, choices: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draws standard Gumbel noise `[rows, choices]`: `-log(-log(u))`, u uniform."""
    # Drawing u and two logarithms take a third of the time of an exponential variable's draw.
    uniform = like.new_empty(rows, choices).uniform_(_SMALLEST_UNIFORM, 1.0, generator=generator)
    return uniform.log_().neg_().log_().neg_()


def _head(segment: Segment, like: Tensor, gumbel: Gumbel, temperature: float) -> Head:
    if segment.kind == "choice":
        return _Choice(segment.shape, temperature, soft=gumbel == "soft")
    if segment.kind == "soft":
        return _Soft(segment.shape)
    if segment.kind == "thrust":
        return _Thrust(segment.shape)
    middle, half = (torch.from_numpy(side).to(like) for side in segment.range())
    if segment.kind == "force":
        return _Force(middle, half)
    is_unit = bool((middle == 0.5).all() and (half == 0.5).all())
    return _UnitBox() if is_unit else _Box(middle, half)


def _one_hot(scores: Tensor, out: Tensor) -> None:
    """Writes into `out` `[B, P*n]` 1.0 at the highest of the scores `[B, P, n]`, the first of equals."""
    best = scores.argmax(2, keepdim=True)
    out.copy_(torch.zeros_like(scores).scatter_(2, best, 1.0).flatten(1))


def _turn(own: Tensor, shape: tuple[int, int]) -> Tensor:
    """Sees `[B, P*n]` as `[n, B, P]`."""
    return own.view(-1, *shape).movedim(2, 0)


def _turned(own: Tensor, shape: tuple[int, int]) -> Tensor:
    """Returns `[B, P*n]` as `[n, B, P]`, contiguous: over few numbers, sums run far faster along the rows."""
    return _turn(own, shape).contiguous()


def _through_softmax(soft: Tensor, d_soft: Tensor) -> Tensor:
    """Returns the gradient of the logits of a softmax, all `[n, B, P]`."""
    return (d_soft - (d_soft * soft).sum(0)) * soft


def _bounded(h: Tensor) -> tuple[Tensor, Kept]:
    """Returns `f = tanh(|h|) h / |h|` of `h` `[2, B, P]`, 0 at 0, and what its gradient needs."""
    norm = torch.hypot(h[0], h[1]).clamp_(min=SMALLEST_NORM)
    tanh = norm.tanh()
    shrink = tanh / norm
    return h * shrink, (h / norm, tanh, shrink)


def _bounded_backward(kept: Kept, d_f: Tensor) -> Tensor:
    """Returns the gradient of `h`.

    Along h a force grows as tanh does, by `1 - tanh^2`; across h it turns, by `tanh / |h|`. Both are 1 at h = 0, where
    the direction does not matter.
    """
    direction, tanh, shrink = kept
    along = (d_f * direction).sum(0) * (1.0 - tanh * tanh - shrink)
    return d_f * shrink + direction * along
