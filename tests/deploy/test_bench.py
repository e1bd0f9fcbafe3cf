"""The arithmetic of the benchmark table; the figures themselves are no tests."""

from __future__ import annotations

import itertools

from deploy.bench import rows
from deploy.bench.rows import compare, rate, row


def test_a_row_is_a_figure_over_its_baseline() -> None:
    assert row("a", "steps/s", 30.0, ("b", 10.0), 2.0) == rows.Row("a", 30.0, "steps/s", "b", 10.0, 3.0, 2.0)
    assert row("a", "steps/s", 30.0, ("none", 0.0)).ratio == 0.0


def test_medians_are_of_measurements_taken_in_turn() -> None:
    order: list[str] = []
    ours, theirs = itertools.cycle([1.0, 9.0, 2.0]), itertools.cycle([4.0, 5.0, 6.0])

    def measure(name: str, values: itertools.cycle[float]) -> float:
        order.append(name)
        return next(values)

    assert compare(lambda: measure("ours", ours), lambda: measure("theirs", theirs), repeats=3) == (2.0, 5.0)
    assert order == ["ours", "theirs"] * 3


def test_a_rate_counts_what_each_turn_did() -> None:
    turns = itertools.count()

    def turn() -> int:
        next(turns)
        return 10

    found = rate(turn, seconds=0.02)
    assert found > 0
    assert next(turns) >= 1
