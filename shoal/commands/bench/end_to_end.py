"""A complete run: environment steps per second at the paper's ratio of one update of 1,024 per 100 steps.

Runs `shoal train --preset paper`: embedded Redis, replay server, learner and two workers as real processes. A rate is
the median over equal parts of the run, starting at the first update.
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
from shoal.commands.bench.measurements import REPEATS, BenchProgress, BenchRow, rate, row
from shoal.commands.bench.processes import Processes
from shoal.commands.bench.single_process.worlds import stepping

GOAL = 3.7
"""Ratio to stepping mpe2 alone: eight times the 0.46 of the fastest measured peer (docs/benchmarks.md)."""
STEPS_AN_UPDATE = 100.0
END_TIMEOUT_S = 120.0


class RunSpeed(NamedTuple):
    """Rates of a run: medians over its parts."""

    env_steps_s: float
    updates_s: float


def rows(config: BenchConfig) -> Iterator[BenchRow | BenchProgress]:
    """Yields end-to-end/simple_spread and end-to-end/simple_spread/updates."""
    reference = make_world(reference_world("simple_spread"), 1, seed=0, continuous_actions=True)
    step = stepping(reference)
    before = [rate(step) for _ in range(REPEATS)]
    yield BenchProgress(f"end to end: shoal train simple_spread --preset paper for {config.time:g} s")
    with Processes() as processes:
        speed = train_and_measure(processes, config.time, "--preset", "paper")
    # The baseline is measured before and after the run, because the speed of a machine varies over time.
    mpe2 = statistics.median([*before, *(rate(step) for _ in range(REPEATS))])
    reference.close()
    name = "end-to-end/simple_spread"
    yield row(name, "env steps/s", speed.env_steps_s, ("mpe2 stepping alone", mpe2), GOAL)
    required_rate = speed.env_steps_s / STEPS_AN_UPDATE
    yield row(f"{name}/updates", "updates/s", speed.updates_s, ("one per 100 env steps", required_rate))


def train_and_measure(processes: Processes, seconds: float, *options: object) -> RunSpeed:
    """Trains simple_spread for the given time and returns the rates; raises ShoalError if the run fails."""
    directory = processes.directory / "run"
    run = processes.command("shoal", *train_options(directory, seconds), "--episodes", 0, *options)
    run.wait_for_end(max_run_s(seconds))
    return run_speed(directory / "metrics.jsonl")


def train_options(directory: Path, seconds: float, scenario: str = "simple_spread") -> tuple[object, ...]:
    """Returns the arguments of a plain run: `shoal train` with its defaults, without a film."""
    return ("train", scenario, "--run", directory, "--time", f"{seconds:g}", "--no-film")


def max_run_s(seconds: float) -> float:
    """Returns the longest time that a run with the given training time may take [s]."""
    return seconds * 4 + END_TIMEOUT_S


def run_speed(metrics: Path) -> RunSpeed:
    """Returns the rates of a run; raises ShoalError if the run was too short."""
    lines = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    learning = [line for line in lines if line["updates"] > 0]
    if len(learning) < REPEATS + 1:
        raise ShoalError(f"Only {len(learning)} lines of {metrics.name} contain updates. Pass a longer --time.")
    cuts = [learning[round(i * (len(learning) - 1) / REPEATS)] for i in range(REPEATS + 1)]
    parts = list(pairwise(cuts))
    return RunSpeed(*(statistics.median(_rate(a, b, name) for a, b in parts) for name in ("env_steps", "updates")))


def _rate(a: dict[str, float], b: dict[str, float], name: str) -> float:
    return (b[name] - a[name]) / (b["time"] - a["time"])
