"""A sampler of the user's own: a class that the setting `replay.sampler` names by its import path.

    # my_samplers.py, with replay.sampler = "my_samplers:Recent"
    class Recent:
        def sample(self, rng, size, count):
            return np.minimum(rng.geometric(1e-4, count) - 1, size - 1)

The class knows neither slots nor overwritten records: it returns ages, which this module checks and turns into slots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from common.errors import ConfigError, LastingError
from common.state import State, generator_state, restore_generator
from common.user_code import exception_lines, import_object
from common.wire.sample_info import SampleInfo
from replay_server.table.ring import Slots

TRIAL_COUNT = 256
"""Number of ages that a sampler is asked for when it is checked."""


class AgeSampler(Protocol):
    """What a user's class must be: it is made without arguments, once in each replay server, and has this method."""

    def sample(self, rng: np.random.Generator, size: int, count: int) -> npt.ArrayLike:
        """Returns the ages of the records of the next batch, as whole numbers `[count]`.

        An age is 0 for the newest record and `size - 1` for the oldest one; an age may occur several times. rng: the
        only source of random numbers, so that a lockstep run can be repeated. size: number of stored records.
        """


class ImportedSampler:
    """Draws the records whose ages a user's sampler returns; each counts alike in the loss."""

    def __init__(self, path: str, capacity: int, seed: int) -> None:
        """Makes the sampler that `path`, a text such as "my_module:MyClass", names; raises ConfigError.

        A second sampler of the class is made and tried with one record and with a full ring.
        """
        self._path, self._capacity = path, capacity
        make = _import_class(path)
        self._sampler = _make_and_try(path, make, capacity)
        self._size = self._next_slot = 0
        self._random = np.random.default_rng(seed)

    def insert(self, first_slot: int, count: int) -> None:
        """Counts the new records, which are the newest ones from now on."""
        self._size = min(self._size + count, self._capacity)
        self._next_slot = (first_slot + count) % self._capacity

    def draw(self, count: int) -> Slots:
        """Returns the slots of `count` records; LastingError if the sampler fails, or returns what is not an age."""
        try:
            ages = _ages(self._sampler, self._random, self._size, count)
        except _SamplerError as e:
            raise LastingError(f"replay.sampler = {self._path!r}: {e}") from e
        return (self._next_slot - 1 - ages) % self._capacity

    def sample_info(self, slots: Slots) -> None:
        """Returns None: no probabilities are known, and TD errors are not asked for."""

    def update_priorities(self, samples: SampleInfo) -> int:
        """Ignores the TD errors; returns the number of samples, as if all had been overwritten."""
        return len(samples)

    def state(self) -> State:
        """Returns the state of the random generator."""
        return {"rng": generator_state(self._random)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continues from the state of such a sampler."""
        restore_generator(self._random, state["rng"])


def check_sampler(path: str, capacity: int) -> None:
    """Raises ConfigError if `path` names no class, or a class whose samplers fail or return what is not an age."""
    _make_and_try(path, _import_class(path), capacity)


class _SamplerError(Exception):
    """A fault of the user's class, in words."""


def _import_class(path: str) -> Callable[[], AgeSampler]:
    found = import_object("replay.sampler", path, "Every replay server imports it.")
    if not isinstance(found, type) or not callable(getattr(found, "sample", None)):
        raise ConfigError(
            f"replay.sampler = {path!r}: {path.partition(':')[2]} is not a class with a method"
            " sample(self, rng, size, count), which returns the ages of `count` records; see docs/own-algorithm.md."
        )
    return found


def _make_and_try(path: str, make: Callable[[], AgeSampler], capacity: int) -> AgeSampler:
    """Returns a new sampler, after another one has been tried."""
    try:
        for size in (1, capacity):
            _ages(_make(make), np.random.default_rng(0), size, TRIAL_COUNT)
        return _make(make)
    except _SamplerError as e:
        raise ConfigError(f"replay.sampler = {path!r}: {e}") from e


def _make(make: Callable[[], AgeSampler]) -> AgeSampler:
    try:
        return make()
    except (Exception, SystemExit) as e:
        raise _SamplerError(exception_lines("making the sampler", e, "the sampler")) from e


def _ages(sampler: AgeSampler, rng: np.random.Generator, size: int, count: int) -> Slots:
    """Returns the ages `[count]` that a sampler chooses; _SamplerError unless each is one of 0 ... size - 1."""
    call = f"sample(rng, size={size}, count={count})"
    try:
        ages = np.asarray(sampler.sample(rng, size, count))
    except (Exception, SystemExit) as e:
        raise _SamplerError(exception_lines(call, e, "the sampler")) from e
    if ages.shape != (count,) or ages.dtype.kind not in "iu":
        raise _SamplerError(
            f"{call} returned an array of shape {list(ages.shape)} and type {ages.dtype}. Return {count} whole numbers."
        )
    if ages.min() < 0 or ages.max() >= size:
        wrong = ages[(ages < 0) | (ages >= size)][0]
        raise _SamplerError(
            f"{call} returned the age {wrong}. An age is 0 for the newest record and size - 1 for the oldest one."
        )
    return ages.astype(np.int64)
