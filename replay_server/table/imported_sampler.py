"""A sampler of the user's own: a class that the setting `replay.sampler` names by its import path.

    # my_samplers.py, with replay.sampler = "my_samplers:Recent"
    class Recent:
        def sample(self, rng, size, count):
            return np.minimum(rng.geometric(1e-4, count) - 1, size - 1)

The class knows neither slots nor overwritten records: it returns ages, which this module checks and samplers.py turns
into slots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from common.errors import ConfigError, LastingError
from common.user_code import exception_lines, import_object

Ages = npt.NDArray[np.int64]
"""Ages of records `[n]`: 0 is the newest record, the number of stored records less 1 the oldest one."""
TRIAL_COUNT = 256
"""Number of ages that a sampler is asked for when it is checked."""


class AgeSampler(Protocol):
    """What a user's class must be: it is made without arguments, once in each replay server, and has this method."""

    def sample(self, rng: np.random.Generator, size: int, count: int) -> npt.ArrayLike:
        """Returns the ages of the records of the next batch, as whole numbers `[count]`.

        An age is 0 for the newest record and `size - 1` for the oldest one; an age may occur several times. rng: the
        only source of random numbers, so that a lockstep run can be repeated. size: number of stored records.
        """


class ImportedAges:
    """The ages that a sampler of the user's class chooses, checked."""

    def __init__(self, path: str, capacity: int) -> None:
        """Makes the sampler that `path`, a text such as "my_module:MyClass", names; raises ConfigError.

        A second sampler of the class is made and tried with one record and with a full ring of `capacity` records.
        """
        self._path = path
        self._sampler = _make_and_try(path, _import_class(path), capacity)

    def draw(self, rng: np.random.Generator, size: int, count: int) -> Ages:
        """Returns the ages of `count` of `size` records; LastingError if the sampler fails or returns no ages."""
        try:
            return _ages(self._sampler, rng, size, count)
        except _SamplerError as e:
            raise LastingError(f"replay.sampler = {self._path!r}: {e}") from e


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


def _ages(sampler: AgeSampler, rng: np.random.Generator, size: int, count: int) -> Ages:
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
