"""Adam and gradient clipping over the flat parameters of all agents at once.

P parameters of all networks of one kind, in one flat buffer     owner: the network a parameter belongs to
"""

from __future__ import annotations

import torch
from torch import Tensor

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
        self.steps.add_(1.0)
        # What torch.optim.Adam(fused=True) calls in the end; its way there takes longer than the step.
        torch._fused_adam_(
            [parameters],
            [gradient],
            [self.mean],
            [self.square],
            [],
            [self.steps],
            lr=learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )


class Clip:
    """Scales each network's gradient down to a largest norm, where it lies.

    Each network by itself, as torch's clip_grad_norm_ does for one module: one agent's large gradient does not slow
    the others.
    """

    def __init__(self, gradients: Blocks) -> None:
        """Takes all gradients of one kind, which stay where they are."""
        owners = max(members.stop for members, _ in gradients)
        self._norms = gradients[0][1].new_zeros(len(gradients), owners)
        self._scales = gradients[0][1].new_ones(owners)
        self._blocks = [
            (gradient, self._norms[i, members], self._scales[members, None])
            for i, (members, gradient) in enumerate(gradients)
        ]

    def __call__(self, largest: float) -> Tensor:
        """Scales to norm `largest` (0 = leaves them) and returns the norms before, network by network."""
        for gradient, norm, _ in self._blocks:
            torch.linalg.vector_norm(gradient, dim=(0, 2), out=norm)
        norms: Tensor = torch.linalg.vector_norm(self._norms, dim=0)
        if largest > 0:
            torch.reciprocal(norms + 1e-6, out=self._scales).mul_(largest).clamp_(max=1.0)
            for gradient, _, scale in self._blocks:
                gradient.mul_(scale)
        return norms
