"""The state of a thing as arrays by name: kept in a file without pickle, and put back bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

State = dict[str, npt.NDArray[Any]]
"""Copies: what they were taken from may go on."""


@runtime_checkable
class Restorable(Protocol):
    """A thing that goes on from a state of its like exactly as the one it was taken from."""

    def state(self) -> State:
        """Returns its state."""
        ...

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Takes a state over; KeyError or ValueError when it is not that of its like."""
        ...


def generator_state(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Returns where a generator stands, as the bytes of a JSON text: its numbers are longer than any array's."""
    return np.frombuffer(json.dumps(rng.bit_generator.state).encode(), np.uint8).copy()


def restore_generator(rng: np.random.Generator, state: npt.NDArray[np.uint8]) -> None:
    """Sets a generator to where another one stood; ValueError when it is of another kind."""
    rng.bit_generator.state = json.loads(state.tobytes())


def with_prefix(prefix: str, state: Mapping[str, npt.NDArray[Any]]) -> State:
    """Returns a part's state under names of the whole: `prefix/name`."""
    return {f"{prefix}/{name}": array for name, array in state.items()}


def select_prefix(prefix: str, state: Mapping[str, npt.NDArray[Any]]) -> State:
    """Returns the state of a part that `within` has named."""
    start = f"{prefix}/"
    return {name.removeprefix(start): array for name, array in state.items() if name.startswith(start)}


def copy_into(into: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
    """Copies a kept array into the one it was taken from; ValueError when shape or type differ."""
    if into.shape != values.shape or into.dtype != values.dtype:
        raise ValueError(f"{values.dtype} {values.shape} was kept, {into.dtype} {into.shape} is needed")
    into[...] = values
