"""The processes of a run of `shoal train`: which role each has, and what it takes over time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from deploy.local.embedded_redis import find_server

WORKER, NODE, REPLAY, REDIS, LEARNER = "worker", "actor node", "replay server", "Redis", "learner"
EVALUATOR, LAUNCHER = "evaluator", "shoal train"
ROLES = (WORKER, NODE, REPLAY, REDIS, LEARNER, EVALUATOR, LAUNCHER)
_SAMPLE_EVERY_S = 2.0


class Sample(NamedTuple):
    """What a process takes at one moment."""

    age_s: float
    memory: float
    """Private memory [MiB]."""
    descriptors: int
    threads: int


class Process:
    """One process of the run, from when it was first seen."""

    def __init__(self, role: str, process: psutil.Process, now: float) -> None:
        self.role, self.process, self.born = role, process, now
        self.samples: list[Sample] = []

    def sample(self, now: float) -> None:
        """Records what the process takes; nothing if it has ended."""
        try:
            with self.process.oneshot():
                memory, threads = self.process.memory_full_info().uss, self.process.num_threads()
                if self.process.status() != psutil.STATUS_ZOMBIE and memory:
                    self.samples.append(Sample(now - self.born, memory / 2**20, self.process.num_fds(), threads))
        except psutil.Error:
            return


class Observer:
    """Finds the processes that `shoal train` started, and samples them every two seconds."""

    def __init__(self, launcher: int) -> None:
        self._launcher = psutil.Process(launcher)
        self._sampled_at = 0.0
        self._known = {launcher: Process(LAUNCHER, self._launcher, time.monotonic())}
        self.lives = list(self._known.values())
        """Every process ever seen."""

    def observe(self, now: float) -> list[Process]:
        """Returns the living processes of the run, without the launcher."""
        living = list(self._living(now))
        if now - self._sampled_at >= _SAMPLE_EVERY_S:
            self._sampled_at = now
            # The launcher while it has a run to watch: evaluation and report at the end are no part of the soak.
            for process in (self._known[self._launcher.pid], *living) if living else ():
                process.sample(now)
        return living

    def _living(self, now: float) -> Iterator[Process]:
        try:
            children = self._launcher.children(recursive=True)
        except psutil.NoSuchProcess:
            return
        for child in children:
            known = self._known.get(child.pid)
            if known is None or known.process != child:
                role = self._role(child)
                if not role:
                    continue
                known = self._known[child.pid] = Process(role, child, now)
                self.lives.append(known)
            yield known

    def _role(self, process: psutil.Process) -> str:
        try:
            line, parent = " ".join(process.cmdline()), process.ppid()
        except psutil.Error:
            return ""
        return role_of(line, of_launcher=parent == self._launcher.pid)


def role_of(command_line: str, *, of_launcher: bool) -> str:
    """Returns the role of a process by its command line; empty for a process that has none.

    of_launcher: whether the launcher started it. It starts processes for the evaluation at the end, which look like an
    actor node's workers.
    """
    if "spawn_main" in command_line:
        return "" if of_launcher else WORKER
    if "evaluator_process" in command_line:
        return EVALUATOR
    if Path(find_server()).name in command_line:
        return REDIS
    modules = {"replay_server": REPLAY, "learner_node": LEARNER, "actor_node": NODE}
    # Whole words: modules of these packages, such as rollouts of an environment, run as processes too.
    return next((role for module, role in modules.items() if module in command_line.split()), "")
