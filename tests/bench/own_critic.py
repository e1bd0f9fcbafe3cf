"""The time of an update with a critic of the user's own, against both engines with built-in critics.

    python -m tests.bench.own_critic [UPDATES]

One line for each width and batch size, of simple_spread's three agents: medians of the processor time of alternating
updates [ms], and the ratios of the medians.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from statistics import median

import torch

from common.run.run import Run, make_run_spec
from learner_node.engine import make_engine
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records

KINDS = {
    "stacked": ("mlp", "stacked"),
    "autograd": ("mlp", "autograd"),
    "own": ("tests.learner_node.own_classes:Mlp", "autograd"),
}
WARM_UP = 5


def measure(width: int, rows: int, updates: int) -> dict[str, float]:
    """Returns the median time of an update of each kind [ms]."""
    fields = as_fields(random_records(TEAMS["spread"], rows, 0), torch.float32)
    batch = replace(as_batch(fields), complete=True)
    engines, times = {}, {kind: [0.0] * 0 for kind in KINDS}
    for kind, (critic, engine) in KINDS.items():
        network = {"critic": critic, "policy_hidden": (width, width), "critic_hidden": (width, width)}
        spec = make_run_spec({"scenario": "simple_spread"}, {"network": network, "algorithm": {"engine": engine}})
        engines[kind] = make_engine(Run("bench", spec, TEAMS["spread"]), torch.zeros(()))
    for i in range(WARM_UP + updates):
        for kind, made in engines.items():
            started = time.process_time()
            made.step(batch, update_policies=i % 2 == 1)
            times[kind].append(1e3 * (time.process_time() - started))
    return {kind: median(one[WARM_UP:]) for kind, one in times.items()}


def main() -> None:
    """Measures and prints."""
    torch.set_num_threads(1)
    updates = int(sys.argv[1]) if len(sys.argv) > 1 else 96
    for width, rows in ((128, 256), (128, 1024), (64, 256)):
        found = measure(width, rows, updates)
        texts = ", ".join(f"{kind} {ms:.2f} ms" for kind, ms in found.items())
        ratios = ", ".join(f"own / {kind} {found['own'] / found[kind]:.2f}" for kind in ("autograd", "stacked"))
        print(f"{width}-{width}, batch {rows}: {texts}; {ratios}", flush=True)


if __name__ == "__main__":
    main()
