"""Tests of `shoal evaluate` with one run and with many: finding runs, summaries over seeds, CSV and LaTeX."""

import csv
import io
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from actor_node.evaluation.evaluate import Comparison, Estimate, Evaluation
from common.errors import ConfigError
from common.process import command
from common.run.run import make_run_spec
from shoal.cli import shoal
from shoal.commands.evaluate import csv_latex
from shoal.commands.evaluate.summary import EvaluatedRun, seed_statistics, summarise
from shoal.commands.evaluate.text import choice_lines
from shoal.run_paths import find_runs, run_directory
from tests.actor_node.teams import make_team


def evaluation(value: float, **metrics: float) -> Evaluation:
    return Evaluation(
        scenario="simple_spread",
        world="simple_spread",
        episodes=10,
        seed=5,
        updates=300,
        weights_hash="0a",
        return_mean=value,
        return_ci95=(value - 1, value + 1),
        return_std=1.0,
        return_per_agent={"agent_0": value},
        published_scales={},
        metrics={name: Estimate(mean, (mean - 0.5, mean + 0.5)) for name, mean in metrics.items()},
    )


def evaluated(values, settings=None):
    runs = [EvaluatedRun(f"s_w/seed-{i}", "matd3", i, evaluation(v, collisions=i)) for i, v in enumerate(values)]
    specs = [make_run_spec({"scenario": "simple_spread", "seed": i}, settings or {}) for i in range(len(values))]
    return runs, specs


def shoal_run(*arguments: object):
    return CliRunner().invoke(shoal, [str(argument) for argument in arguments], standalone_mode=False)


# ---- finding runs ---------------------------------------------------------------------------------------------------


def test_a_directory_of_runs_is_all_its_runs_and_no_milestones(tmp_path):
    for name in ("a/seed-1", "a/seed-2", "b/seed-1", "b/seed-1/milestones/0000000100"):
        make_team(tmp_path / name, "simple_push")
    found = find_runs([tmp_path, tmp_path / "a" / "seed-1"])
    assert [directory.path for directory in found] == [tmp_path / p for p in ("a/seed-1", "a/seed-2", "b/seed-1")]
    milestone = tmp_path / "b/seed-1/milestones/0000000100"
    assert [directory.path for directory in find_runs([milestone])] == [milestone]


def test_a_path_without_runs_and_a_file_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="does not contain a run"):
        find_runs([tmp_path])
    team = make_team(tmp_path / "a" / "seed-1", "simple_push")
    with pytest.raises(
        ConfigError, match=r"policy.safetensors is a file. Pass the directory of its run, as in .*seed-1"
    ):
        run_directory(team.policy_file)


@pytest.mark.slow
def test_runs_without_policies_are_skipped_with_a_line(tmp_path, capsys):
    ready, untrained = (make_team(tmp_path / name, "simple_push") for name in ("seed-1", "seed-2"))
    untrained.policy_file.unlink()
    options = ["--episodes", "2", "--fast"]
    assert command.run(shoal, "shoal", ["evaluate", str(tmp_path), *options]) == 0
    output = capsys.readouterr()
    assert f"skipped {untrained.path}: no policies yet" in output.err
    assert str(ready.path) in output.out
    assert str(untrained.path) not in output.out
    assert command.run(shoal, "shoal", ["evaluate", str(untrained.path), *options]) == 2
    ready.policy_file.unlink()
    assert command.run(shoal, "shoal", ["evaluate", str(tmp_path), *options]) == 2
    assert "None of the 2 runs has policies yet." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["evaluate", "report", "diagnose", "export"])
def test_a_file_in_place_of_a_run_costs_one_line(tmp_path, capsys, name):
    team = make_team(tmp_path / "run", "simple_push")
    assert command.run(shoal, "shoal", [name, str(team.policy_file)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"is a file. Pass the directory of its run, as in {team.path}." in error


# ---- summaries over seeds --------------------------------------------------------------------------------------------


def test_runs_that_differ_only_by_their_seed_are_grouped():
    runs, specs = evaluated([-30.0, -32.0, -34.0])
    other, other_specs = evaluated([-20.0], {"algorithm": {"name": "iddpg"}})
    found = summarise([*runs, *other], [*specs, *other_specs])
    assert [(one.runs, one.name) for one in found.summaries] == [(3, "s_w"), (1, "s_w/seed-0")]
    first = found.summaries[0]
    assert first.return_mean.mean == -32.0
    assert first.return_mean.ci95 == pytest.approx((-32 - 4.303 * 2 / 3**0.5, -32 + 4.303 * 2 / 3**0.5), abs=1e-3)
    assert first.metrics["collisions"].mean == 1.0
    assert found.summaries[1].return_mean.ci95 is None


def test_an_explicit_default_does_not_make_a_separate_group():
    runs, specs = evaluated([-30.0])
    more, more_specs = evaluated([-32.0], {"world": {"N": 3}})
    assert [one.runs for one in summarise([*runs, *more], [*specs, *more_specs]).summaries] == [2]


def test_the_interquartile_mean_leaves_out_the_outer_quarters_and_its_interval_is_of_runs():
    values = [-100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 900.0]
    found = seed_statistics(values)
    assert found.iqm == 3.5
    assert found.iqm_ci95 is not None
    low, high = found.iqm_ci95
    assert low < 3.5 < high < 500
    assert seed_statistics(values) == found
    assert seed_statistics([7.0]).iqm_ci95 is None


# ---- CSV and LaTeX -------------------------------------------------------------------------------------------


def test_csv_has_a_line_for_each_run_and_two_for_each_group():
    runs, specs = evaluated([-30.0, -32.0])
    text = csv_latex.to_csv(summarise(runs, specs))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["kind"], row["runs"]) for row in rows] == [("run", "1"), ("run", "1"), ("mean", "2"), ("IQM", "2")]
    assert [float(row["return_mean"]) for row in rows] == [-30.0, -32.0, -31.0, -31.0]
    assert (float(rows[1]["collisions"]), float(rows[1]["collisions_low"])) == (1.0, 0.5)
    assert (rows[0]["run_seed"], rows[0]["episodes"], rows[2]["episodes"]) == ("0", "10", "")
    assert float(rows[2]["return_mean_low"]) < -31.0 < float(rows[2]["return_mean_high"])


