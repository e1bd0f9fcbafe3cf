"""The heads of all agents: joint actions from the policies' logits, and the gradients of the logits.

    B rows of the batch     U length of the joint action

`common/policy/heads.py` defines which head each part of an action has and what it executes. In the policy loss a
Categorical part is a Gumbel-softmax sample (Jang et al. 2017): soft, or one-hot forward with the soft sample's gradient
(straight-through). A soft part is a Gumbel-softmax sample at temperature 1, as exploring actors execute it.
Neighbouring parts of one kind form a segment and are computed together, even across agents.

`backward` has the gradients, written by hand. head_kinds.py has the kinds of heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.policy.heads import LEFT_DOWN, RIGHT_UP, ranges, segments
from common.spec import JointSpec
from learner_node.stacked.head_kinds import Gumbel, Head, SavedTensors, head_of, numbers_first


@dataclass(frozen=True)
class Sample:
    """The actions of the policy loss and the tensors that their gradient needs."""

    actions: Tensor
    """`[B, U]`. They must not be changed before `backward`, which may read them."""
    saved: tuple[SavedTensors, ...]
    """The tensors that each segment's head saved for `backward`."""


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
        """Takes the number type and the device from `like`; ConfigError for an action part that `head` cannot make.

        gumbel, temperature: settings of Categorical parts. head: the head of Box parts (`network.head`).
        """
        layout = segments(joint, head)
        self._columns = [segment.columns for segment in layout]
        self._thrusts = [(segment.columns, segment.shape) for segment in layout if segment.kind == "thrust"]
        self._heads = [head_of(segment, like, gumbel, temperature) for segment in layout]
        self.gumbel_dim = sum(head.gumbel_dim for head in self._heads)
        """Number of Gumbel variables that `sample` needs a row: one for each number of Categorical and soft parts."""
        self.low, self.high, self.noise_scale = (torch.from_numpy(side).to(like) for side in ranges(joint, head))
        """Bounds of the joint action, and the size of noise of scale 1 for each number (0 = no noise); `[U]` each."""

    def greedy(self, logits: Tensor, out: Tensor | None = None) -> Tensor:
        """Returns the actions `[B, U]` without exploration, in `out` if given."""
        actions = torch.empty_like(logits) if out is None else out
        for head, segment_logits, segment_actions in self._by_segment(logits, actions):
            head.greedy(segment_logits, segment_actions)
        return actions

    def sample(self, logits: Tensor, noise: Tensor | None, out: Tensor | None = None) -> Sample:
        """Returns the actions of the policy loss, in `out` if given.

        noise: Gumbel noise `[B, gumbel_dim]`; None if gumbel_dim is 0, or for actions without noise.
        """
        actions, saved, at = torch.empty_like(logits) if out is None else out, [], 0
        for head, segment_logits, segment_actions in self._by_segment(logits, actions):
            drawn = None if noise is None else noise[:, at : at + head.gumbel_dim]
            at += head.gumbel_dim
            saved.append(head.sample(segment_logits, drawn, segment_actions))
        return Sample(actions, tuple(saved))

    def add_gumbel(self, logits: Tensor, noise: Tensor | None) -> None:
        """Adds Gumbel noise to the logits of Categorical and soft parts in place, whose greedy action is then a draw.

        noise: Gumbel noise `[B, gumbel_dim]`; None if gumbel_dim is 0.
        """
        at = 0
        for head, segment_logits in zip(self._heads, self._split(logits), strict=True):
            if noise is not None and head.gumbel_dim:
                segment_logits.add_(noise[:, at : at + head.gumbel_dim])
                at += head.gumbel_dim

    def backward(self, sample: Sample, d_actions: Tensor, out: Tensor | None = None) -> Tensor:
        """Returns the gradient of the logits `[B, U]`, from that of the sampled actions, in `out` if given."""
        d_logits = torch.empty_like(d_actions) if out is None else out
        segments_and_saved = zip(self._by_segment(d_actions, d_logits), sample.saved, strict=True)
        for (head, d_segment_actions, d_segment_logits), saved in segments_and_saved:
            head.backward(saved, d_segment_actions, d_segment_logits)
        return d_logits

    def couple(self, noise: Tensor) -> Tensor:
        """Makes noise `[B, U]` on opposite thrusts equal and opposite, in place."""
        for columns, shape in self._thrusts:
            thrust = numbers_first(noise[:, columns], shape)
            thrust[LEFT_DOWN] = -thrust[RIGHT_UP]
        return noise

    def _by_segment(self, first: Tensor, second: Tensor) -> Iterator[tuple[Head, Tensor, Tensor]]:
        """Yields each segment's head, with the segment's columns of two tensors `[B, U]`."""
        return zip(self._heads, self._split(first), self._split(second), strict=True)

    def _split(self, tensor: Tensor) -> Sequence[Tensor]:
        return [tensor] if len(self._columns) == 1 else [tensor[:, columns] for columns in self._columns]
