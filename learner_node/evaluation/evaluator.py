"""The evaluator of a learner: a thread that starts the evaluator process, sends it weights and receives the figures.

    learner's loop --start()--> the thread --pipe--> process (actor_node/evaluation/evaluator_process.py)
    learner's loop <--poll()--- the thread <--pipe--

Learning never waits for the process and never ends with it. An evaluation that takes too long, and a process that dies,
cost that evaluation: the thread kills the process and every process that its environment started, and starts another
one for the next evaluation.

| the thread waits for         | what ends the wait                                                       |
|------------------------------|--------------------------------------------------------------------------|
| the process to be ready      | its message, its end, `close`, or SIGKILL after 60 s                     |
| the figures of an evaluation | the message, the end of the process, `close`, or SIGKILL after the limit |
| the next evaluation          | `start` or `close`                                                       |
"""

from __future__ import annotations

import queue
import threading
import time
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from common.errors import ShoalError
from common.process.children.child_process import ChildProcess
from common.run.evaluations import READY, EvaluationReply, EvaluationRequest, ScheduledEvaluation
from common.run.run import Run

MODULE = "actor_node.evaluation.evaluator_process"
START_TIMEOUT_S = 60.0
"""Longest time from the start of the process until it is ready [s]."""
POLL_PERIOD_S = 0.1
CLOSE_TIMEOUT_S = 5.0


class EvaluationOutcome(NamedTuple):
    """The end of one evaluation."""

    result: ScheduledEvaluation | None
    """The figures; None if the evaluation failed."""
    problem: str
    """Why it failed; empty if it succeeded."""
    seconds: float
    """How long it took, without the start of the process [s]."""


class Evaluator:
    """Evaluates weights in another process, one evaluation at a time.

    Example:
        evaluator = Evaluator(run)
        evaluator.start(request, weights, limit_s=10.0)
        outcome = evaluator.poll()  # None while the evaluation runs
        evaluator.close()
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._tasks: queue.SimpleQueue[tuple[EvaluationRequest, bytes, float] | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[EvaluationOutcome] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self.busy = False
        """Whether an evaluation was started and `poll` has not returned its outcome yet."""

    def start(self, request: EvaluationRequest, flat: npt.NDArray[np.float32], limit_s: float) -> None:
        """Starts the evaluation of flat weights and returns at once; limit_s: time after which it is ended [s]."""
        self.busy = True
        self._tasks.put((request, np.ascontiguousarray(flat, "<f4").tobytes(), limit_s))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run_tasks, name="evaluator", daemon=True)
            self._thread.start()

    def poll(self, timeout_s: float = 0.0) -> EvaluationOutcome | None:
        """Returns the outcome of the evaluation once it has ended; None before. timeout_s: longest wait for it [s]."""
        try:
            outcome = self._outcomes.get(timeout=timeout_s) if timeout_s else self._outcomes.get_nowait()
        except queue.Empty:
            return None
        self.busy = False
        return outcome

    def close(self) -> None:
        """Kills the process and ends the thread."""
        self._closed.set()
        self._tasks.put(None)
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_S)

    def _run_tasks(self) -> None:
        process: ChildProcess | None = None
        try:
            while (task := self._tasks.get()) is not None:
                started_at = time.monotonic()
                try:
                    process = process or self._start_process()
                    started_at = time.monotonic()
                    outcome = self._evaluate(process, *task)
                except Exception as e:  # noqa: BLE001  (without an outcome, the learner would wait forever)
                    problem = str(e) if isinstance(e, ShoalError) else f"{type(e).__name__}: {e}"
                    outcome = EvaluationOutcome(None, problem, time.monotonic() - started_at)
                if outcome.result is None and process is not None:
                    # Its state is unknown.
                    process.kill()
                    process = None
                self._outcomes.put(outcome)
        finally:
            if process is not None:
                process.kill()

    def _start_process(self) -> ChildProcess:
        """Returns a process that is ready; raises ShoalError if it does not start."""
        process = ChildProcess(MODULE, {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"})
        try:
            process.pipe.send_bytes(msgspec.json.encode(self._run))
            is_ready = self._receive(process, START_TIMEOUT_S) == READY
        except OSError:
            is_ready = False
        if not is_ready:
            raise ShoalError(f"its process ended before it was ready (exit code {process.kill()})")
        return process

    def _evaluate(
        self, process: ChildProcess, request: EvaluationRequest, flat: bytes, limit_s: float
    ) -> EvaluationOutcome:
        started_at = time.monotonic()
        process.pipe.send_bytes(msgspec.json.encode(request))
        process.pipe.send_bytes(flat)
        message = self._receive(process, limit_s)
        seconds = time.monotonic() - started_at
        if message is None:
            ended = process.process.poll()
            why = f"it took longer than {limit_s:.1f} s" if ended is None else f"its process ended with code {ended}"
            return EvaluationOutcome(None, why, seconds)
        reply = msgspec.json.decode(message, type=EvaluationReply)
        return EvaluationOutcome(reply.result, reply.error, seconds)

    def _receive(self, process: ChildProcess, timeout_s: float) -> bytes | None:
        """Returns the next message; None after the time, at the end of the process, and once this object is closed."""
        give_up_at = time.monotonic() + timeout_s
        while not self._closed.is_set() and process.may_send and time.monotonic() < give_up_at:
            if (message := process.receive(POLL_PERIOD_S)) is not None:
                return message
        return None
