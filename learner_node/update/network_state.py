"""What a checkpoint stores of an engine, part by part: tensors by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class NetworkState(Protocol):
    """The state of learnt parameters, such as those of all policies: values, targets, Adam's moments and steps."""

    def tensors(self) -> dict[str, Tensor]:
        """Returns a copy of all state on the CPU as tensors by name, each network by network."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Replaces all state by what `tensors` returned."""
        ...
