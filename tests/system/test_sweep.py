"""A sweep from the command line: runs, a failure among them, stopped and gone on with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from shoal.commands.sweep.claims import Availability, Claims
from tests.conftest import PATIENCE_S, wait_until

pytestmark = pytest.mark.system

SMALL = ["--lockstep", "--steps", "600", "--episodes", "10", "--no-film", "--copies", "8"]
SMALL += ["--set", "network.policy_hidden=[8]", "--set", "network.critic_hidden=[8]", "--set", "replay.batch=16"]
SMALL += ["--set", "replay.min_size=200"]


def sweep(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "shoal", "sweep", "simple_spread", "--run", str(directory), "--json", *options]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_every_variant_has_its_seeds_and_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    options = ["--jobs", "2", "--vary", "algorithm.name=maddpg|iddpg"]
    first = sweep(tmp_path, "--seeds", "1", *options, "--", *SMALL)
    assert first.returncode == 0, first.stderr
    (kept,) = tmp_path.glob("algorithm.name=maddpg/seed-1/evaluation.json")
    before = kept.stat().st_mtime_ns
    second = sweep(tmp_path, "--seeds", "2", *options, "--", *SMALL)
    assert second.returncode == 0, second.stderr
    found = json.loads(second.stdout)
    assert {(run["variant"], run["seed"]) for run in found["runs"]} == {
        (f"algorithm.name={name}", seed) for name in ("maddpg", "iddpg") for seed in (1, 2)
    }
    assert all(row["seeds"] == 2 for row in found["rows"])
    assert kept.stat().st_mtime_ns == before


def test_a_run_that_fails_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    result = sweep(tmp_path, "--seeds", "1", "--vary", "algorithm.name=maddpg|nonsense", "--", *SMALL)
    assert result.returncode == 1
    assert "1 of 2 runs failed" in result.stderr
    assert "nonsense" in (tmp_path / "algorithm.name=nonsense" / "seed-1.log").read_text()
    assert [run["variant"] for run in json.loads(result.stdout)["runs"]] == ["algorithm.name=maddpg"]


def test_processes_that_share_a_directory_execute_each_run_once_and_make_the_same_table(tmp_path: Path) -> None:
    """One has a part of the runs, the other any: together they make the bits that one process makes."""
    options = ["--seeds", "2", "--vary", "algorithm.name=maddpg|iddpg"]
    alone = sweep(tmp_path / "alone", "--jobs", "2", *options, "--", *SMALL)
    assert alone.returncode == 0, alone.stderr
    shared = tmp_path / "shared"
    line = [sys.executable, "-m", "shoal", "sweep", "simple_spread", "--run", str(shared), *options]
    both = [
        subprocess.Popen([*line, *part, "--", *SMALL], stderr=subprocess.PIPE, text=True)
        for part in (["--part", "2/2"], [])
    ]
    for process in both:
        errors = process.communicate()[1]
        assert process.returncode == 0, errors
    claims = sorted(path.name for path in shared.glob("*/.*.claim-*"))
    assert claims == [".seed-1.claim-1"] * 2 + [".seed-2.claim-1"] * 2, "nobody executed a run twice"
    together = sweep(shared, "--table", *options, "--", *SMALL)
    assert json.loads(together.stdout)["rows"] == json.loads(alone.stdout)["rows"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends the runs with their sweep")
def test_a_killed_sweep_ends_its_runs_and_frees_them_at_once(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "shoal", "sweep", "simple_spread", "--run", str(tmp_path), "--seeds", "1", "--"]
    options = [option if option != "600" else "1000000" for option in SMALL]
    run = tmp_path / "default" / "seed-1"
    with subprocess.Popen([*line, *options], stderr=subprocess.DEVNULL) as process:
        wait_until((run / "metrics.jsonl").exists, "it trains")
        (train,) = psutil.Process(process.pid).children()
        process.kill()
    train.wait(PATIENCE_S)
    assert "Traceback" not in run.with_suffix(".log").read_text()
    assert Claims(tmp_path).take(run) is Availability.TAKEN


def test_a_table_of_what_is_there_starts_no_run(tmp_path: Path) -> None:
    result = sweep(tmp_path, "--seeds", "2", "--table", "--", *SMALL)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {"rows": [], "runs": []}
    assert "0 of 2 runs have results" in result.stderr
    assert not list(tmp_path.glob("*/seed-*"))


def test_a_typing_error_costs_one_line(tmp_path: Path) -> None:
    for options in (["--jbos", "2"], ["--vary", "x"], ["--part", "3/2"], ["--", "--seed", "3"]):
        result = sweep(tmp_path, *options)
        assert result.returncode == 2, result.stderr
        assert "Traceback" not in result.stderr
