"""What every module of several networks of equal sizes can do, so that one flat buffer contains all parameters.

G networks of a group     P parameters of a network     R rows of a network
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from common.policy.network import Layer


class InputChange(NamedTuple):
    """A change of a few inputs of a network, added to its inputs."""

    change: Tensor
    """Difference from the inputs `[G, R, u]`."""
    columns: Tensor
    """Which inputs of each network change `[G, u]`."""


class GroupedNetworks(nn.Module):
    """G networks of equal sizes: inputs `[G, R, inputs]`, outputs `[G, R, outputs]`."""

    @abstractmethod
    def forward(self, x: Tensor, change: InputChange | None = None) -> Tensor:
        """Returns the outputs `[G, R, outputs]` for inputs `[G, R, inputs]`, changed by `change` if given."""

    @abstractmethod
    def views(self, rows: Tensor) -> list[Tensor]:
        """Returns the views of `[G, P]` numbers, a row a network, that have the shapes of `parameters()`, in order."""

    @abstractmethod
    def first(self, count: int) -> GroupedNetworks:
        """Returns a copy of the first `count` networks, whose buffers are those of the networks themselves."""

    @abstractmethod
    def of_user(self, network: int, user: int) -> list[Layer]:
        """Returns the layers that one user of a network computes with, in numpy; none if it is not an MLP."""
