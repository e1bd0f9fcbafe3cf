"""A run to be disturbed: real actors, replay server and Redis, all audited, and a learner of the test's own."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import psutil

from common.errors import PeerError
from common.run.run import Run, make_run_spec
from common.worlds import world_spec
from shoal.commands.audit.delivery_check import AuditResult, check_deliveries
from shoal.commands.audit.ledger import read_ledger
from tests.actor_node.conftest import made_processes
from tests.actor_node.processes import MinimalLearner, Node, Processes, Started
from tests.conftest import free_port, wait_until
from tests.replay_server.conftest import Valkey

ROWS = 64
"""Transitions of a chunk."""


class Site:
    """One run's processes, with what the audit says of them."""

    def __init__(self, processes: Processes, valkey: Valkey | None, level: str = "redis", **replay: object) -> None:
        self.processes, self.valkey, self.level = processes, valkey, level
        self.audit = processes.directory / "audit"
        settings = {"capacity": 50_000, "batch": 64, "min_size": 64, "limit": "off", **replay}
        spec = make_run_spec({"scenario": "simple_spread", "world": {"N": 2}, "replay": settings})
        self.run = Run("a1b2c3d4", spec, world_spec("simple_spread", N=2))
        self.replay: Started
        self.learner: MinimalLearner

    def serve(self, **options: object) -> float:
        """Starts the replay server; returns the seconds until it serves."""
        url = self.valkey.url if self.valkey else "none"
        began = time.monotonic()
        self.replay = self.processes.start_replay(
            redis=url, durability=self.level, audit=self.audit, parent=os.getpid(), **options
        )
        return time.monotonic() - began

    def begin(self, **options: object) -> None:
        """Starts the replay server and opens the run, with weights."""
        self.serve(**options)
        self.learner = self.processes.start_learner(self.run)
        self.learner.publish()

    def node(self, workers: int = 2, *more: object) -> Node:
        sizes = ("--copies", 16, "--chunk-rows", ROWS, "--audit", self.audit, "--parent", os.getpid())
        return self.processes.start_node("--n", workers, "--name", "node", *sizes, *more)

    def inserts(self) -> int | None:
        """Returns the transitions ever stored; None while nobody answers."""
        with contextlib.suppress(PeerError):
            return self.processes.status().inserts
        return None

    def more(self, rows: int = 1) -> float:
        """Waits until so many transitions more have come; returns the seconds."""
        began = time.monotonic()
        before = wait_until(lambda: (self.inserts() or 0) + 1, "an answer")
        wait_until(lambda: (self.inserts() or 0) + 1 >= before + rows, f"{rows} transitions more")
        return time.monotonic() - began

    def kill(self, started: Started) -> None:
        started.process.send_signal(signal.SIGKILL)
        started.process.wait()

    def audit_result(self) -> AuditResult:
        """Returns the result of the audit, including the chunks in Redis if there is one."""
        return check_deliveries(read_ledger(self.audit, self.valkey.url if self.valkey else "", "default"))


@contextlib.contextmanager
def made_site(
    make_valkey: Callable[..., Valkey] | None,
    level: str = "redis",
    *,
    tcp: bool = False,
    file: bool = True,
    **replay: object,
) -> Iterator[Site]:
    """Yields a site over a Redis that keeps a file flushed each second, or no file; all is gone afterwards."""
    keeping = ("--appendonly", "yes", "--appendfsync", "everysec") if file else ()
    valkey = make_valkey(*keeping) if make_valkey else None
    with made_processes() as processes:
        if tcp:
            processes.replay_url = f"tcp://127.0.0.1:{free_port()}"
        yield Site(processes, valkey, level, **replay)


def told(record: Callable[[str, object], None], **figures: object) -> None:
    """Makes figures part of the test's report, and prints them."""
    for name, value in figures.items():
        record(name, value)
    print(", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in figures.items()))


def kept(verdict: AuditResult) -> dict[str, int]:
    """Returns what a verdict says of deliveries, after checking that no promise is broken."""
    assert verdict.broken == []
    assert verdict.torn_files == 0
    names = ("sent", "acknowledged", "acknowledged_lost", "duplicates", "out_of_order", "unacknowledged_lost")
    return {name: getattr(verdict, name) for name in names}


def _short(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def memory(pid: int) -> int:
    """Returns a process' private memory in bytes."""
    private: int = psutil.Process(pid).memory_full_info().uss
    return private
