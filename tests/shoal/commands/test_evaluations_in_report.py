"""The evaluations of a run in training, as the report draws and reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from common.run.directory import RunDirectory
from common.run.evaluations import ScheduledEvaluation
from shoal.commands.report.figures import AXES, MAIN, SCORE, figure_lines
from shoal.commands.report.page import make_page
from shoal.commands.report.reading import next_steps, run_trend
from shoal.commands.report.run_record import grouped, read_record

from .report_runs import evaluate_run, make_run

SCALE = {
    "side": "",
    "opponents": "",
    "return_mean": -42.5,
    "return_ci95": [-43.5, -41.5],
    "references": [
        {"name": "random", "episodes": 20, "return_mean": -80.0, "return_ci95": [-82.0, -78.0]},
        {"name": "untrained", "episodes": 20, "return_mean": -90.0, "return_ci95": [-92.0, -88.0]},
    ],
    "top": "",
    "fraction": None,
}


def write_evaluations(directory: RunDirectory, returns: list[float]) -> None:
    """Writes one evaluation every 1,000 updates, whose returns are split evenly over agents."""
    agents = [agent.name for agent in directory.run.joint.agents]
    lines = [
        ScheduledEvaluation(
            time=float(i),
            env_steps=5_000 * i,
            updates=1_000 * i,
            trained_s=6.0 * i,
            episodes=100,
            seed=2_000_000,
            return_mean=value,
            return_ci95=(value - 1, value + 1),
            return_per_agent=dict.fromkeys(agents, value / len(agents)),
        )
        for i, value in enumerate(returns)
    ]
    directory.evaluations_file.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in lines))


def test_the_first_curve_is_of_the_evaluations_over_every_axis(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    write_evaluations(directory, [-80.0, -60.0, -40.0])
    groups = grouped([read_record(directory.path)])
    assert MAIN[0] is SCORE
    expected = {"env_steps": [0, 5_000, 10_000], "trained_s": [0, 0.1, 0.2], "updates": [0, 1_000, 2_000]}
    for axis in AXES:
        (line,) = figure_lines(SCORE, groups, axis)
        assert line.traces[0].x == pytest.approx(expected[axis.metric])
        assert line.traces[0].y == pytest.approx([-80.0, -60.0, -40.0])
    agents = figure_lines(SCORE, groups, by_agent=True)
    assert [line.label for line in agents] == ["agent_0", "agent_1", "agent_2"]
    assert agents[1].traces[0].y == pytest.approx([-80 / 3, -20.0, -40 / 3])


def test_sides_have_separate_curves(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", "simple_tag")
    write_evaluations(directory, [-8.0, -4.0])
    lines = {line.label: line.traces[0].y for line in figure_lines(SCORE, grouped([read_record(directory.path)]))}
    assert lines.keys() == {"adversary", "agent"}
    assert lines["adversary"] == pytest.approx([-6.0, -3.0])
    assert lines["agent"] == pytest.approx([-2.0, -1.0])


def test_without_evaluations_there_is_no_such_curve(tmp_path: Path) -> None:
    assert figure_lines(SCORE, grouped([read_record(make_run(tmp_path / "run").path)])) == []


def test_runs_that_differ_by_their_evaluations_only_are_one_group(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / str(n), evaluation={"times": n}).path for n in (0, 5)]
    assert len(grouped([read_record(path) for path in paths])) == 1


def test_enough_evaluations_decide_whether_a_run_still_rises(tmp_path: Path) -> None:
    """The returns while acting rise in the log of the tests; here the evaluations have been level for long."""
    directory = make_run(tmp_path / "run")
    assert run_trend(read_record(directory.path)).direction == "rising"
    write_evaluations(directory, [-80.0, -50.0, *np.linspace(-40.0, -40.1, 19).tolist()])
    assert run_trend(read_record(directory.path)).direction == "level"


@pytest.mark.parametrize("missed", [None, "random", "untrained"])
def test_a_team_that_is_not_better_than_an_untrained_one_needs_a_diagnosis(tmp_path: Path, missed: str | None) -> None:
    directory = make_run(tmp_path / "run")
    names = {"random": "random actions", "untrained": "an untrained 64-64 team"}
    scale: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(SCALE))
    for one in scale["references"]:
        if one["name"] == missed:
            one["return_ci95"] = [-44.0, -43.0]
    evaluate_run(directory, scale=[scale])
    texts = [step.text for step in next_steps(read_record(directory.path))]
    said = [text for text in texts if text.startswith("The team is not clearly better than ")]
    assert said == ([f"The team is not clearly better than {names[missed]}. Look for the cause."] if missed else [])
    if missed:
        assert next_steps(read_record(directory.path))[0].command == f"shoal diagnose {directory.path}"


def test_the_page_says_where_the_team_stands(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    write_evaluations(directory, [-80.0, -60.0])
    evaluate_run(directory, scale=[SCALE])
    page = make_page([read_record(directory.path)])
    assert "clearly better than random actions and an untrained 64-64 team" in page.casefold()
    assert "Return in evaluations" in page
    evaluate_run(directory, scale=[{"side": 3}])  # of another version
    assert "clearly better" not in make_page([read_record(directory.path)]).casefold()
