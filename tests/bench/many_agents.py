"""The start and the memory of the learner with many agents that share networks, under one engine.

    python -m tests.bench.many_agents autograd 40

Builds the networks of N agents with the shapes of simple_spread (6 N observations, 5 action numbers each) and the
defaults of a run, updates them on one thread, and prints times [s] and the peak memory of the process [MiB].
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch

from common.process.resources import retain_freed_memory
from common.run.run import Run, make_run_spec
from common.spec import Box, joint_spec
from learner_node.engine import Engine, make_engine
from learner_node.inspection.update_speed import random_batch

UPDATES = 5


def main(name: str, count: int) -> None:
    """Prints one line."""
    torch.set_num_threads(1)
    retain_freed_memory()
    agents = joint_spec([(f"agent_{i}", "agent", 6 * count, (Box((0.0,) * 5, (1.0,) * 5),)) for i in range(count)])
    run = Run("many", make_run_spec({"scenario": "simple_spread", "algorithm": {"engine": name}}), agents)
    batch = random_batch(agents, run.spec.replay.batch)
    made: list[Engine] = []
    build_s = _seconds(lambda: made.append(make_engine(run, torch.zeros(()))))
    update_s = [
        _seconds(lambda: made[0].update(batch, 1e-3, 1e-3, update_policies=update_policies))  # noqa: B023
        for _ in range(UPDATES)
        for update_policies in (False, True)
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name} {count} agents: build {build_s:.2f} s, first update {update_s[0]:.2f} s, later "
        f"{statistics.mean(update_s[2:]):.3f} s, peak memory {peak:.0f} MiB"
    )


def _seconds(work: Callable[[], object]) -> float:
    started_at = time.perf_counter()
    work()
    return time.perf_counter() - started_at


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
