"""Heads: from the policies' logits to joint actions, and the gradients back.

    B rows of the batch     U length of the joint action

Which part acts by which head, and what that executes, stands in `common/policy/heads.py`. In the policy loss a
Categorical part is a Gumbel-softmax sample (Jang et al. 2017): soft, or one-hot forward with the soft sample's gradient
(straight-through). A soft part is one too, at temperature 1: what exploring actors execute. Neighbouring parts of one
kind are treated together, whichever agents they belong to.

The gradients are written out (`backward`), as all of the update's are. The kinds stand in head_kinds.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.policy.heads import LEFT_DOWN, RIGHT_UP, ranges, segments
from common.spec import JointSpec
from learner_node.stacked.head_kinds import Gumbel, Kept, head_of, numbers_first

_SMALLEST_UNIFORM = 1e-30


@dataclass(frozen=True)
class Sample:
    """Actions taken in the policy loss and what their gradient needs."""

    actions: Tensor
    """`[B, U]`; left as they are until `backward`, which may want them back."""
    kept: tuple[Kept, ...]
    """By segment: what its head wants back."""


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
        self._heads = [head_of(segment, like, gumbel, temperature) for segment in layout]
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
            five = numbers_first(noise[:, columns], shape)
            five[LEFT_DOWN] = -five[RIGHT_UP]
        return noise

    def _split(self, joint: Tensor) -> Sequence[Tensor]:
        return [joint] if len(self._columns) == 1 else [joint[:, columns] for columns in self._columns]


def gumbel_noise(rows: int, choices: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draws standard Gumbel noise `[rows, choices]`: `-log(-log(u))`, u uniform."""
    # Drawing u and two logarithms take a third of the time of an exponential variable's draw.
    uniform = like.new_empty(rows, choices).uniform_(_SMALLEST_UNIFORM, 1.0, generator=generator)
    return uniform.log_().neg_().log_().neg_()
