"""Compares settings over seeds from Python: python examples/sweep.py [DIRECTORY] [TIME].

`shoal sweep` does the same with parallel runs; a loop in Python can choose the next run from the results so far.
"""

import sys
from pathlib import Path

import numpy as np

import shoal

directory = Path(sys.argv[1] if len(sys.argv) > 1 else "sweeps/example")
time = sys.argv[2] if len(sys.argv) > 2 else "1m"

found = {}
for algorithm in ("maddpg", "iddpg"):
    for seed in (0, 1):
        run = shoal.train(
            "simple_spread",
            run=directory / f"{algorithm}-{seed}",
            resume=True,  # an interrupted sweep continues where it stopped
            algorithm=algorithm,
            seed=seed,
            time=time,
            episodes=200,
            film=False,
            progress=False,
        )
        assert run.evaluation is not None  # noqa: S101
        found.setdefault(algorithm, []).append(run.evaluation.return_mean)
        print(f"{algorithm} seed {seed}: {run.evaluation.return_mean:.1f}")  # noqa: T201

for algorithm, returns in found.items():
    print(f"{algorithm}: mean {np.mean(returns):.1f} over {len(returns)} seeds")  # noqa: T201
