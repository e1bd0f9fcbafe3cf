"""The supervisor of a run on this machine: starts its processes, restarts them, and ends them in order.

`outcome` decides from values alone what follows the end of a process; `SupervisedProcess` carries it out.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from common.process.children.failure_note import Failure, FailureNote
from common.process.children.restart_policy import (
    STEADY_S,
    Cause,
    Finished,
    GiveUp,
    ProcessExit,
    Restart,
    RestartPolicy,
)
from common.process.exit import BAD_USAGE, DONE, NO_PEER

_log = logging.getLogger(__name__)
_LAST_LINES = 12
SLOW_END_S = 2.0
"""The user is shown the name of a process that takes longer to end."""


def outcome(
    code: int, ran_s: float, policy: RestartPolicy, *, finishes: bool, message: str, permanent: bool = False
) -> Finished | Restart | GiveUp:
    """Decides what follows the end of a process with this exit code (negative: the signal that killed it).

    finishes: whether the work of the process is done, so that exit code 0 is its proper end. message: its last message.
    permanent: whether the process reported an error that a restart cannot fix.
    """
    if code == DONE and finishes:
        return Finished()
    cause: Cause = "other"
    if code == BAD_USAGE:
        cause = "usage"
    elif permanent:
        cause = "permanent"
    elif code == NO_PEER and not policy.restarts:
        # Only at the first start: later, the peers may be restarting too.
        cause = "peer"
    return policy.decide(ProcessExit(cause, message, progressed=ran_s >= STEADY_S))


class SupervisedProcess:
    """One supervised process, over all its restarts."""

    def __init__(
        self,
        name: str,
        start: Callable[[], subprocess.Popen[bytes]],
        log: Path,
        is_done: Callable[[], bool] = lambda: False,
        note: Path | None = None,
    ) -> None:
        """Takes the function that starts the process, and its log.

        is_done: returns whether the work of the process is done, for a process that ends by itself. note: the file to
        which the process writes its failures (`common.process.children.failure_note`).
        """
        self.name, self.log = name, log
        self._note = FailureNote(note)
        self._failure: Failure | None = None
        """The last failure that the current process reported."""
        self.handled_failures: list[str] = []
        """Failures to show that end nothing: the process restarted its worker, or is restarted. Emptied when shown."""
        self._is_done = is_done
        self._start = start
        self.process: subprocess.Popen[bytes] | None = None
        self.finished = False
        self.policy = RestartPolicy(name)
        self.problem = ""
        """Why the process does not run; empty while it runs."""
        self._started_at = self._start_at = 0.0

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Starts the process now."""
        self.process, self._started_at, self.problem = self._start(), time.monotonic(), ""
        self._failure = None

    def poll(self, now: float) -> None:
        """Handles failures and the end of the process, and restarts it when due.

        Raises the error of a process that a restart cannot fix.
        """
        running = self.running
        self._read_failures()
        if self.finished or running:
            return
        if self.process is not None:
            self._handle_exit(self.process.returncode, now)
        elif now >= self._start_at:
            _log.info("restarting process=%s", self.name)
            self.start()

    def _read_failures(self) -> None:
        for failure in self._note.read_new():
            if failure.handled:
                self.handled_failures.append(f"{self.name} {failure.message}")
            else:
                self._failure = failure

    def _handle_exit(self, code: int, now: float) -> None:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        ran_s = now - self._started_at
        permanent = self._failure is not None and self._failure.lasting and code > DONE
        message = self._last_message()
        match outcome(code, ran_s, self.policy, finishes=self._is_done(), message=message, permanent=permanent):
            case Finished():
                self.finished = True
            case Restart(delay_s, _):
                self.problem = f"{self.name} {how}; restarts in {delay_s:.1f} s (log: {self.log})"
                if self._failure is not None:
                    self.handled_failures.append(f"{self.name}: {message}")
                _log.warning("%s", self.problem)
                self.process, self._start_at = None, now + delay_s
            case GiveUp(error):
                if "\n" in str(error):
                    raise type(error)(f"{error}\n({self.name} {how}; log: {self.log})")
                raise type(error)(f"{self.name} {how} (log: {self.log}): {error}")

    def _last_message(self) -> str:
        if self._failure is not None:
            return self._failure.message
        lines = self.log.read_text(errors="replace").splitlines()[-_LAST_LINES:] if self.log.exists() else []
        plain = [line for line in lines if line.strip()]
        return plain[-1] if plain else "(the log is empty)"

    def end(self, timeout_s: float, on_wait: Callable[[str], object] = lambda _: None) -> None:
        """Ends the process: SIGTERM, then SIGKILL after the timeout.

        on_wait: called with a text after SLOW_END_S.
        """
        if self.process is None:
            return
        if self.running:
            self.process.terminate()
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            try:
                self.process.wait(min(SLOW_END_S, timeout_s))
            except subprocess.TimeoutExpired:
                on_wait(f"waiting for {self.name} to end (at most {timeout_s:.0f} s)")
                self.process.wait(max(timeout_s - SLOW_END_S, 0.0))
        except subprocess.TimeoutExpired:
            _log.warning("process did not end in time, killed process=%s timeout_s=%.0f", self.name, timeout_s)
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        """Kills the process, if it runs."""
        if self.process is not None and self.running:
            self.process.kill()
            self.process.wait()


class Supervisor:
    """Supervises processes: starts them in order and ends them in reverse order."""

    def __init__(self) -> None:
        self.processes: list[SupervisedProcess] = []

    def add(self, child: SupervisedProcess) -> SupervisedProcess:
        """Starts a process and supervises it from then on."""
        self.processes.append(child)
        child.start()
        return child

    def poll(self) -> None:
        """Polls every process once."""
        now = time.monotonic()
        for child in self.processes:
            child.poll(now)

    @property
    def problems(self) -> list[str]:
        """The reasons why processes do not run, one text for each process."""
        return [child.problem for child in self.processes if child.problem]

    def take_handled_failures(self) -> list[str]:
        """Returns the failures since the last call that were handled by a restart of a worker or of the process."""
        failures = [text for child in self.processes for text in child.handled_failures]
        for child in self.processes:
            child.handled_failures.clear()
        return failures

    def end(self, timeout_s: float = 20.0, on_wait: Callable[[str], object] = lambda _: None) -> None:
        """Ends all processes, the last started first, so that each can still send its last messages to its peers.

        on_wait: called with a text about a process that takes long to end.
        """
        try:
            for child in reversed(self.processes):
                child.end(timeout_s, on_wait)
        except BaseException:
            # After a second Ctrl-C the launcher ends at once, and no process may be left behind.
            for child in reversed(self.processes):
                child.kill()
            raise
