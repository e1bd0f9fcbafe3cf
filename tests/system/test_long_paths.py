"""A run whose own path and TMPDIR are longer than what a unix socket takes, as a cluster's scratch directories are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
SMALL = ("--steps", "400", "--actors", "1", "--copies", "4", "--episodes", "2", "--no-film")
SMALL += ("--set", "replay.min_size=256", "--set", "network.policy_hidden=[8]", "--set", "network.critic_hidden=[8]")


@pytest.mark.parametrize("redis", ["embedded", "none"])
def test_a_run_trains_in_directories_of_long_paths(tmp_path: Path, redis: str) -> None:
    long = tmp_path / ("x" * 120)
    (long / "tmp").mkdir(parents=True)
    command = [sys.executable, "-m", "shoal", "train", "simple", "--redis", redis, "--run", str(long / "run"), *SMALL]
    done = subprocess.run(
        command, env={**os.environ, "TMPDIR": str(long / "tmp")}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (long / "run" / "evaluation.json").exists()
    assert not (long / "run" / "sockets").is_symlink(), "the sockets are gone with the run"
