"""The process of one worker: its signals, its end with the supervisor's, and the report of its failure.

Its parent is the supervisor of the actor node (`supervisor.py`); the process ends when the supervisor does. `worker.py`
is the loop that runs in it.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import NoReturn

from actor_node.monitoring.failure_pipe import FailureReporter
from actor_node.monitoring.shared_metrics import NodeMemory
from actor_node.monitoring.worker_exits import WorkerFailure, failure_of
from actor_node.worker import Worker, WorkerConfig, WorkerStop
from common.errors import ShoalError
from common.process.children.parent import die_with_parent
from common.process.exit import DONE, FAILED
from common.process.monitoring.logs import start_logging

ORPHAN_PERIOD_S = 1.0
"""Time between two checks whether the supervisor is alive [s]."""
ORPHAN_TIMEOUT_S = 5.0
"""A worker without a supervisor that takes longer to end is killed, with what its environment started [s]."""


def run_worker(config: WorkerConfig, shared: NodeMemory, pipe: Connection) -> None:
    """Runs a worker process; reports a failure through `pipe` before the process ends.

    The environment may start threads and processes; what they leave behind ends with the worker. The process leads its
    own session, so that a terminal's Ctrl-C does not reach the environment's simulators. Prints of the environment go
    to the log.
    """
    os.setsid()
    die_with_parent(config.supervisor)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    start_logging(f"actor/{config.index}")
    stop = WorkerStop(config.supervisor)
    stop.on_signals()
    threading.Thread(
        target=_end_with_supervisor, args=(config.supervisor,), name="supervisor-watch", daemon=True
    ).start()
    reporter = FailureReporter(pipe)
    code, worker = DONE, None
    try:
        worker = Worker(config, shared, stop, reporter)
        worker.run()
        # stop_at[0] is the time at which the supervisor asked the node to end; 0 before.
        if stop.requested and not shared.stop_at[0]:
            reporter.send(WorkerFailure("other", "ended by a signal that its supervisor did not send"))
    except BaseException as e:  # noqa: BLE001  (the process ends here; its supervisor shows the failure)
        reporter.send(failure_of(e))
        code = e.exit_code if isinstance(e, ShoalError) else FAILED
    if worker is not None:
        worker.close()
    _exit(config, code)


def _end_with_supervisor(supervisor: int) -> None:
    """Ends the worker and its process group once its supervisor is gone, even during a call of the user's code."""
    while os.getppid() == supervisor:
        time.sleep(ORPHAN_PERIOD_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_TIMEOUT_S)
    os.killpg(0, signal.SIGKILL)


def _exit(config: WorkerConfig, code: int) -> NoReturn:
    """Ends the process without waiting for threads and processes that the environment left behind."""
    for child in multiprocessing.active_children():
        child.kill()
    if os.getppid() != config.supervisor:
        # No supervisor is left to end what the environment started.
        os.killpg(0, signal.SIGKILL)
    # os._exit runs no exit handlers, and a normal exit first waits for all threads.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
