"""A whole run, everything on: environment steps a second at the paper's ratio of one update of 1,024 per 100 steps.

`shoal train --preset paper`: embedded Redis, replay server, learner and two workers as real processes. Rates are the
medians of equal parts of the run's time, from the first update on.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from actor_node.evaluation.task import reference_world
from common.errors import ShoalError
from common.worlds import make_world
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.processes import Processes
from shoal.commands.bench.rows import REPEATS, BenchProgress, BenchRow, rate, row
from shoal.commands.bench.worlds import stepping

GOAL = 3.7
"""Of mpe2 stepping alone. The fastest peer measured trained at 0.46 of that (docs/benchmarks.md); eight times it is
asked for."""
STEPS_AN_UPDATE = 100.0
END_S = 120.0


class RunSpeed(NamedTuple):
    """Rates of a run, medians of its parts."""

    env_steps_s: float
    updates_s: float


def rows(config: BenchConfig) -> Iterator[BenchRow | BenchProgress]:
    """Yields end-to-end/simple_spread and its updates."""
    reference = make_world(reference_world("simple_spread"), 1, seed=0, continuous_actions=True)
    step = stepping(reference)
    before = [rate(step) for _ in range(REPEATS)]
    yield BenchProgress(f"end to end: shoal train simple_spread --preset paper for {config.time:g} s")
    with Processes() as stage:
        course = trained(stage, config.time, "--preset", "paper")
    # In turn: the baseline before the run and after it.
    mpe2 = statistics.median([*before, *(rate(step) for _ in range(REPEATS))])
    reference.close()
    name = "end-to-end/simple_spread"
    yield row(name, "env steps/s", course.env_steps_s, ("mpe2 stepping alone", mpe2), GOAL)
    asked = course.env_steps_s / STEPS_AN_UPDATE
    yield row(f"{name}/updates", "updates/s", course.updates_s, ("one per 100 env steps", asked))


def trained(stage: Processes, seconds: float, *options: object) -> RunSpeed:
    """Trains simple_spread for so long and returns its rates; ShoalError when it fails."""
    directory = stage.directory / "run"
    run = stage.command("shoal", *train_options(directory, seconds), "--episodes", 0, *options)
    run.wait_for_end(longest_s(seconds))
    return run_speed(directory / "metrics.jsonl")


def train_options(directory: Path, seconds: float) -> tuple[object, ...]:
    """Returns what makes a plain run: `shoal train` with its defaults, but for the film."""
    return ("train", "simple_spread", "--run", directory, "--time", f"{seconds:g}", "--no-film")


def longest_s(seconds: float) -> float:
    """Returns how long a run may take that trains for so many seconds."""
    return seconds * 4 + END_S


def run_speed(metrics: Path) -> RunSpeed:
    """Returns a run's rates; ShoalError when it was too short to have any."""
    lines = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    learning = [line for line in lines if line["updates"] > 0]
    if len(learning) < REPEATS + 1:
        raise ShoalError(f"only {len(learning)} lines of {metrics.name} tell of learning; give a longer --time")
    cuts = [learning[round(i * (len(learning) - 1) / REPEATS)] for i in range(REPEATS + 1)]
    parts = list(pairwise(cuts))
    return RunSpeed(*(statistics.median(_rate(a, b, name) for a, b in parts) for name in ("env_steps", "updates")))


def _rate(a: dict[str, float], b: dict[str, float], name: str) -> float:
    return (b[name] - a[name]) / (b["time"] - a["time"])
