"""Adam and gradient clipping over the flat parameters of all agents at once.

    P parameters of all networks of one kind, in one flat buffer     owner: the agent's network a parameter belongs to
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Blocks = Sequence[tuple[slice, Tensor]]
"""Parameters or gradients of many networks as (owners, `[x, owners, y]`): what belongs to whom."""


class Adam:
    """Adam (Kingma and Ba 2015) over one flat tensor; element by element it equals torch.optim.Adam."""

    BETA1 = 0.9
    BETA2 = 0.999
    EPSILON = 1e-8

    def __init__(self, parameters: Tensor) -> None:
        """Starts both moments of `parameters` `[P]` at zero."""
        self.mean = torch.zeros_like(parameters)
        self.square = torch.zeros_like(parameters)
        self.steps = 0
        self._scratch = torch.empty_like(parameters)

    def step(self, parameters: Tensor, gradient: Tensor, learning_rate: float) -> None:
        """Moves `parameters` one step against `gradient`, both `[P]`."""
        self.steps += 1
        self.mean.lerp_(gradient, 1.0 - self.BETA1)
        self.square.mul_(self.BETA2).addcmul_(gradient, gradient, value=1.0 - self.BETA2)
        torch.sqrt(self.square, out=self._scratch)
        self._scratch.div_(math.sqrt(1.0 - self.BETA2**self.steps)).add_(self.EPSILON)
        rate = learning_rate / (1.0 - self.BETA1**self.steps)
        parameters.addcdiv_(self.mean, self._scratch, value=-rate)


def clip_by_owner(blocks: Blocks, owners: int, largest: float) -> Tensor:
    """Scales each owner's gradient down to norm `largest` (0 = leave) and returns the norms before it `[owners]`.

    Each network by itself, as torch's clip_grad_norm_ does for one module: one agent's large gradient does not slow
    the others.
    """
    squares = blocks[0][1].new_zeros(owners)
    for members, gradients in blocks:
        squares[members] += torch.linalg.vector_norm(gradients, dim=(0, 2)).square_()
    norms = squares.sqrt_()
    if largest > 0:
        scales = (largest / (norms + 1e-6)).clamp_(max=1.0)
        for members, gradients in blocks:
            gradients.mul_(scales[members, None])
    return norms
