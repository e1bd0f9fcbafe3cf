"""Tests of `shoal sweep`: its runs and its table."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from common.errors import ConfigError
from common.process import command
from shoal.cli import shoal
from shoal.commands.sweep import table
from shoal.commands.sweep.plan import plan, variants


def test_without_vary_there_is_one_variant() -> None:
    assert [(variant.name, variant.settings) for variant in variants([])] == [("default", ())]


def test_several_settings_give_every_combination() -> None:
    found = variants(["replay.batch=128|256", "network.policy_hidden=[64,64]|[128]"])
    assert [variant.settings for variant in found] == [
        ("replay.batch=128", "network.policy_hidden=[64,64]"),
        ("replay.batch=128", "network.policy_hidden=[128]"),
        ("replay.batch=256", "network.policy_hidden=[64,64]"),
        ("replay.batch=256", "network.policy_hidden=[128]"),
    ]


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        (["replay.batch"], "Write KEY=VALUE"),
        (["=1|2"], "Write KEY=VALUE"),
        (["replay.batch=1||2"], "Write KEY=VALUE"),
        (["replay.batch=1|1"], "contains a value twice"),
        (["replay.batch=1..2"], "needs --search"),
        (["replay.batch=1", "replay.batch=2"], "replay.batch twice"),
    ],
)
def test_an_invalid_vary_is_refused(vary: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        variants(vary)


def test_runs_are_ordered_by_seed(tmp_path: Path) -> None:
    runs = plan(tmp_path, ["a.b=x|y"], [3, 4])
    assert [(run.seed, run.variant.name) for run in runs] == [
        (3, "a.b=x"),
        (3, "a.b=y"),
        (4, "a.b=x"),
        (4, "a.b=y"),
    ]
    assert len({run.directory for run in runs}) == 4
    assert all(run.directory.parent.parent == tmp_path for run in runs)


def test_variants_that_would_share_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="same directory"):
        plan(tmp_path, ["a.b=x y|x?y"], [1])


def test_the_table_has_the_best_variant_first_and_only_finished_runs(tmp_path: Path) -> None:
    runs = plan(tmp_path, ["a.b=x|y"], [1, 2, 3])
    returns = {"a.b=x": [-30.0, -32.0, -34.0], "a.b=y": [-20.0, -22.0]}
    for run in runs:
        values = returns[run.variant.name]
        if run.seed <= len(values):
            run.directory.mkdir(parents=True)
            result = {"return_mean": values[run.seed - 1], "updates": 10 * run.seed, "scenario": "s"}
            (run.directory / "evaluation.json").write_bytes(msgspec.json.encode(result))
    sweep = table.gather(runs)
    best, other = sweep.rows
    assert (best.variant, best.seeds, best.return_mean, best.return_best) == ("a.b=y", 2, -21.0, -20.0)
    assert (other.return_mean, other.return_iqm, other.updates) == (-32.0, -32.0, 20.0)
    assert other.return_ci95 == pytest.approx((-32 - 4.303 * 2 / 3**0.5, -32 + 4.303 * 2 / 3**0.5), abs=1e-3)
    table.save(sweep, tmp_path)
    assert (tmp_path / table.CSV_FILE).read_text().count("\n") == 6
    assert len(msgspec.json.decode((tmp_path / table.RESULTS_FILE).read_bytes())["runs"]) == 5


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    (run,) = plan(tmp_path, [], [1])
    run.directory.mkdir(parents=True)
    (run.directory / "evaluation.json").write_text('{"return_mean": -1.5, "updates": 3}')
    (row,) = table.gather([run]).rows
    assert row.return_ci95 is None


@pytest.mark.parametrize(
    ("values", "expected"), [([5.0], 5.0), ([1.0, 3.0], 2.0), ([0.0, 1.0, 2.0, 100.0], 1.5), ([0, 1, 2, 3, 100], 2.0)]
)
def test_interquartile_mean(values: list[float], expected: float) -> None:
    assert table.interquartile_mean(values) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("finished", "says"),
    [
        (1, "0 of 2 runs have results. 1 have finished without an evaluation, which `{}` makes. The same command"),
        (2, "0 of 2 runs have results. 2 have finished without an evaluation, which `{}` makes.\n"),
    ],
)
def test_runs_that_finished_without_an_evaluation_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], finished: int, says: str
) -> None:
    for run in plan(tmp_path, [], [1, 2])[:finished]:
        run.directory.mkdir(parents=True)
        (run.directory / "finished").touch()
    assert (
        command.run(shoal, "shoal", ["sweep", "simple_spread", "--run", str(tmp_path), "--seeds", "2", "--table"]) == 0
    )
    assert says.format(f"shoal evaluate {tmp_path}") in capsys.readouterr().err


def test_the_table_of_a_sweep_that_is_not_there_is_refused_and_makes_no_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "typo"
    assert command.run(shoal, "shoal", ["sweep", "simple_spread", "--run", str(missing), "--table"]) == 2
    assert f"--table: there is no sweep in {missing}." in capsys.readouterr().err
    assert not missing.exists()
