"""Critics and algorithms as users write them, for runs that name them by their import path."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from learner_node.algorithms.maddpg import Maddpg
from learner_node.algorithms.masac import Masac
from learner_node.networks.critic_input import CriticInput
from learner_node.update.batches import LossBatch, RowWeights


class Mlp(nn.Module):
    """The built-in critic, as a user would write it."""

    def __init__(self, inputs: CriticInput, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers = [nn.Linear(i, o) for i, o in pairwise((inputs.size, *widths, 1))]
        self.layers = nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class Normed(Mlp):
    """A critic with buffers: batch normalisation of its input."""

    def __init__(self, inputs: CriticInput, widths: tuple[int, ...]) -> None:
        super().__init__(inputs, widths)
        self.norm = nn.BatchNorm1d(inputs.size)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x))


class Clamped(Mlp):
    """A critic with a constant that is not finite and therefore not stored."""

    def __init__(self, inputs: CriticInput, widths: tuple[int, ...]) -> None:
        super().__init__(inputs, widths)
        self.register_buffer("bound", torch.tensor(torch.inf), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.minimum(super().forward(x), self.get_buffer("bound"))


class Flat(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, 0]


class Numbers(Mlp):
    def forward(self, x: Tensor) -> Any:
        return [0.0] * len(x)


class Detached(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class NotFinite(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0.0


class Fails(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("wrong turn")


class FailsWhenMade(nn.Module):
    def __init__(self, inputs: CriticInput, widths: tuple[int, ...]) -> None:
        raise RuntimeError("no licence")


class WithoutParameters(nn.Module):
    def __init__(self, inputs: CriticInput, widths: tuple[int, ...]) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1, keepdim=True)


class Constant(Mlp):
    def __init__(self, inputs: CriticInput, widths: tuple[int, ...]) -> None:
        super().__init__(inputs, widths)
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)


class Unused(Mlp):
    def __init__(self, inputs: CriticInput, widths: tuple[int, ...]) -> None:
        super().__init__(inputs, widths)
        self.spare = nn.Linear(2, 3)


class Blind(Mlp):
    """A critic that does not see its own agent's action."""

    def __init__(self, inputs: CriticInput, widths: tuple[int, ...]) -> None:
        super().__init__(inputs, widths)
        self.inputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.ones_like(x)
        for i in self.inputs.focal:
            seen[:, self.inputs.agents[i].action] = 0.0
        return super().forward(x * seen)


class Structured(nn.Module):
    """A critic that is linear in its own agent's action, with a parameter for each number of it."""

    def __init__(self, inputs: CriticInput, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.inputs = inputs
        (own,) = (inputs.agents[i].action for i in inputs.focal)
        self.action, self.weight = own, nn.Parameter(torch.ones(own.stop - own.start))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.action] @ self.weight[:, None]


def function(_inputs: CriticInput, _widths: tuple[int, ...]) -> nn.Module:
    return nn.Linear(1, 1)


class Doubled(Maddpg):
    """Doubles the critic loss."""

    def critic_loss(self, td_error: Tensor, batch: LossBatch, row_weights: RowWeights) -> Tensor:
        return 2.0 * super().critic_loss(td_error, batch, row_weights)


class Softer(Masac):
    """Soft actor-critic whose temperatures stay."""

    def temperature_gradient(self, excess: Tensor, row_weights: RowWeights) -> Tensor:
        return torch.zeros_like(super().temperature_gradient(excess, row_weights))


class FailsInTheLoss(Maddpg):
    def critic_loss(self, td_error: Tensor, batch: LossBatch, row_weights: RowWeights) -> Tensor:
        raise ValueError("no loss today")


class FewWeights(Maddpg):
    def policy_weights(self) -> Any:
        return super().policy_weights()[1:]


class NotAnEngine:
    def step(self) -> None:
        """Does nothing."""


class LateFault(Maddpg):
    """Fails after the trial: in its fifth update."""

    updates = 0

    def critic_loss(self, td_error: Tensor, batch: LossBatch, row_weights: RowWeights) -> Tensor:
        self.updates += 1
        if self.updates == 5:
            raise ValueError("five is too much")
        return super().critic_loss(td_error, batch, row_weights)
