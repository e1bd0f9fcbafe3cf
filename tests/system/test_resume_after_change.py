"""A run that is stopped and continued after its environment's code has changed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.run.directory import RunDirectory
from shoal.commands.diagnose.diagnosis import diagnose

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
CODE = """
from tests.shoal.commands.sized_numbers import Env

def parallel_env():
    return Env(1.0, {rewarded}, 20)
"""
SMALL = ("--actors", "1", "--copies", "4", "--episodes", "0", "--no-film", "--set", "replay.min_size=256")
SMALL += ("--set", "network.policy_hidden=[8]", "--set", "network.critic_hidden=[8]")


def train(directory: Path, *arguments: str) -> str:
    """Trains, and returns what the learner logged and the screen showed."""
    paths = os.pathsep.join((str(directory), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "shoal", "train", "--run", str(directory / "run"), *SMALL, *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr + "".join(log.read_text() for log in (directory / "run" / "logs").glob("l*.log"))


@pytest.mark.parametrize("mode", ["lockstep", "processes"])
def test_rewards_of_another_size_are_said(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    how = ("--lockstep",) if mode == "lockstep" else ()
    environment = tmp_path / "changing_world.py"
    environment.write_text(CODE.format(rewarded=1.0))
    # A few hundred rewards, drawn at random, tell the size to within a factor of two.
    said = re.compile(r"rewards are about ([5-9]00|1,000|2,000) times as large as before the resume")
    assert not said.search(train(tmp_path, "pettingzoo:changing_world", "--steps", "3000", *how))

    environment.write_text(CODE.format(rewarded=1_000.0))
    assert said.search(train(tmp_path, "--resume", "--steps", "6000", *how))

    *_, last = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert 500 < json.loads(last)["reward_change"] < 2_000
    monkeypatch.syspath_prepend(str(tmp_path))
    assert any(said.search(warned.seen) for warned in diagnose(RunDirectory(tmp_path / "run"), 10).warnings)
