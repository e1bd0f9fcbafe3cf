"""Adam and gradient clipping over the flat parameters of all agents at once.

P parameters of all networks of one kind, in one flat buffer     owner: the network a parameter belongs to
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.adam import adam

from learner_node.networks import Blocks


class Adam:
    """Adam (Kingma and Ba 2015) over one flat tensor; element by element it equals one optimiser a network."""

    def __init__(self, parameters: Tensor) -> None:
        """Starts both moments of `parameters` `[P]` at zero."""
        self.mean = torch.zeros_like(parameters)
        self.square = torch.zeros_like(parameters)
        self.steps = torch.zeros((), device=parameters.device)

    def step(self, parameters: Tensor, gradient: Tensor, learning_rate: float) -> None:
        """Moves `parameters` one step against `gradient`, both `[P]`."""
        adam(
            [parameters],
            [gradient],
            [self.mean],
            [self.square],
            [],
            [self.steps],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


def clip_by_owner(blocks: Blocks, largest: float) -> Tensor:
    """Scales each owner's gradient down to norm `largest` (0 = leave) and returns the norms before it `[owners]`.

    Each network by itself, as torch's clip_grad_norm_ does for one module: one agent's large gradient does not slow
    the others.
    """
    squares = blocks[0][1].new_zeros(max(members.stop for members, _ in blocks))
    for members, gradients in blocks:
        squares[members] += torch.linalg.vector_norm(gradients, dim=(0, 2)).square_()
    norms = squares.sqrt_()
    if largest > 0:
        scales = (largest / (norms + 1e-6)).clamp_(max=1.0)
        for members, gradients in blocks:
            gradients.mul_(scales[members, None])
    return norms