def test_latex_escapes_names_and_has_as_many_cells_in_every_row():
    runs, specs = evaluated([-30.0, -32.0])
    text = csv_latex.to_latex(summarise(runs, specs))
    assert text.startswith("\\begin{tabular}{lrr}")
    assert "s\\_w/seed-0 & $-30.00$ $[-31.00, -29.00]$ & $0.00$" in text
    assert "mean of s\\_w & $-31.00$" in text
    rows = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert {line.count("&") for line in rows} == {2}
    assert len(rows) == 5
    assert csv_latex._escaped("50%_$a{b}\\") == r"50\%\_\$a\{b\}\textbackslash{}"


def test_each_way_to_choose_is_shown_with_its_interval():
    compared = [Comparison("drawn", 20, -20.5, (-22.0, -19.0)), Comparison("random", 20, -60.0, (-65.5, -54.5))]
    result = msgspec.structs.replace(evaluation(-30.0), compared=compared)
    assert choice_lines(result) == [
        (
            "greedy -30.00 (-31.00 .. -29.00), sampled as in training -20.50 (-22.00 .. -19.00), random -60.00 "
            "(-65.50 .. -54.50)"
        ),
        (
            "warning: greedy choices earn clearly less than sampled ones. Evaluate with --sample; play with "
            "team.act(obs, sample=True)."
        ),
    ]
    assert choice_lines(evaluation(-30.0)) == []


# ---- the command --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_run_is_printed_and_its_result_is_stored(tmp_path):
    team = make_team(tmp_path / "a", "simple_tag")
    result = shoal_run("evaluate", team.path, "--episodes", 5, "--fast", "--json")
    found = json.loads(result.stdout)
    assert {"scenario", "episodes", "seed", "return_mean", "return_ci95", "return_per_agent"} <= found.keys()
    assert (found["world"], found["dynamics"]) == ("simple_tag", "mpe2")
    assert found["metrics"]["touches"]["mean"] >= 0
    assert [(one["side"], one["opponents"]) for one in found["scale"]] == [("adversary", "frozen"), ("agent", "frozen")]
    assert found["evaluations"] == []
    assert "shoal diagnose" in found["next_steps"][0]  # a team that never trained is no better than an untrained one
    stored = msgspec.json.decode(team.evaluation_file.read_bytes())
    assert {**stored, "evaluations": [], "next_steps": found["next_steps"]} == found
    output = shoal_run("evaluate", team.path, "--episodes", 5, "--fast").stdout
    assert "return S = " in output
    assert "adversaries touching agents" in output
    assert "adversary against the frozen team: random " in output
    assert "next: The side adversary is not clearly better than random actions." in output


@pytest.mark.slow
def test_legacy_dynamics_have_another_scale_and_are_not_stored(tmp_path):
    team = make_team(tmp_path / "a", "simple_spread")
    found = json.loads(shoal_run("evaluate", team.path, "--episodes", 5, "--dynamics", "legacy", "--json").stdout)
    assert found["dynamics"] == "legacy"
    scales = found["published_scales"]
    assert scales["3P"] == pytest.approx(found["return_mean"])
    assert scales == pytest.approx({"S": (scales["P"] + 75) / 2, "P": found["return_mean"] / 3, "3P": 3 * scales["P"]})
    assert not team.evaluation_file.exists()


