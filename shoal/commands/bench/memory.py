"""Resident memory of actor workers against processes that import torch, and the start-up time of 32 workers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.data_plane.fake_learner import publish_weights
from shoal.commands.bench.data_plane.load_generator import make_run
from shoal.commands.bench.measurements import BenchProgress, BenchRow, row
from shoal.commands.bench.processes import Processes, wait_until_steps

GOAL = 0.25
WORKERS = 32
MAX_START_S = 10.0
_WORKER = """
import actor_node.worker
from common.worlds import make_world
world = make_world("simple_spread", 32, seed=0)
world.reset()
"""


def rows(_config: BenchConfig) -> Iterator[BenchRow | BenchProgress]:
    """Yields memory/worker, memory/workers/32 and start/workers/32.

    A single worker has loaded its modules and its world. The 32 workers collect for a replay server without a rate
    limit. Shared pages count once for each worker.
    """
    yield BenchProgress("memory: one worker, and a process that imports torch")
    ours, torch = _mib_after(_WORKER), _mib_after("import torch")
    yield row("memory/worker", "MiB", ours, ("a process that imports torch", torch), GOAL)
    yield BenchProgress(f"memory: a node of {WORKERS} workers")
    started_s, node_mib = _node()
    name = f"workers/{WORKERS}"
    yield row(f"memory/{name}", "MiB", node_mib, (f"{WORKERS} processes that import torch", WORKERS * torch), GOAL)
    yield row(f"start/{name}", "s", started_s, ("allowed time", MAX_START_S), 1.0)


def _node() -> tuple[float, float]:
    """Returns the seconds from starting a node until all workers step, and the memory of the workers in MiB."""
    run = make_run()
    with Processes() as processes:
        server = processes.replay()
        with publish_weights(run, server.endpoint) as weights:
            peers = ("--replay", server.endpoint, "--weights", weights, "--metrics-port", 0, "--parent", os.getpid())
            started_at = time.monotonic()
            node = processes.command("actor_node", "--n", WORKERS, *peers)
            wait_until_steps(server, WORKERS)
            started_s = time.monotonic() - started_at
            return started_s, _children_mib(node.process.pid)


def _children_mib(parent: int) -> float:
    """Returns the resident memory of a process's children in MiB, including a few MiB of multiprocessing's helper."""
    ps = subprocess.run(["ps", "-A", "-o", "ppid=,rss="], check=True, capture_output=True, text=True)  # noqa: S607  (where ps is differs)
    lines = (line.split() for line in ps.stdout.splitlines())
    return sum(int(resident_kib) for ppid, resident_kib in lines if int(ppid) == parent) / 1024


def resident_mib(pid: int) -> float:
    """Returns the resident memory of a process [MiB]; raises CalledProcessError if there is no such process."""
    ps = ["ps", "-o", "rss=", "-p", str(pid)]
    return int(subprocess.run(ps, check=True, capture_output=True, text=True).stdout) / 1024  # noqa: S603


def _mib_after(code: str) -> float:
    """Returns the resident memory of a process that has run the given code, in MiB."""
    command = [sys.executable, "-c", f"{code}\nprint('ready', flush=True)\ninput()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise RuntimeError(f"a process that runs {code!r} did not start")
        found = resident_mib(process.pid)
        process.communicate("\n")
    return found
