"""What tests of every folder share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import hypothesis
import pytest

# How long an example takes is the machine's business: on a loaded one a deadline fails tests that are right.
hypothesis.settings.register_profile(
    "shoal", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("shoal")

_T = TypeVar("_T")
_LOOK_EVERY_S = 0.01


def wait_until(predicate: Callable[[], _T], what: str = "", *, within_s: float = 20.0) -> _T:
    """Returns the first true value of the predicate; fails when none has come in time."""
    deadline = time.monotonic() + within_s
    while not (value := predicate()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within_s:g} s: {what or predicate}")
        time.sleep(_LOOK_EVERY_S)
    return value


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., object]:
    """Waits until a predicate holds: eventually(lambda: port.open, "the port opens", within_s=3)."""
    return wait_until
