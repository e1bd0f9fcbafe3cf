"""Tests of the path from a run's log to the lines of a chart: reading, averaging, drawing."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import stats

from shoal.commands.report.axis_ticks import linear_ticks, log_ticks, tick_labels
from shoal.commands.report.chart import SMALL, AxisScale, Chart, Curve, draw
from shoal.commands.report.figures import AXES, LEARNING, MAIN, RETURN, SYSTEM, curve_of, figure_lines, wait_fractions
from shoal.commands.report.run_record import (
    RunRecord,
    differing_settings,
    flat_settings,
    grouped,
    named_settings,
    read_record,
)
from shoal.commands.report.traces import Trace, band, thinned
from shoal.number_format import MINUS, NOTHING, brief, duration, fixed, significant
from shoal.run_history import MAX_LINES, read_history
from shoal.statistics import mean_interval, t_quantile

from .report_runs import line, make_run, write_lines

FIGURES = {figure.key: figure for figure in (*MAIN, *LEARNING, *SYSTEM)}


def only_curve(key: str, record: RunRecord) -> Curve:
    figure = FIGURES[key]
    (line,) = figure_lines(figure, grouped([record]))
    return curve_of(line, log=figure.scale(record).log)


# ---- the log ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end", ['{"time": 1800000900.0, "upda', "\x00\x00\n", "null\n", "[1]\n", '{"updates": "many"}\n', "\n\n"]
)
def test_the_remains_of_a_crash_at_the_end_are_left_out(tmp_path: Path, end: str) -> None:
    directory = make_run(tmp_path / "run")
    write_lines(directory, [line(i, 3) for i in range(5)], end)
    history = read_history(directory.metrics_file)
    assert len(history) == 5
    assert history.last("updates") == 1_200


def test_lines_after_the_checkpoint_of_a_restarted_learner_are_left_out(tmp_path: Path) -> None:
    """The learner continued from the checkpoint at 600 updates; later lines do not belong to its policies."""
    directory = make_run(tmp_path / "run")
    again = [line(i, 3, env_steps=90_000 + i) for i in range(2, 6)]
    write_lines(directory, [line(i, 3) for i in range(9)] + again)
    history = read_history(directory.metrics_file)
    assert history.column("updates").tolist() == [0, 300, 600, 600, 900, 1_200, 1_500]
    assert history.column("env_steps").tolist()[-4:] == [90_002, 90_003, 90_004, 90_005]
    assert history.left_out == 6


def test_a_run_without_a_log_has_an_empty_history(tmp_path: Path) -> None:
    history = read_history(tmp_path / "metrics.jsonl")
    assert len(history) == 0
    assert math.isnan(history.last("updates"))
    assert history.columns("critic_loss").shape == (0, 0)


def test_a_missing_metric_of_a_line_is_nan(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"updates": 1, "q_mean": [1, None, 3]}, {"updates": 2, "policy_lag": 4, "q_mean": []}, {"updates": 3}]
    path.write_text("\n".join(map(json.dumps, rows)))
    history = read_history(path)
    np.testing.assert_array_equal(history.column("policy_lag"), [np.nan, 4, np.nan])
    np.testing.assert_array_equal(history.columns("q_mean"), [[1, np.nan, 3], [np.nan] * 3, [np.nan] * 3])


def test_a_long_log_is_sampled_evenly_with_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(json.dumps({"updates": i}) for i in range(7_001)))
    updates = read_history(path).column("updates")
    assert (len(updates), updates[0], updates[-1]) == (MAX_LINES, 0, 7_000)
    assert set(np.diff(updates)) <= {3, 4}


# ---- figures ------------------------------------------------------------------------------------------------------


def test_a_zero_that_means_unknown_is_not_shown(tmp_path: Path) -> None:
    record = read_record(make_run(tmp_path / "run").path)
    assert np.isnan(only_curve("ratio", record).line.y[0])
    assert only_curve("lag", record).line.y[0] == 0.01


def test_waiting_is_a_fraction_of_the_time_of_the_last_lines(tmp_path: Path) -> None:
    record = read_record(make_run(tmp_path / "run").path)
    # There is a line every 2 s, with 1.9 s of training; two actors wait 3 s of their 4 s.
    np.testing.assert_allclose(only_curve("learner-waits", record).line.y, 5.0, rtol=1e-5)
    np.testing.assert_allclose(only_curve("actor-waits", record).line.y, 75.0, rtol=1e-5)


def test_the_time_between_a_stop_and_a_resume_is_not_waiting(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    resumed = [line(i, 3, time=1_800_086_400.0 + 2 * i, actors_waited_s=3.0 * (i - 10)) for i in range(10, 20)]
    write_lines(directory, [line(i, 3) for i in range(10)] + resumed)
    record = read_record(directory.path)
    np.testing.assert_allclose(only_curve("learner-waits", record).line.y, 5.0, rtol=1e-5)
    np.testing.assert_allclose(only_curve("actor-waits", record).line.y, 75.0, rtol=1e-5)


def test_contests_have_a_line_for_each_side_with_the_sum_of_its_agents(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", "simple_tag")
    write_lines(directory, [line(i, 4, return_means=[1.0, 2.0, 3.0, -7.0]) for i in range(1, 9)])
    groups = grouped([read_record(directory.path)])
    found = {line.label: set(line.traces[0].y) for line in figure_lines(RETURN, groups)}
    assert found == {"adversary": {6.0}, "agent": {-7.0}}
    assert [line.label for line in figure_lines(FIGURES["q"], groups)] == ["adversary", "agent"]


def test_agents_have_a_line_each_under_the_worlds_names(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", "simple_tag")
    write_lines(directory, [line(i, 4, return_means=[1.0, 2.0, 3.0, -7.0]) for i in range(1, 9)])
    groups = grouped([read_record(directory.path)])
    found = {one.label: set(one.traces[0].y) for one in figure_lines(RETURN, groups, by_agent=True)}
    assert found == {"adversary_0": {1.0}, "adversary_1": {2.0}, "adversary_2": {3.0}, "agent_0": {-7.0}}
    assert [one.label for one in figure_lines(FIGURES["lag"], groups, by_agent=True)] == [""], "it is the run's"


def test_every_figure_is_drawn_over_steps_time_and_updates(tmp_path: Path) -> None:
    groups = grouped([read_record(make_run(tmp_path / "run").path)])
    steps, minutes, updates = (figure_lines(FIGURES["lag"], groups, axis)[0].traces[0].x for axis in AXES)
    np.testing.assert_allclose(steps, 5_000 + 5_000 * np.arange(40))
    np.testing.assert_allclose(minutes, 1.9 / 60 * np.arange(40))
    np.testing.assert_allclose(updates, 300 * np.arange(40))


def test_a_side_that_learns_jointly_has_its_losses(tmp_path: Path) -> None:
    """With `joint` there are fewer losses than agents: one for each player."""
    directory = make_run(tmp_path / "run", "simple_tag", algorithm={"name": "adversary=joint,agent=maddpg"})
    write_lines(directory, [line(i, 4, critic_loss=[0.5, 0.25]) for i in range(1, 9)])
    found = figure_lines(FIGURES["critic-loss"], grouped([read_record(directory.path)]))
    assert {one.label: set(one.traces[0].y) for one in found} == {"adversary": {0.5}, "agent": {0.25}}


def test_reasons_for_waiting_are_counted_without_their_details(tmp_path: Path) -> None:
    record = read_record(make_run(tmp_path / "run").path)
    assert wait_fractions([record]) == [("actors waiting for the learner", 0.5)]


# ---- seeds --------------------------------------------------------------------------------------------------------


def test_runs_that_differ_only_by_seed_and_budget_are_one_group(tmp_path: Path) -> None:
    made = [
        make_run(tmp_path / "a", seed=1),
        make_run(tmp_path / "b", seed=2, budget={"steps": 10}),
        make_run(tmp_path / "c", seed=3, replay={"batch": 512}),
    ]
    groups = grouped([read_record(directory.path) for directory in made])
    assert [(group.label, len(group.records)) for group in groups] == [("batch 256", 2), ("batch 512", 1)]


def labels_of(tmp_path: Path, *settings: dict[str, object]) -> list[str]:
    made = [make_run(tmp_path / str(i), **each) for i, each in enumerate(settings)]
    return [group.label for group in grouped([read_record(directory.path) for directory in made])]


def test_groups_have_names_as_a_person_would_write_them(tmp_path: Path) -> None:
    assert labels_of(tmp_path / "one", {}) == ["maddpg"]
    assert labels_of(
        tmp_path / "two",
        {"algorithm": {"name": "matd3"}, "network": {"policy_hidden": (64, 64)}},
        {"network": {"recurrent": "gru"}},
    ) == ["matd3, policy_hidden 64-64, recurrent none", "maddpg, policy_hidden 128-128, recurrent gru"]
    assert labels_of(
        tmp_path / "tables",
        {"network": {"share_policies": False}},
        {"network": {"share": (("agent_0", "agent_1"), ("agent_2",))}},
        {"algorithm": {"side_learning_rates": {"agent": 0.5}}},
    ) == [
        "share_policies false, share none, side_learning_rates none",
        "share_policies true, share agent_0+agent_1-agent_2, side_learning_rates none",
        "share_policies true, share none, side_learning_rates agent=0.5",
    ]


def test_of_many_differences_a_name_has_those_that_tell_the_groups_apart(tmp_path: Path) -> None:
    slow = {"policy_learning_rate": 1e-3, "critic_learning_rate": 1e-3, "discount": 0.95}
    settings = [
        {"algorithm": {"name": "maddpg"}, "network": {"policy_hidden": (64, 64)}},
        {"algorithm": {"name": "matd3", **slow}},
        {"algorithm": {"name": "matd3", **slow}, "replay": {"batch": 512}},
    ]
    assert labels_of(tmp_path, *settings) == ["maddpg, batch 256", "matd3, batch 256", "matd3, batch 512"]
    groups = grouped([read_record(path) for path in sorted(tmp_path.iterdir())])
    flat = [flat_settings(group.records[0].run.spec) for group in groups]
    assert [name for name in differing_settings(flat) if name not in named_settings(flat)] == [
        "network.policy_hidden",
        "algorithm.discount",
        "algorithm.policy_learning_rate",
        "algorithm.critic_learning_rate",
    ]


def test_names_of_groups_are_different_though_long_values_are_cut(tmp_path: Path) -> None:
    long = "a_package_with_a_long_name.algorithms:"
    made = labels_of(tmp_path, {"algorithm": {"name": f"{long}One"}}, {"algorithm": {"name": f"{long}Two"}})
    assert made == ["a_package_with_a_long_name.al... (1)", "a_package_with_a_long_name.al... (2)"]


def test_the_band_is_the_mean_and_its_interval_at_every_point() -> None:
    x = np.linspace(0, 10, 11)
    traces = [Trace(x, slope * x + 1) for slope in (1.0, 2.0, 4.0)]
    found = band(traces)
    assert found is not None
    at_end = np.array([11.0, 21.0, 41.0])
    low, high = stats.t.interval(0.95, 2, at_end.mean(), stats.sem(at_end))
    assert found.y[-1] == pytest.approx(at_end.mean())
    assert (found.low[-1], found.high[-1]) == (pytest.approx(low, rel=1e-3), pytest.approx(high, rel=1e-3))
    assert mean_interval(at_end.tolist()) == pytest.approx((at_end.mean(), low, high), rel=1e-3)


def test_the_band_ends_where_the_shortest_run_does() -> None:
    long, short = (Trace(np.arange(n, dtype=float), np.ones(n)) for n in (50, 20))
    found = band([long, short])
    assert found is not None
    assert (found.x[0], found.x[-1]) == (0, 19)
    apart = Trace(long.x + 100, long.y)
    assert band([long, apart]) is None


def test_quantiles_are_students() -> None:
    for runs in range(2, 32):
        assert t_quantile(runs) == pytest.approx(stats.t.ppf(0.975, runs - 1), abs=6e-4)
    for runs in (32, 33, 40, 100, 500):
        assert t_quantile(runs) == pytest.approx(stats.t.ppf(0.975, runs - 1), rel=2e-3)


def test_an_interval_needs_two_runs() -> None:
    assert mean_interval([3.0])[0] == 3.0
    assert all(math.isnan(edge) for edge in mean_interval([3.0])[1:])
    assert math.isnan(mean_interval([])[0])


def test_thinning_keeps_means_and_the_last_value() -> None:
    trace = Trace(np.arange(10_000.0), np.sin(np.arange(10_000.0)) + 3)
    thin = thinned(trace, most=100)
    assert len(thin.x) == 100
    assert (thin.x[-1], thin.y[-1]) == (trace.x[-1], trace.y[-1])
    assert thin.y[:-1].mean() == pytest.approx(trace.y.mean(), abs=0.01)
    assert len(thinned(Trace(trace.x, np.full(10_000, np.nan)), most=100).y) == 100


# ---- charts -------------------------------------------------------------------------------------------------------


def drawn(y: list[float], scale: AxisScale | None = None, x: list[float] | None = None) -> Chart:
    trace = Trace(np.array(x if x is not None else range(len(y)), float), np.array(y, float))
    chart = draw([Curve("", trace)], "steps", scale or AxisScale(), SMALL)
    assert chart is not None
    return chart


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](\S+) ([\d.]+)", path)]


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30), st.booleans())
@example(y=[1.0, 2e-311], log=True)
def test_everything_is_drawn_within_the_axes(y: list[float], log: bool) -> None:
    assume(not log or max(y) > 1e-6)
    chart = drawn(y, AxisScale(log=log))
    box = chart.box
    for px, py in points(chart.curves[0].path):
        assert box.left <= px <= box.end
        assert box.top <= py <= box.floor
    for px, _ in chart.x_ticks:
        assert box.left <= px <= box.end
    for py, _ in chart.y_ticks:
        assert box.top - 0.1 <= py <= box.floor + 0.1


def test_a_band_beyond_the_axes_is_cut_off_there() -> None:
    line = Trace(np.arange(5.0), np.arange(5.0))
    chart = draw([Curve("", line, line.y - 1e6, line.y + 1e6)], "steps", AxisScale(), SMALL)
    assert chart is not None
    heights = {y for _, y in points(chart.curves[0].band)}
    assert heights == {chart.box.top, chart.box.floor}


def test_larger_values_are_higher_and_later_values_further_right() -> None:
    path = points(drawn([1.0, 2.0, 4.0]).curves[0].path)
    assert [x for x, _ in path] == sorted(x for x, _ in path)
    assert [y for _, y in path] == sorted((y for _, y in path), reverse=True)


def test_a_missing_value_interrupts_the_line() -> None:
    path = drawn([1.0, 2.0, math.nan, 3.0, 4.0]).curves[0].path
    assert re.sub(r"[^ML]", "", path) == "MLML"


def test_a_logarithmic_axis_leaves_out_zeros() -> None:
    chart = drawn([0.0, 0.1, 1.0, 10.0], AxisScale(log=True))
    path = points(chart.curves[0].path)
    assert len(path) == 3
    assert path[0][1] - path[1][1] == pytest.approx(path[1][1] - path[2][1], abs=0.2)


def test_a_reference_value_is_on_the_axis() -> None:
    chart = drawn([1.0, 2.0], AxisScale(reference=(16.0, "target")))
    assert chart.reference is not None
    assert chart.box.top <= chart.reference < points(chart.curves[0].path)[-1][1]


def test_without_values_there_is_no_chart() -> None:
    nothing = Trace(np.array([1.0]), np.array([np.nan]))
    assert draw([Curve("", nothing)], "steps", AxisScale(), SMALL) is None
    assert draw([], "steps", AxisScale(), SMALL) is None


# ---- numbers ------------------------------------------------------------------------------------------------------


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_round_few_and_distinct(low: float, span: float) -> None:
    assume(span > 1e-6 * abs(low))
    ticks = linear_ticks(low, low + span)
    assert 1 <= len(ticks) <= 6
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks)
    assert len(set(ticks)) == len(ticks)


@given(st.floats(1e-9, 1e6), st.floats(1.5, 1e9))
def test_ticks_of_logarithms_are_few_and_on_the_axis(low: float, factor: float) -> None:
    ticks = log_ticks(low, low * factor)
    assert 1 <= len(ticks) <= 6
    assert all(low * 0.99 <= tick <= low * factor * 1.01 for tick in ticks)


def test_numbers_are_formatted_for_people() -> None:
    def plain(*texts: str) -> list[str]:
        return [text.replace(MINUS, "-").replace(NOTHING, "none") for text in texts]

    texts = plain(*(significant(v) for v in (-12_345.6, 1.2345, 0.05, 0, 2e-5, math.nan)))
    assert texts == ["-12,346", "1.23", "0.0500", "0", "2.00e-05", "none"]
    assert [brief(v) for v in (0.05, 16.0, 100.0, 1_000.0)] == ["0.05", "16", "100", "1,000"]
    assert plain(fixed(-1.005), fixed(math.inf)) == ["-1.00", "none"]
    assert [duration(s) for s in (59.4, 60, 3_725)] == ["59 s", "1 min 00 s", "1 h 02 min"]
    assert tick_labels([0, 50_000, 100_000]) == ["0", "50k", "100k"]
    assert plain(*tick_labels([-0.5, 0.0, 0.5])) == ["-0.5", "0.0", "0.5"]
    assert tick_labels([0, 500_000, 1_000_000]) == ["0.0", "0.5M", "1.0M"]
