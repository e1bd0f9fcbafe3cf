"""Tests of tournament and paper on the command line: real runs, stopped and continued."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_S

pytestmark = pytest.mark.system

TINY = ["--quick", "--task", "covert", "--seeds", "1", "--steps", "6000", "--episodes", "20"]


def shoal(*arguments: object, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "shoal", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=timeout_s, check=False)


def test_the_papers_tables_are_made_continued_and_reproduced(tmp_path: Path) -> None:
    interrupted, whole = tmp_path / "a", tmp_path / "b"
    line = [sys.executable, "-m", "shoal", "paper", *TINY, "--run", str(interrupted), "--jobs", "1"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as first:
        assert first.stderr is not None
        assert "4 of 4 runs to train, 1 in parallel" in first.stderr.readline()
        first.send_signal(signal.SIGINT)
        output = first.stderr.read()
        assert first.wait(PATIENCE_S) == 130, output
        assert "Run the same command to continue." in output
    part = shoal("paper", *TINY, "--run", interrupted, "--part", "1/2")
    assert part.returncode == 0, part.stderr
    assert "2 of 4 runs are not trained yet" in part.stderr
    assert not (interrupted / "paper.md").exists()
    for directory in (interrupted, whole):
        done = shoal("paper", *TINY, "--run", directory, "--json")
        assert done.returncode == 0, done.stderr
    found = [json.loads((directory / "paper.json").read_text()) for directory in (interrupted, whole)]
    assert found[0] == found[1], "lockstep: the same command makes the same tables"
    page = (whole / "paper.md").read_text()
    assert "## Covert communication" in page
    assert (whole / "covert.svg").exists()
    again = shoal("paper", *TINY, "--run", whole)
    assert "0 of 4 runs to train" in again.stderr
    other = shoal("paper", *TINY, "--steps", "7000", "--run", whole)
    assert other.returncode == 2
    assert "Name another directory with --run" in other.stderr
    runs = sorted((whole / "runs" / "covert").glob("*/seed-1"))
    cross_play = shoal("tournament", *runs[:2], "random", "--episodes", "10", "--json")
    assert cross_play.returncode == 0, cross_play.stderr
    result = json.loads(cross_play.stdout)
    assert (result["world"], len(result["pairings"])) == ("mpe2:simple_crypto", 9)
    table = shoal("evaluate", whole, "--fast", "--episodes", "10", "--format", "csv")
    assert table.returncode == 0, table.stderr
    assert table.stdout.count("\n") == 5
