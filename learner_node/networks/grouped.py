"""What every module of several networks of equal sizes can do, so that one flat buffer contains all parameters.

G networks of a group     P parameters of a network     R rows of a network
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.policy.network import Layer


class InputChange(NamedTuple):
    """A change of a few inputs of a network, added to its inputs."""

    change: Tensor
    """Difference from the inputs `[G, R, u]`."""
    columns: Tensor
    """Which inputs of each network change `[G, u]`."""


class GroupedNetworks(nn.Module):
    """G networks of equal sizes: inputs `[G, R, inputs]`, outputs `[G, R, outputs]`.

    Every parameter is `[G, ...]`, unless a subclass overrides `views` and `first`.
    """

    @abstractmethod
    def forward(self, x: Tensor, change: InputChange | None = None) -> Tensor:
        """Returns the outputs `[G, R, outputs]` for inputs `[G, R, inputs]`, changed by `change` if given."""

    def views(self, rows: Tensor) -> list[Tensor]:
        """Returns the views of `[G, P]` numbers, a row a network, that have the shapes of `parameters()`, in order."""
        shapes = [parameter.shape[1:] for parameter in self.parameters()]
        pieces = torch.split(rows, [shape.numel() for shape in shapes], 1)
        return [piece.view(len(piece), *shape) for piece, shape in zip(pieces, shapes, strict=True)]

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter of one network, by name."""
        return {name: tuple(parameter.shape[1:]) for name, parameter in self.named_parameters()}

    def first(self, count: int) -> GroupedNetworks:  # noqa: ARG002  (its parameters are placed afterwards)
        """Returns a copy, which becomes the first `count` networks when `views` of their rows are its parameters."""
        return copy.deepcopy(self)

    @abstractmethod
    def of_user(self, network: int, user: int) -> list[Layer]:
        """Returns the layers that one user of a network computes with, in numpy; none if it is not an MLP."""