@pytest.mark.slow
def test_several_runs_become_one_table(tmp_path):
    for seed in (1, 2):
        make_team(tmp_path / f"seed-{seed}", "simple_push", seed)
    found = json.loads(shoal_run("evaluate", tmp_path, "--episodes", 5, "--fast", "--json").stdout)
    assert [run["run_seed"] for run in found["runs"]] == [1, 2]
    (summary,) = found["summaries"]
    assert summary["return_mean"]["mean"] == pytest.approx(np.mean([r["result"]["return_mean"] for r in found["runs"]]))
    output = shoal_run("evaluate", tmp_path, "--episodes", 5, "--fast").stdout
    assert "mean of 2 runs" in output
    assert "IQM of 2 runs" in output
    assert "agent_success" in output
    one = shoal_run("evaluate", tmp_path / "seed-1", "--episodes", 5, "--fast", "--format", "csv").stdout
    assert one.count("\n") == 2


@pytest.mark.slow
def test_a_directory_with_one_run_is_printed_as_a_table(tmp_path):
    """The shape of the JSON depends on the request, not on the number of runs."""
    make_team(tmp_path / "seed-1", "simple_push")
    options = ("--episodes", 2, "--fast", "--json")
    assert len(json.loads(shoal_run("evaluate", tmp_path, *options).stdout)["runs"]) == 1
    assert "return_mean" in json.loads(shoal_run("evaluate", tmp_path / "seed-1", *options).stdout)


@pytest.mark.slow
def test_baselines_are_listed_beside_the_runs_and_not_averaged(tmp_path):
    for seed in (1, 2):
        make_team(tmp_path / f"seed-{seed}", "simple_push", seed)
    asked = ("evaluate", tmp_path, "untrained", "random", "frozen", "--episodes", 50, "--fast")
    found = json.loads(shoal_run(*asked, "--json").stdout)
    assert [run["run_seed"] for run in found["runs"]] == [1, 2]
    assert [one["directory"] for one in found["references"]] == ["untrained", "random", "frozen"]
    assert [summary["runs"] for summary in found["summaries"]] == [2]
    returns = {one["directory"]: one["result"]["return_mean"] for one in found["references"]}
    assert returns["frozen"] > returns["random"] + 10
    alone = json.loads(shoal_run("evaluate", tmp_path, "--episodes", 50, "--fast", "--json").stdout)
    assert (alone["runs"], alone["summaries"]) == (found["runs"], found["summaries"])
    rows = list(csv.DictReader(io.StringIO(shoal_run(*asked, "--format", "csv").stdout)))
    assert [row["kind"] for row in rows] == ["run", "run", "reference", "reference", "reference", "mean", "IQM"]
    assert {row["run_seed"] for row in rows[2:]} == {""}


@pytest.mark.slow
def test_a_run_in_a_directory_with_a_baselines_name_is_shown_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_team(tmp_path / "random", "simple_push")
    found = json.loads(shoal_run("evaluate", "./random", "random", "--episodes", 5, "--fast", "--json").stdout)
    assert [one["directory"] for one in (*found["runs"], *found["references"])] == ["./random", "random"]


def test_baselines_need_runs_of_one_world(tmp_path, capsys):
    make_team(tmp_path / "a", "simple_push")
    make_team(tmp_path / "b", "simple_spread")
    assert command.run(shoal, "shoal", ["evaluate", "random", "--fast"]) == 2
    output = capsys.readouterr().err
    assert "random: no run is named, so the world is unknown. Add a run's directory; if" in output
    both = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert command.run(shoal, "shoal", ["evaluate", *both, "random", "--fast"]) == 2
    assert "Name runs of one scenario" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json", "--format", "csv"], "Pass one of them"),
        (["--dynamics", "legacy"], "simple_crypto"),
        (["--episodes", "0"], "--episodes"),
        (["--format", "pdf"], "--format"),
    ],
)
def test_invalid_options_cost_one_line_and_exit_code_2(tmp_path, capsys, options, message):
    team = make_team(tmp_path / "a", "simple_crypto")
    assert command.run(shoal, "shoal", ["evaluate", str(team.path), *options]) == 2
    output = capsys.readouterr().err
    assert message in output
    assert "Traceback" not in output


def test_a_foreign_world_cannot_be_fast(tmp_path, capsys):
    scenario = "pettingzoo:mpe2.simple_spread_v3"
    team = make_team(Path(tmp_path) / "a", scenario)
    assert command.run(shoal, "shoal", ["evaluate", str(team.path), "--fast"]) == 2
    assert f"--fast: {scenario} is not one of Shoal's own worlds. Leave --fast out." in capsys.readouterr().err


@pytest.mark.slow
def test_an_evaluation_that_replaces_a_larger_one_says_so(tmp_path, capsys):
    team = make_team(tmp_path / "a", "simple_push")

    def notes(episodes: int) -> str:
        arguments = ["evaluate", str(team.path), "--fast", "--episodes", str(episodes)]
        assert command.run(shoal, "shoal", arguments) == 0
        return capsys.readouterr().err

    assert "in place of" not in notes(8)
    assert f"{team.evaluation_file} has these 4 episodes now, in place of 8" in notes(4)
    assert "in place of" not in notes(4)
