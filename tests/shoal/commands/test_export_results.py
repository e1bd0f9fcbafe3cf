"""`shoal export-results`: evaluations of runs as marl-eval's JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from common.process import command
from common.run.directory import RunDirectory
from shoal.cli import shoal
from shoal.commands.export_results.results import world_names
from tests.shoal.commands.report_runs import evaluate_run, make_run


def make_evaluated_run(
    path: Path, returns: list[float], *, final: float = -21.0, steps: int = 1_000, **settings: Any
) -> RunDirectory:
    """Creates a run of three agents with scheduled evaluations of the given returns, `steps` steps apart."""
    directory = make_run(path, lines=2, **settings)
    lines = [
        {
            "time": 1_800_000_000.0 + k,
            "env_steps": steps * k,
            "updates": 10 * k,
            "trained_s": 2.0 * k,
            "episodes": 100,
            "seed": 500_000,
            "return_ci95": [mean - 1, mean + 1],
            "return_mean": mean,
            "return_per_agent": {f"agent_{i}": mean / 3 for i in range(3)},
            "metrics": {"collisions": 0.5 * k},
        }
        for k, mean in enumerate(returns)
    ]
    (directory.path / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    evaluate_run(directory, final, metrics={"collisions": {"mean": 0.25, "ci95": [0.0, 0.5]}, "distance": None})
    return directory


def export(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[str, str]:
    """Runs the command and returns what it printed to the standard output and the standard error."""
    capsys.readouterr()
    assert command.run(shoal, "shoal", ["export-results", *map(str, arguments)]) == code
    return capsys.readouterr()


def test_marl_eval_gets_every_evaluation_by_environment_task_algorithm_seed_and_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        make_evaluated_run(tmp_path / f"seed-{seed}", [-75.0, -30.0 - seed], seed=seed)
    output, notes = export(capsys, tmp_path)
    assert json.loads(output) == {
        "mpe": {
            "simple_spread": {
                "MADDPG": {
                    f"seed_{seed}": {
                        "step_1": {"step_count": 0, "return": [-75.0], "collisions": [0.0]},
                        "step_2": {"step_count": 1_000, "return": [-30.0 - seed], "collisions": [0.5]},
                        "absolute_metrics": {"return": [-21.0], "collisions": [0.25]},
                    }
                    for seed in (1, 2)
                }
            }
        }
    }
    assert notes == ""


def test_the_return_can_be_the_mean_over_agents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_evaluated_run(tmp_path / "run", [-75.0])
    output, _ = export(capsys, tmp_path, "--over-agents", "mean", "--environment", "PettingZoo", "--task", "spread")
    ((run,),) = (algorithm.values() for algorithm in json.loads(output)["pettingzoo"]["spread"].values())
    assert (run["step_1"]["return"], run["absolute_metrics"]["return"]) == ([-25.0], [-7.0])


def test_csv_has_a_line_for_each_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_evaluated_run(tmp_path / "run", [-75.0, -30.0], seed=5)
    target = tmp_path / "results.csv"
    output, _ = export(capsys, run.path, "-o", target)
    assert output == f"{target}: 1 run\n"
    rows = list(csv.DictReader(io.StringIO(target.read_text())))
    figures = [(row["kind"], row["env_steps"], row["updates"], row["metric"], float(row["value"])) for row in rows]
    assert figures == [
        ("scheduled", "0", "0", "return", -75.0),
        ("scheduled", "0", "0", "collisions", 0.0),
        ("scheduled", "1000", "10", "return", -30.0),
        ("scheduled", "1000", "10", "collisions", 0.5),
        ("final", "", "11700", "return", -21.0),
        ("final", "", "11700", "collisions", 0.25),
    ]
    assert {(row["algorithm"], row["seed"], row["run"]) for row in rows} == {("MADDPG", "5", str(run.path))}


def test_runs_of_unequal_length_are_cut_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """marl-eval computes with arrays and cannot read runs of different numbers of evaluations."""
    make_evaluated_run(tmp_path / "a", [-75.0, -50.0, -40.0], seed=1)
    make_evaluated_run(tmp_path / "b", [-75.0, -45.0], seed=2, steps=2_000)
    output, notes = export(capsys, tmp_path)
    runs = json.loads(output)["mpe"]["simple_spread"]["MADDPG"]
    assert [list(run) for run in runs.values()] == [["step_1", "step_2", "absolute_metrics"]] * 2
    assert f"{tmp_path / 'b'} has 2 evaluations" in notes
    assert "Evaluation 2 was made after 1,000 to 2,000 environment steps" in notes


def test_algorithms_with_different_seeds_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_evaluated_run(tmp_path / "a", [-75.0], seed=1)
    make_evaluated_run(tmp_path / "b", [-75.0], seed=2, algorithm={"name": "matd3"})
    output, notes = export(capsys, tmp_path)
    assert {name: list(runs) for name, runs in json.loads(output)["mpe"]["simple_spread"].items()} == {
        "MADDPG": ["seed_1"],
        "MATD3": ["seed_2"],
    }
    assert "simple_spread MADDPG: seed 1; simple_spread MATD3: seed 2" in notes


def test_lines_after_the_checkpoint_of_a_killed_learner_and_cut_lines_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_evaluated_run(tmp_path / "run", [-75.0, -50.0, -40.0])
    file = run.path / "evaluations.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[1].replace("-50.0", "-48.0"), lines[2][:30]]))
    output, _ = export(capsys, run.path)
    (of_run,) = json.loads(output)["mpe"]["simple_spread"]["MADDPG"].values()
    assert [of_run[step]["return"] for step in list(of_run)[:-1]] == [[-75.0], [-48.0]]


@pytest.mark.parametrize(
    ("missing", "advice"), [("evaluations.jsonl", "evaluation.times"), ("evaluation.json", "shoal evaluate")]
)
def test_a_run_without_evaluations_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str, advice: str
) -> None:
    run = make_evaluated_run(tmp_path / "run", [-75.0])
    (run.path / missing).unlink()
    _, error = export(capsys, run.path, code=2)
    assert str(run.path) in error
    assert advice in error


def test_two_runs_of_one_seed_and_settings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        make_evaluated_run(tmp_path / name, [-75.0], seed=4)
    _, error = export(capsys, tmp_path, code=2)
    assert "same settings and seed 4" in error


@pytest.mark.parametrize(
    ("scenario", "names"),
    [
        ("simple_tag", ("mpe", "simple_tag")),
        ("mamujoco:HalfCheetah-2x3", ("mamujoco", "halfcheetah-2x3")),
        ("pettingzoo:sisl/multiwalker-v9", ("pettingzoo", "sisl/multiwalker-v9")),
    ],
)
def test_a_world_has_an_environment_and_a_task(scenario: str, names: tuple[str, str]) -> None:
    assert world_names(scenario) == names
