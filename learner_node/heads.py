"""Heads: from the policies' logits to joint actions, and the gradients back.

    B rows of the batch     U length of the joint action     n choices of a Categorical part

A Box part acts `middle + half_range * tanh(logit)`. A Categorical part acts the one-hot argmax; in the policy loss it
is a Gumbel-softmax sample (Jang et al. 2017): soft, or one-hot forward with the soft sample's gradient
(straight-through). Neighbouring parts of one kind are treated together, whichever agents they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from common.policy import box_range
from common.spec import Box, Categorical, JointSpec

Gumbel = Literal["straight_through", "soft"]


@dataclass(frozen=True)
class BoxColumns:
    """Neighbouring Box parts: where they stand in the joint action, middle and half range of each number."""

    columns: slice
    middle: Tensor
    half: Tensor


@dataclass(frozen=True)
class ChoiceColumns:
    """Neighbouring Categorical parts with the same number of choices."""

    columns: slice
    parts: int
    n: int


Segment = BoxColumns | ChoiceColumns


@dataclass(frozen=True)
class Sample:
    """Actions taken in the policy loss and what their gradient needs."""

    actions: Tensor
    """`[B, U]`."""
    kept: tuple[Tensor, ...]
    """By segment: tanh of the logits of Box parts `[B, k]`, soft samples of Categorical parts `[B, parts, n]`."""


class Heads:
    """The heads of all agents over the joint action."""

    def __init__(
        self,
        joint: JointSpec,
        like: Tensor,
        gumbel: Gumbel = "straight_through",
        temperature: float = 1.0,
    ) -> None:
        """Takes number type and device from `like`."""
        self.segments = _segments(joint, like)
        self.choices = sum(s.parts * s.n for s in self.segments if isinstance(s, ChoiceColumns))
        """Gumbel numbers `sample` takes for each row."""
        self._gumbel = gumbel
        self._temperature = temperature

    def greedy(self, logits: Tensor) -> Tensor:
        """Returns the actions `[B, U]` without exploration."""
        actions = torch.empty_like(logits)
        for segment in self.segments:
            own, out = self._columns(logits, segment), self._columns(actions, segment)
            if isinstance(segment, BoxColumns):
                torch.addcmul(segment.middle, torch.tanh(own), segment.half, out=out)
            else:
                _one_hot(own.view(-1, segment.parts, segment.n), out)
        return actions

    def sample(self, logits: Tensor, noise: Tensor | None) -> Sample:
        """Returns the actions of the policy loss; `noise` is Gumbel noise `[B, choices]`, None where none is needed."""
        actions, kept, at = torch.empty_like(logits), [], 0
        for segment in self.segments:
            own, out = self._columns(logits, segment), self._columns(actions, segment)
            if isinstance(segment, BoxColumns):
                tanh = torch.tanh(own)
                torch.addcmul(segment.middle, tanh, segment.half, out=out)
                kept.append(tanh)
                continue
            width = segment.parts * segment.n
            noisy = own if noise is None else own + noise[:, at : at + width]
            at += width
            soft = torch.softmax(noisy.view(-1, segment.parts, segment.n) / self._temperature, 2)
            if self._gumbel == "soft":
                out.copy_(soft.flatten(1))
            else:
                _one_hot(soft, out)
            kept.append(soft)
        return Sample(actions, tuple(kept))

    def backward(self, sample: Sample, d_actions: Tensor) -> Tensor:
        """Returns the gradient of the logits `[B, U]`, given that of the sampled actions `[B, U]`."""
        d_logits = torch.empty_like(d_actions)
        for segment, kept in zip(self.segments, sample.kept, strict=True):
            own, out = self._columns(d_actions, segment), self._columns(d_logits, segment)
            if isinstance(segment, BoxColumns):
                torch.ops.aten.tanh_backward.grad_input(own * segment.half, kept, grad_input=out)
            else:
                own = own.view(-1, segment.parts, segment.n)
                inner = (own * kept).sum(2, keepdim=True)
                out.copy_(((own - inner) * kept / self._temperature).flatten(1))
        return d_logits

    def _columns(self, joint: Tensor, segment: Segment) -> Tensor:
        return joint if len(self.segments) == 1 else joint[:, segment.columns]


def gumbel_noise(rows: int, choices: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draws standard Gumbel noise `[rows, choices]`: minus the logarithm of an exponential variable."""
    return like.new_empty(rows, choices).exponential_(generator=generator).log_().neg_()


def _one_hot(scores: Tensor, out: Tensor) -> None:
    """Writes into `out` `[B, parts*n]` 1.0 at the highest of the scores `[B, parts, n]`, the first of equals."""
    best = scores.argmax(2, keepdim=True)
    out.copy_(torch.zeros_like(scores).scatter_(2, best, 1.0).flatten(1))


def _segments(joint: JointSpec, like: Tensor) -> tuple[Segment, ...]:
    parts = [part for agent in joint.agents for part in agent.parts]
    segments: list[Segment] = []
    at = 0
    for n, run in groupby(parts, lambda part: part.n if isinstance(part, Categorical) else 0):
        members = list(run)
        columns = slice(at, at + sum(part.size for part in members))
        at = columns.stop
        if n:
            segments.append(ChoiceColumns(columns, len(members), n))
        else:
            ranges = zip(*(box_range(part) for part in members if isinstance(part, Box)), strict=True)
            middle, half = (torch.from_numpy(np.concatenate(side)).to(like) for side in ranges)
            segments.append(BoxColumns(columns, middle, half))
    return tuple(segments)
