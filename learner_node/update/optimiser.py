"""Adam and gradient clipping over the flat parameters of all networks of one kind at once.

P  number of shared parameters of all networks, in one flat buffer of blocks of rows
owner  the network that a row belongs to
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from common.run.run import AlgorithmSpec


@dataclass(frozen=True)
class Block:
    """Rows of equal length in a flat buffer, from index `start`."""

    start: int
    rows: int
    width: int

    def of(self, flat: Tensor) -> Tensor:
        """Returns the block as a view `[rows, width]` of a flat buffer."""
        return flat[self.start : self.start + self.rows * self.width].view(self.rows, self.width)


class WeightDecay(NamedTuple):
    """How weights decay towards 0."""

    rate: float
    """Multiple of the weights that is added to the gradient, or subtracted from the weights; 0 = no decay."""
    decoupled: bool = False
    """Whether each step subtracts `learning rate * rate * weights` apart from Adam's step (AdamW; Loshchilov and Hutter
    2019), instead of adding `rate * weights` to the gradient."""


class Adam:
    """Adam (Kingma and Ba 2015) over one flat tensor. It equals a separate optimiser for each network.

    Each parameter may have a factor on the learning rate.
    """

    def __init__(self, parameters: Tensor, weight_decay: WeightDecay, relative_rates: Tensor | None) -> None:
        """Starts with moments of 0 for `parameters` `[P]`; relative_rates: learning rate factors `[P]`, None = 1."""
        self.mean = torch.zeros_like(parameters)
        self.square = torch.zeros_like(parameters)
        self.steps = torch.zeros((), device=parameters.device)
        self.learning_rate = torch.zeros((), device=parameters.device)
        """The learning rate. It is a tensor, so that each replay of a captured update reads its new value; float32
        whatever the parameters are, because the fused kernel reads nothing else on a GPU."""
        self._weight_decay, self._relative_rates = weight_decay, relative_rates

    def step_of(self, is_chosen: Tensor, parameters: Tensor, gradient: Tensor, *, is_first: bool) -> None:
        """Moves the chosen `parameters` one step against `gradient`; the others and their moments stay. All `[P]`.

        is_first: whether this is the first of several such steps that together move each parameter once and so count as
        one step.
        """
        moved = parameters, self.mean, self.square
        before = [tensor.clone() for tensor in moved]
        if not is_first:
            self.steps.sub_(1.0)
        self.step(parameters, gradient)
        for tensor, old in zip(moved, before, strict=True):
            torch.where(is_chosen, tensor, old, out=tensor)

    def step(self, parameters: Tensor, gradient: Tensor) -> None:
        """Moves `parameters` one step against `gradient`, both `[P]`."""
        before = None if self._relative_rates is None else parameters.clone()
        self.steps.add_(1.0)
        # torch.optim.Adam(fused=True) and AdamW call these functions, but their checks take longer than the step.
        fused_step = torch._fused_adamw_ if self._weight_decay.decoupled else torch._fused_adam_
        fused_step(
            [parameters],
            [gradient],
            [self.mean],
            [self.square],
            [],
            [self.steps],
            lr=self.learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=self._weight_decay.rate,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )
        if before is not None and self._relative_rates is not None:
            # A step is proportional to its rate, so each parameter moves by its own fraction of the common step.
            torch.lerp(before, parameters, self._relative_rates, out=parameters)


class ClipRule(NamedTuple):
    """What gradients are clipped to."""

    max_norm: float
    """The norm to scale down to; 0 = no clipping."""
    by_tensor: bool = False
    """Whether each weight matrix and bias vector is clipped separately, instead of each network."""

    @classmethod
    def of(cls, algorithm: AlgorithmSpec) -> ClipRule:
        """Returns the rule that a run's settings ask for."""
        return cls(algorithm.gradient_clip, by_tensor=algorithm.gradient_clip_by == "tensor")


class GradientClip:
    """Clips the gradient of each network, or of each of its tensors, to a largest norm, in place.

    Each network is clipped separately, as torch's clip_grad_norm_ clips a module (which divides by the norm + 1e-6):
    a large gradient of one network does not slow the others.
    """

    def __init__(
        self, gradient: Tensor, blocks: Sequence[tuple[Block, list[int]]], rule: ClipRule, tensor_of: Tensor
    ) -> None:
        """gradient: the buffer `[P]`, which must stay in place. blocks: its blocks, with the owner of each row.

        tensor_of: the tensor that each number belongs to `[P]`, counted from 0 over all networks.
        """
        self._rule, self._gradient = rule, gradient
        self._tensor_of = tensor_of if rule.by_tensor and rule.max_norm > 0 else None
        tensors = 0 if self._tensor_of is None else int(tensor_of.max()) + 1
        self._tensor_scales = gradient.new_zeros(tensors)
        merged = [_merge_rows(block, row_owners) for block, row_owners in blocks if block.width]
        self._rows = [block.of(gradient) for block, _ in merged]
        counts = [len(rows) for rows in self._rows]
        owners = [owner for _, row_owners in merged for owner in row_owners]
        self._norms = gradient.new_zeros(len(owners))
        self._block_norms = torch.split(self._norms, counts)
        self._owner = torch.tensor(owners, device=gradient.device)
        self._owner_rows = torch.nn.functional.one_hot(self._owner).to(gradient).t().contiguous()
        self._scales = gradient.new_zeros(len(self._owner_rows))
        one_row_each = all(row_owners == list(range(len(self._scales))) for _, row_owners in merged)
        self._row_scales = None if one_row_each else gradient.new_zeros(len(owners))
        """The scale of each row; None if each block has one row a network."""
        if self._row_scales is None:
            self._block_scales = [self._scales[:, None]] * len(merged)
        else:
            self._block_scales = list(torch.split(self._row_scales[:, None], counts))

    def clip(self) -> Tensor:
        """Clips the gradients and returns their squared norms before clipping, network by network."""
        for rows, norms in zip(self._rows, self._block_norms, strict=True):
            torch.linalg.vector_norm(rows, dim=1, out=norms)
        squared_norms = torch.mv(self._owner_rows, self._norms.square_())
        if self._tensor_of is not None:
            self._clip_tensors(self._tensor_of)
        elif self._rule.max_norm > 0:
            torch.rsqrt(squared_norms, out=self._scales).mul_(self._rule.max_norm).clamp_(max=1.0)
            if self._row_scales is not None:
                torch.index_select(self._scales, 0, self._owner, out=self._row_scales)
            for rows, scales in zip(self._rows, self._block_scales, strict=True):
                rows.mul_(scales)
        return squared_norms

    def _clip_tensors(self, tensor_of: Tensor) -> None:
        scales = self._tensor_scales.zero_().index_add_(0, tensor_of, self._gradient.square())
        scales.rsqrt_().mul_(self._rule.max_norm).clamp_(max=1.0)
        self._gradient.mul_(scales.index_select(0, tensor_of))


def _merge_rows(block: Block, owners: list[int]) -> tuple[Block, list[int]]:
    """Merges the neighbouring rows of each owner into one longer row, if all owners have equally many rows."""
    merged = [(owner, len(list(rows))) for owner, rows in groupby(owners)]
    lengths = {length for _, length in merged}
    if len(lengths) > 1:
        return block, owners
    return Block(block.start, len(merged), lengths.pop() * block.width), [owner for owner, _ in merged]
