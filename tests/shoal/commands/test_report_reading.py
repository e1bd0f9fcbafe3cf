"""Tests of what a report says in words, and of returns on one scale."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.run.directory import RunDirectory
from shoal.commands.report.comparison import Estimate, on_one_scale
from shoal.commands.report.reading import Trend, comparison_text, next_steps, run_trend, trend_of, trend_text
from shoal.commands.report.run_record import read_record

from .report_runs import evaluate_run, line, make_run, write_lines

MINUS = "\N{MINUS SIGN}"
FINITE = st.floats(-1e6, 1e6)


# ---- does it still rise? --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returns", "direction"),
    [
        (np.linspace(-80.0, -40.0, 50), "rising"),
        (np.linspace(-40.0, -80.0, 50), "falling"),
        (-80.0 + 40.0 * (1 - np.exp(-np.arange(50) / 5)), "level"),
        (np.full(50, -40.0), "level"),
        (np.linspace(-80.0, -40.0, 14), "unknown"),
        (np.full(50, np.nan), "unknown"),
    ],
    ids=["line up", "line down", "saturates", "constant", "short", "nothing"],
)
def test_the_end_of_a_curve_has_a_direction(returns: np.ndarray, direction: str) -> None:
    assert trend_of(returns).direction == direction


def test_noise_alone_is_no_trend() -> None:
    generator = np.random.default_rng(0)
    found = [trend_of(generator.normal(-40.0, 5.0, 100)).direction for _ in range(200)]
    assert found.count("level") >= 190


def test_a_trend_names_both_means() -> None:
    trend = trend_of(np.repeat([-80.0, -70.0, -60.0, -50.0, -45.0], 10))
    assert trend == Trend("rising", -50.0, -45.0)
    text = trend_text(trend)
    assert text.startswith("Still rising")
    assert f"{MINUS}50.0" in text
    assert f"{MINUS}45.0" in text


# ---- what to do next ------------------------------------------------------------------------------------------------


def finished(path: Path, returns: list[float]) -> RunDirectory:
    directory = make_run(path, lines=0)
    write_lines(directory, [line(i, 3, return_mean=value, updates=300 * i) for i, value in enumerate(returns)])
    evaluate_run(directory, updates=300 * (len(returns) - 1))
    directory.mark_finished()
    return directory


def steps_of(directory: RunDirectory) -> list[tuple[str, str]]:
    return [(step.text, step.command) for step in next_steps(read_record(directory.path))]


def test_a_rising_run_goes_on_for_as_long_again(tmp_path: Path) -> None:
    directory = finished(tmp_path / "run", list(np.linspace(-80.0, -40.0, 41)))
    ((text, command),) = steps_of(directory)
    assert "still rises" in text
    assert command == f"shoal train --resume --run {directory.path} --time 152s", "40 lines of 1.9 s, twice"


def test_a_run_of_few_updates_is_too_young_to_judge(tmp_path: Path) -> None:
    """Under maddpg with the defaults a reward needs 1 / (1 - 0.9) / 0.01 = 1,000 updates to reach the values."""
    directory = make_run(tmp_path / "run", lines=0)
    write_lines(directory, [line(i, 3, return_mean=-80.0, updates=10 * i) for i in range(26)])
    evaluate_run(directory, updates=250)
    directory.mark_finished()
    assert run_trend(read_record(directory.path)).direction == "early"
    ((text, command),) = steps_of(directory)
    assert "250 updates are few. A reward needs about 1,000 updates" in text
    assert command == f"shoal train --resume --run {directory.path} --time 190s", "25 lines of 1.9 s, four times"


@pytest.mark.parametrize(
    ("steps", "suggested"), [(12_000, 30_000), (12_345, 31_000), (13_050, 33_000), (1_000_000, 2_500_000), (3, 8)]
)
def test_a_suggested_number_of_steps_is_a_round_one(tmp_path: Path, steps: int, suggested: int) -> None:
    """The run has made 400 of the 1,000 updates that a reward needs, and so lacks 1.5 times as many steps."""
    directory = make_run(tmp_path / "run", lines=0, budget={"steps": steps})
    write_lines(directory, [line(i, 3, return_mean=-80.0, updates=16 * i) for i in range(26)])
    evaluate_run(directory, updates=400)
    directory.mark_finished()
    (command,) = (command for _, command in steps_of(directory))
    assert command.endswith(f"--steps {suggested}")


def test_a_level_run_needs_seeds_or_other_settings(tmp_path: Path) -> None:
    ((text, command),) = steps_of(finished(tmp_path / "run", [-80.0, -50.0, *[-40.0] * 40]))
    assert "seeds" in text
    assert command.startswith("shoal sweep simple_spread")


def test_a_falling_run_has_its_best_team_stored(tmp_path: Path) -> None:
    ((text, _),) = steps_of(finished(tmp_path / "run", list(np.linspace(-40.0, -80.0, 40))))
    assert "best.safetensors" in text


def test_unfinished_business_comes_first(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    commands = [command for _, command in steps_of(directory)]
    assert commands[:2] == [f"shoal evaluate {directory.path}", f"shoal train --resume --run {directory.path}"]


def test_the_first_warning_of_the_diagnosis_is_a_next_step(tmp_path: Path) -> None:
    directory = finished(tmp_path / "run", [-80.0, -50.0, *[-40.0] * 40])
    warning = {"topic": "values", "about": "a", "seen": "Q is odd", "means": "errors", "try": ["use matd3", "wait"]}
    directory.diagnosis_file.write_text(json.dumps({"updates": 12_300, "episodes": 100, "warnings": [warning] * 3}))
    text, _ = steps_of(directory)[0]
    assert text == "Look at the diagnosis: Q is odd (and 2 more below). Try: use matd3."


def test_sides_are_judged_by_a_tournament(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", "simple_tag")
    evaluate_run(directory)
    directory.mark_finished()
    assert f"shoal tournament {directory.path}" in steps_of(directory)[-1][1]


@pytest.mark.parametrize("content", ["", "{", '{"updates": "many"}', '{"updates": 1, "episodes": 2, "warnings": [3]}'])
def test_an_unreadable_diagnosis_is_ignored(tmp_path: Path, content: str) -> None:
    directory = make_run(tmp_path / "run")
    directory.diagnosis_file.write_text(content)
    assert read_record(directory.path).diagnosis is None


# ---- groups -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("best", "upper", "said"),
    [
        (Estimate("a", -30.0, -31.0, -29.0, (-30.0, -30.0)), -38.0, "a is better than b: the intervals do not overlap"),
        (Estimate("a", -30.0, -39.0, -21.0, (-29.0, -31.0)), -38.0, "its interval overlaps that of b"),
        (Estimate("a", -30.0, -31.0, -29.0), -38.0, "at least two runs on each side"),
    ],
    ids=["apart", "overlapping", "one run, whose interval is over episodes"],
)
def test_the_best_group_is_named_with_what_the_runs_show(best: Estimate, upper: float, said: str) -> None:
    second = Estimate("b", -40.0, -42.0, upper, (-39.0, -41.0))
    text = comparison_text([second, Estimate("c", math.nan), best])
    assert text.startswith("a ")
    assert said in text


def test_the_best_group_is_compared_with_all_others() -> None:
    best, second = (
        Estimate(name, mean, mean - 1, mean + 1, (mean, mean)) for name, mean in (("a", -30.0), ("b", -40.0))
    )
    third = Estimate("c", -50.0, -51.0, -49.0, (-50.0, -50.0))
    assert "a is better than b and all others" in comparison_text([best, second, third])
    wide = Estimate("c", -41.0, -60.0, -22.0, (-50.0, -32.0))
    assert "overlaps that of c" in comparison_text([best, second, wide])
    assert comparison_text([best, second]) == "a is better than b: the intervals do not overlap."


def test_one_group_is_compared_with_nothing() -> None:
    assert comparison_text([Estimate("a", -3.0, -4.0, -2.0), Estimate("b", math.nan)]) == ""


# ---- on one scale ---------------------------------------------------------------------------------------------------


def test_positions_are_proportional_and_the_best_comes_first() -> None:
    low, middle, high = (Estimate(name, mean) for name, mean in (("low", 0.0), ("middle", 5.0), ("high", 10.0)))
    rows = on_one_scale([low, high, middle])
    assert [row.estimate.label for row in rows] == ["high", "middle", "low"]
    # The scale is 10 long and has 4 % of that at each end, so 10.8 in all.
    assert [row.mean for row in rows] == [pytest.approx(100 * x / 10.8, abs=0.01) for x in (10.4, 5.4, 0.4)]


def test_an_interval_of_two_runs_does_not_dwarf_the_means() -> None:
    wide = Estimate("wide", 1.0, -1_000.0, 1_000.0)
    rows = on_one_scale([wide, Estimate("other", 0.0)])
    assert rows[0].interval == (0.0, 100.0), "it leaves the scale at both ends"
    assert rows[0].mean is not None
    assert rows[1].mean is not None
    assert rows[0].mean - rows[1].mean > 25.0


def test_what_is_not_known_has_no_position() -> None:
    rows = on_one_scale([Estimate("none", math.nan), Estimate("one", 3.0)])
    assert [(row.estimate.label, row.mean) for row in rows] == [("one", 50.0), ("none", None)]


@given(st.lists(st.tuples(FINITE, st.floats(0.0, 1e6)), min_size=1, max_size=8))
def test_everything_lies_on_the_scale(values: list[tuple[float, float]]) -> None:
    rows = on_one_scale([Estimate(str(i), mean, mean - half, mean + half) for i, (mean, half) in enumerate(values)])
    for row in rows:
        assert row.mean is not None
        assert row.interval is not None
        start, length = row.interval
        assert 0.0 <= start <= row.mean + 0.01
        assert row.mean - 0.01 <= start + length <= 100.01
