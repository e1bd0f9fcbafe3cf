"""The time of an update by the kind of critic and the number of agents.

    python -m tests.bench.critics [UPDATES]

Shapes and defaults are those of simple_spread with N agents. The times are medians of the processor time of alternating
updates on one thread [ms], half of which include the policies. The ratios are those of N = 12 to N = 6 for each kind of
critic, then those of each kind to `mlp` for N = 3.
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

Settings = dict[str, dict[str, object]]
BY_COUNT: dict[str, Settings] = {kind: {"network": {"critic": kind}} for kind in ("mlp", "set", "attention")}
BY_KIND: dict[str, Settings] = {
    **BY_COUNT,
    "critic_layer_norm": {"network": {"critic_layer_norm": True}},
    "critic_layer_norm, policy_layer_norm": {"network": {"critic_layer_norm": True, "policy_layer_norm": True}},
    "critic_weight_norm": {"network": {"critic_weight_norm": True}},
    "hl_gauss": {"algorithm": {"critic_loss": "hl_gauss"}},
}
COUNTS = 6, 12
WARM_UP = 4


def run_of(settings: Settings, count: int) -> Run:
    """Returns a run of simple_spread's shapes with `count` agents, by the engine `autograd`."""
    agents = joint_spec([(f"agent_{i}", "agent", 6 * count, (Box((0.0,) * 5, (1.0,) * 5),)) for i in range(count)])
    base = {"scenario": "simple_spread", "algorithm": {"name": "matd3", "engine": "autograd"}}
    return Run("bench", make_run_spec(base, settings), agents)


def measure(kinds: dict[str, Settings], counts: tuple[int, ...], updates: int) -> dict[tuple[str, int], float]:
    """Returns the time of an update by kind and number of agents [ms]."""
    runs = {(kind, count): run_of(settings, count) for kind, settings in kinds.items() for count in counts}
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
    updates = int(sys.argv[1]) if len(sys.argv) > 1 else 48
    found = measure(BY_COUNT, COUNTS, updates)
    few, many = COUNTS
    for kind in BY_COUNT:
        one, other = found[kind, few], found[kind, many]
        print(f"{kind}: N = {few} {one:.1f} ms, N = {many} {other:.1f} ms, ratio {other / one:.2f}", flush=True)
    for (kind, count), ms in (found := measure(BY_KIND, (3,), updates)).items():
        print(f"{kind}: N = {count} {ms:.1f} ms, over mlp {ms / found['mlp', 3]:.2f}", flush=True)


if __name__ == "__main__":
    main()
