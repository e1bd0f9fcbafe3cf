"""Actions from the policies' logits: greedy, differentiable, and with target noise. Autograd derives the gradients.

`network.head` selects the head of Box parts; common/policy/heads.py defines what each head executes.
Categorical parts are one-hot choices under every head.

B rows of the batch     U length of the joint action     P neighbouring parts of one kind     n numbers of each part
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from common.policy.heads import Segment, ranges, segments
from common.spec import JointSpec

SHORT = 1e-6
"""Squared length below which a force is computed by its series, whose gradient is finite at 0."""


class Actions:
    """The actions of all players from their logits, both `[B, U]`.

    Example:
        actions = Actions(run.joint, like, gumbel="soft", temperature=1.0, head="box")
        actions.greedy(logits)
    """

    def __init__(
        self,
        joint: JointSpec,
        like: Tensor,
        gumbel: Literal["straight_through", "soft"] = "straight_through",
        temperature: float = 1.0,
        head: str = "box",
    ) -> None:
        """Takes the number type and the device from `like`; ConfigError for an action part that `head` cannot make.

        gumbel, temperature: settings of Categorical parts. head: the head of Box parts (`network.head`).
        """
        self._segments = segments(joint, head)
        self._is_hard, self._temperature = gumbel == "straight_through", temperature
        self._ranges = [
            tuple(torch.from_numpy(side).to(like) for side in segment.range()) if segment.kind != "choice" else ()
            for segment in self._segments
        ]
        self.low, self.high, _ = (torch.from_numpy(side).to(like) for side in ranges(joint, head))
        """Bounds of the joint action `[U]`."""
        self.gumbel_dim = sum(_gumbel_dim(segment) for segment in self._segments)
        """Number of Gumbel variables that `differentiable` needs a row."""

    def greedy(self, logits: Tensor) -> Tensor:
        """Returns `a = mu(o)` without exploration."""
        parts = []
        for segment, half_range, x in self._by_segment(logits):
            if segment.kind == "choice":
                parts.append(_one_hot(x))
            else:
                parts.append(_box_action(segment, half_range, x))
        return _joined(parts)

    def with_gumbel(self, logits: Tensor, gumbel: Tensor | None) -> Tensor:
        """Returns logits with Gumbel noise on Categorical and soft parts, whose greedy action is then a draw.

        gumbel: Gumbel noise `[B, gumbel_dim]`; None without such parts.
        """
        parts, at = [], 0
        for segment, _, x in self._by_segment(logits):
            drawn = _gumbel_dim(segment)
            parts.append(x if gumbel is None or not drawn else x + gumbel[:, at : at + drawn].view(x.shape))
            at += drawn
        return _joined(parts)

    def differentiable(self, logits: Tensor, gumbel: Tensor | None) -> Tensor:
        """Returns `a = mu(o)` with a gradient for discrete parts too (Jang et al. 2017).

        gumbel: Gumbel noise `[B, gumbel_dim]` for Categorical parts, and for Box parts under the head `soft`.
        Straight-through samples are one-hot forward and have the gradient of the soft sample.
        """
        parts, at = [], 0
        for segment, half_range, logits_of_parts in self._by_segment(logits):
            x, drawn = logits_of_parts, _gumbel_dim(segment)
            if drawn and gumbel is not None:
                x = x + gumbel[:, at : at + drawn].view(x.shape)
                at += drawn
            if segment.kind != "choice":
                parts.append(_box_action(segment, half_range, x))
                continue
            soft = nn.functional.softmax(x / self._temperature, 2)
            parts.append(_one_hot(x) + soft - soft.detach() if self._is_hard else soft)
        return _joined(parts)

    def add_target_noise(self, action: Tensor, noise: Tensor) -> Tensor:
        """Returns target actions plus noise, clamped to their bounds. `noise` is in units of half the action's range.

        Choices and soft vectors get no noise, which would take them off the simplex.
        """
        parts = []
        for (segment, ranges_of_parts, x), (_, _, noise_of_parts) in zip(
            self._by_segment(action), self._by_segment(noise), strict=True
        ):
            if segment.kind in ("choice", "soft"):
                parts.append(x)
                continue
            change = noise_of_parts * ranges_of_parts[1]
            if segment.kind == "thrust":
                # The noise is on the thrust: a direction gets as much as the opposite one loses.
                right, up = change[..., 2], change[..., 4]
                change = torch.stack([0 * up, -right, right, -up, up], 2)
            parts.append(x + change)
        return _joined(parts).clamp(self.low, self.high)

    def _by_segment(self, joint: Tensor) -> Iterator[tuple[Segment, tuple[Tensor, ...], Tensor]]:
        """Yields each segment, its middle and half range `[P, n]`, and its columns of a joint tensor `[B, P, n]`."""
        for segment, ranges_of_parts in zip(self._segments, self._ranges, strict=True):
            yield segment, ranges_of_parts, joint[:, segment.columns].reshape(len(joint), *segment.shape)


def _gumbel_dim(segment: Segment) -> int:
    return segment.shape[0] * segment.shape[1] if segment.kind in ("choice", "soft") else 0


def _joined(parts: list[Tensor]) -> Tensor:
    """Returns the actions of all segments `[B, P, n]` side by side `[B, U]`."""
    flat = [part.flatten(1) for part in parts]
    return flat[0] if len(flat) == 1 else torch.cat(flat, 1)


def _one_hot(x: Tensor) -> Tensor:
    """Returns 1 at the largest number of each part, the first of equal ones, and 0 elsewhere."""
    return torch.zeros_like(x).scatter_(2, x.argmax(2, keepdim=True), 1.0)


def _box_action(segment: Segment, ranges_of_parts: tuple[Tensor, ...], logits: Tensor) -> Tensor:
    """Returns the actions of Box parts `[B, P, n]` under their head."""
    middle, half = ranges_of_parts
    if segment.kind == "soft":
        return nn.functional.softmax(logits, 2)
    if segment.kind == "force":
        return middle + half * _force(logits)
    if segment.kind == "thrust":
        _, left, right, down, up = logits.unbind(2)
        x, y = _force(torch.stack([right - left, up - down], 2)).unbind(2)
        return torch.stack([0 * x, (1 - x) / 2, (1 + x) / 2, (1 - y) / 2, (1 + y) / 2], 2)
    return torch.addcmul(middle, half, torch.tanh(logits))


def _force(h: Tensor) -> Tensor:
    """Returns `tanh(|h|) h / |h|` of vectors h `[B, P, 2]`; near 0 by its series, whose gradient is finite."""
    square = h.square().sum(2, keepdim=True)
    is_short = square < SHORT
    norm = torch.where(is_short, 1.0, square).sqrt()
    return h * torch.where(is_short, 1 - square / 3 + 2 * square**2 / 15, torch.tanh(norm) / norm)
