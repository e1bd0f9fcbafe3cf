"""What the replay server's malloc thresholds save: the table of docs/benchmarks.md.

    .venv/bin/python tests/bench/serving.py 5

Starts a replay server with and without `retain_freed_memory`, in turn, and draws batches of 1,024 from it. System time
and page faults of a batch are those of the server's process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

from common.process.monitoring.resources import private_bytes
from shoal.commands.bench.data_plane.load_generator import fill, make_run, record
from shoal.commands.bench.data_plane.sampling_load import SamplingClient
from shoal.commands.bench.processes import Processes, ReplayServer

BATCHES, WARM_UP = 2_000, 200
WITHOUT = "import replay_server.cli as c; c.retain_freed_memory = lambda: False; c.main()"
WITH = "import replay_server.cli as c; c.main()"


class ProcessUse(NamedTuple):
    """What a process has used so far."""

    faults: int
    system_s: float


def use_of(pid: int) -> ProcessUse:
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return ProcessUse(int(fields[7]), int(fields[12]) / os.sysconf("SC_CLK_TCK"))


def measure(code: str) -> str:
    """Starts a server by Python code and returns its figures."""
    run = make_run()
    recorded = record(run)
    options = ("--bind", "tcp://127.0.0.1:0", "--redis", "none", "--metrics-port", 0, "--parent", os.getpid())
    with Processes() as processes:
        server = ReplayServer(processes.program(sys.executable, "-c", code, *options))
        server.open(run)
        fill(server.endpoint, run, recorded, run.spec.replay.capacity // 2)
        client, pid = SamplingClient(server.endpoint, run), server.started.process.pid
        for _ in range(WARM_UP):
            client.draw()
        before = use_of(pid)
        for _ in range(BATCHES):
            client.draw()
        after = use_of(pid)
        client.close()
        mib = private_bytes(pid) / 2**20
        server.end()
    faults, system_us = after.faults - before.faults, (after.system_s - before.system_s) * 1e6
    return f"{faults / BATCHES:6.2f} faults/batch {system_us / BATCHES:5.0f} us system/batch {mib:5.0f} MiB"


def main() -> None:
    for i in range(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
        for name, code in (("without", WITHOUT), ("with", WITH)):
            print(f"{i} {name:8} {measure(code)}", flush=True)


if __name__ == "__main__":
    main()
