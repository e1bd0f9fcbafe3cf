import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.actor_node.peers import Peers
from tests.actor_node.processes import Processes


@contextlib.contextmanager
def made_processes() -> Iterator[Processes]:
    """Yields processes that meet at unix sockets, whose paths must be short; all are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="shoal-") as directory:
        made = Processes(Path(directory))
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Starts real processes for one test."""
    with made_processes() as made:
        yield made


@pytest.fixture(scope="module")
def shared_processes() -> Iterator[Processes]:
    """Starts real processes for tests that leave them running."""
    with made_processes() as made:
        yield made


@pytest.fixture
def peers() -> Iterator[Peers]:
    """Connects a session to the peers of one test."""
    with zmq.Context() as context:
        made = Peers(context)
        yield made
        made.session.close()
        context.destroy(linger=0)
