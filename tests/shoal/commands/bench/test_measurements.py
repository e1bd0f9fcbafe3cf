"""Tests of the arithmetic of the benchmark table; the figures are not tested."""

from __future__ import annotations

import itertools

from shoal.commands.bench import BenchRow
from shoal.commands.bench.measurements import as_text, compare, rate, row


def test_a_row_has_the_ratio_to_its_baseline() -> None:
    assert row("a", "steps/s", 30.0, ("b", 10.0), 2.0) == BenchRow("a", 30.0, "steps/s", "b", 10.0, 3.0, 2.0)
    assert row("a", "steps/s", 30.0, ("none", 0.0)).ratio == 0.0


def test_a_goal_bounds_the_ratio_from_the_side_that_is_better() -> None:
    assert "(goal >= 2x)" in as_text(row("a", "steps/s", 30.0, ("b", 10.0), 2.0))
    assert "(goal <= 0.25x)" in as_text(row("a", "MiB", 1.0, ("b", 10.0), 0.25))
    assert "goal" not in as_text(row("a", "MiB", 1.0, ("b", 10.0)))


def test_measurements_alternate_and_their_medians_are_returned() -> None:
    order: list[str] = []
    ours, theirs = itertools.cycle([1.0, 9.0, 2.0]), itertools.cycle([4.0, 5.0, 6.0])

    def measure(name: str, values: itertools.cycle[float]) -> float:
        order.append(name)
        return next(values)

    assert compare(lambda: measure("ours", ours), lambda: measure("theirs", theirs), repeats=3) == (2.0, 5.0)
    assert order == ["ours", "theirs"] * 3


def test_a_rate_counts_the_items_of_each_call() -> None:
    calls = itertools.count()

    def call() -> int:
        next(calls)
        return 10

    found = rate(call, seconds=0.02)
    assert found > 0
    assert next(calls) >= 1
