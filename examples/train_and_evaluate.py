"""Trains a team, evaluates it, and continues the run: python examples/train_and_evaluate.py [DIRECTORY].

Takes about two minutes on two cores. Equals `shoal train simple_spread --time 1m`, then `shoal evaluate`.
"""

import sys

import shoal

directory = sys.argv[1] if len(sys.argv) > 1 else "runs/example"

run = shoal.train("simple_spread", run=directory, time="1m", actors=2, episodes=0, settings={"replay.batch": 512})
first = run.evaluate(episodes=100)
print(f"return after a minute: {first.return_mean:.1f}, 95 % interval {first.return_ci95}")  # noqa: T201

run.resume(time="90s")  # 90 s in total: half a minute more
again = run.evaluate(episodes=100)
print(f"return after half a minute more: {again.return_mean:.1f}")  # noqa: T201
for name, figure in again.metrics.items():
    print(f"  {name}: {figure.mean:.2f}")  # noqa: T201
print(f"report: {run.report()}")  # noqa: T201
