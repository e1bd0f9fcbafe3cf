"""The pipe through which a worker reports its failure to the supervisor before the worker ends: both of its ends."""

from __future__ import annotations

from contextlib import suppress
from multiprocessing.connection import Connection

import msgspec

from actor_node.monitoring.worker_exits import WorkerFailure


class FailureReporter:
    """Sends the worker's failure to its supervisor, once, and before anything that may hang."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._sent = pipe, False

    def send(self, failure: WorkerFailure) -> None:
        """Sends the first failure; later ones are ignored."""
        if self._sent:
            return
        self._sent = True
        with suppress(OSError):  # the supervisor is gone
            self._pipe.send_bytes(msgspec.json.encode(failure))


def receive_failure(pipe: Connection) -> WorkerFailure | None:
    """Returns the failure that a worker reported before it ended, and closes the pipe; None if it reported none."""
    try:
        return msgspec.json.decode(pipe.recv_bytes(), type=WorkerFailure) if pipe.poll() else None
    except (EOFError, OSError, msgspec.MsgspecError):  # killed while it wrote the report
        return None
    finally:
        pipe.close()
