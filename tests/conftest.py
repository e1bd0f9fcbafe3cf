"""What tests of every folder share."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
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

# A shell without job control ignores SIGINT in what it starts with `&`, and the processes of a test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_T = TypeVar("_T")
PATIENCE_S = 120.0
"""The time that a test waits for what must happen, also on a loaded machine. A wait ends as soon as it has happened.

A shorter time stands in a test only where the time itself is what is tested."""
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.05
"""Between two looks. A look that takes long, such as a question to a busy process, is repeated less often."""


def wait_until(predicate: Callable[[], _T], what: str | Callable[[], str] = "", *, within_s: float = PATIENCE_S) -> _T:
    """Returns the first true value of the predicate; fails with `what` if there is none within the time [s]."""
    deadline = (looked_at := time.monotonic()) + within_s
    while not (value := predicate()):
        now = time.monotonic()
        if now > deadline:
            pytest.fail(f"not within {within_s:g} s: {(what() if callable(what) else what) or predicate}")
        time.sleep(min(max(now - looked_at, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S))
        looked_at = time.monotonic()
    return value


def free_port(count: int = 1) -> int:
    """Returns a free port of 127.0.0.1, followed by `count` - 1 more that are free.

    It is below the ephemeral ports of Linux: no outgoing connection takes it before the test's process binds it.
    """
    while True:
        port = random.SystemRandom().randrange(30_000, 32_768 - count)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for number in range(port, port + count):
                stack.enter_context(socket.create_server(("127.0.0.1", number)))
            return port


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., object]:
    """Waits until a predicate holds: eventually(lambda: port.open, "the port opens")."""
    return wait_until
