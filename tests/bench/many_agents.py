"""The start, the update and the memory of the learner by the number of agents, under both engines.

    python -m tests.bench.many_agents                  the table of docs/benchmarks.md, each row in a new process
    python -m tests.bench.many_agents autograd 40      one row

Builds the networks of N agents with the shapes of simple_spread (6 N observations, 5 action numbers each) and the
defaults of a run, and updates them by matd3. Times are CPU seconds of one thread, so that they hold on a machine that
has other work. Memory is the peak of the process [MiB], torch included.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from common.process.monitoring.resources import retain_freed_memory
from common.run.run import Run, make_run_spec
from common.spec import Box, joint_spec
from learner_node.engine import Engine, make_engine
from learner_node.engine_choice import engine_of
from learner_node.inspection.update_speed import random_batch

COUNTS = 3, 6, 12, 24, 40, 48
UPDATES = 5


def run_of(engine: str, count: int) -> Run:
    agents = joint_spec([(f"agent_{i}", "agent", 6 * count, (Box((0.0,) * 5, (1.0,) * 5),)) for i in range(count)])
    algorithm = {"name": "matd3", "engine": engine}
    return Run("many", make_run_spec({"scenario": "simple_spread", "algorithm": algorithm}), agents)


def measure(engine: str, count: int) -> None:
    """Prints one row."""
    torch.set_num_threads(1)
    retain_freed_memory()
    run = run_of(engine, count)
    batch = random_batch(run.joint, run.spec.replay.batch)
    made: list[Engine] = []
    build_s = _cpu_seconds(lambda: made.append(make_engine(run, torch.zeros(()))))
    update_s = [
        _cpu_seconds(lambda: made[0].update(batch, 1e-3, 1e-3, update_policies=update_policies))  # noqa: B023
        for _ in range(UPDATES)
        for update_policies in (False, True)
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    chosen = " (auto)" if engine_of(run_of("auto", count)).name == engine else ""
    print(
        f"| {count} | {engine}{chosen} | {build_s + update_s[0]:.2f} | {statistics.mean(update_s[2:]) * 1e3:.0f} "
        f"| {peak:,.0f} |",
        flush=True,
    )


def _cpu_seconds(work: Callable[[], object]) -> float:
    started_at = time.process_time()
    work()
    return time.process_time() - started_at


def main() -> None:
    if len(sys.argv) > 2:
        measure(sys.argv[1], int(sys.argv[2]))
        return
    print(
        "| agents | engine | CPU s to the first update | CPU ms an update | peak memory [MiB] |\n|---|---|---|---|---|"
    )
    for count in COUNTS:
        for engine in ("stacked", "autograd"):
            subprocess.run([sys.executable, "-m", "tests.bench.many_agents", engine, str(count)], check=True)


if __name__ == "__main__":
    main()
