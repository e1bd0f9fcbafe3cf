"""The time of an update by the kind of critic and the number of agents.

    python -m tests.bench.set_critics [UPDATES]

Shapes and defaults are those of simple_spread with N agents. The times are medians of the processor time of alternating
updates on one thread [ms], half of which include the policies. The ratios are those of N = 12 to N = 6.
"""

from __future__ import annotations

import sys
import time
from statistics import mean, median

import torch

from common.run.run import Run, make_run_spec
from common.spec import Box, joint_spec
from learner_node.engine import make_engine
from learner_node.inspection.update_speed import random_batch

KINDS = "mlp", "set", "attention"
COUNTS = 6, 12
WARM_UP = 4


def run_of(critic: str, count: int) -> Run:
    """Returns a run of simple_spread's shapes with `count` agents, by the engine `autograd`."""
    agents = joint_spec([(f"agent_{i}", "agent", 6 * count, (Box((0.0,) * 5, (1.0,) * 5),)) for i in range(count)])
    settings = {"scenario": "simple_spread", "network": {"critic": critic}, "algorithm": {"engine": "autograd"}}
    return Run("bench", make_run_spec(settings), agents)


def measure(updates: int) -> dict[tuple[str, int], float]:
    """Returns the time of an update by kind and number of agents [ms]."""
    runs = {(kind, count): run_of(kind, count) for kind in KINDS for count in COUNTS}
    engines = {key: make_engine(run, torch.zeros(())) for key, run in runs.items()}
    batches = {key: random_batch(run.joint, run.spec.replay.batch) for key, run in runs.items()}
    times: dict[tuple[str, int, bool], list[float]] = {}
    for i in range(WARM_UP + updates):
        for (kind, count), engine in engines.items():
            started = time.process_time()
            engine.update(batches[kind, count], 1e-3, 1e-3, update_policies=i % 2 == 1)
            times.setdefault((kind, count, i % 2 == 1), []).append(1e3 * (time.process_time() - started))
    return {
        (kind, count): mean(median(times[kind, count, moves][WARM_UP // 2 :]) for moves in (False, True))
        for kind, count in engines
    }


def main() -> None:
    """Measures and prints."""
    torch.set_num_threads(1)
    found = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 48)
    few, many = COUNTS
    for kind in KINDS:
        one, other = found[kind, few], found[kind, many]
        print(f"{kind}: N = {few} {one:.1f} ms, N = {many} {other:.1f} ms, ratio {other / one:.2f}", flush=True)


if __name__ == "__main__":
    main()
