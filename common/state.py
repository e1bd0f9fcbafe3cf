"""State as arrays by name: stored in a file without pickle and restored bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

State = dict[str, npt.NDArray[Any]]
"""Arrays by name, copied from an object, which may change afterwards."""


@runtime_checkable
class Restorable(Protocol):
    """An object that continues exactly like another one of its type after it restores the other's state."""

    def state(self) -> State:
        """Returns a copy of the object's state."""
        ...

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restores a state; KeyError or ValueError if the state is not one of this type and size."""
        ...


def generator_state(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Returns the state of a random generator as the bytes of a JSON text, because its integers exceed 64 bits."""
    return np.frombuffer(json.dumps(rng.bit_generator.state).encode(), np.uint8).copy()


def restore_generator(rng: np.random.Generator, state: npt.NDArray[np.uint8]) -> None:
    """Restores the state of a random generator; ValueError if the state is of another bit generator."""
    rng.bit_generator.state = json.loads(state.tobytes())


def with_prefix(prefix: str, state: Mapping[str, npt.NDArray[Any]]) -> State:
    """Returns a state whose names are prefixed: `prefix/name`."""
    return {f"{prefix}/{name}": array for name, array in state.items()}


def select_prefix(prefix: str, state: Mapping[str, npt.NDArray[Any]]) -> State:
    """Returns the state that `with_prefix` prefixed, without the prefix; other names are omitted."""
    start = f"{prefix}/"
    return {name.removeprefix(start): array for name, array in state.items() if name.startswith(start)}


def copy_into(into: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
    """Copies a stored array into an array of the same shape and type; ValueError if they differ."""
    if into.shape != values.shape or into.dtype != values.dtype:
        raise ValueError(f"the stored array is {values.dtype} {values.shape}, expected {into.dtype} {into.shape}")
    into[...] = values
