"""What needs memory is learnt with stacked history and by recurrent policies, and not without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.learning, pytest.mark.timeout(900)]

WITHOUT_MEMORY = -1.28
"""Best return of two agents that cannot know their cues."""


def trained(run: Path, *settings: str) -> float:
    command = [sys.executable, "-m", "shoal", "train", "pettingzoo:tests.learning.remember_cue", "--run", str(run)]
    command += [
        "--preset",
        "particle",
        "--lockstep",
        "--steps",
        "30000",
        "--no-film",
        "--json",
        *(part for setting in settings for part in ("--set", setting)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    return float(json.loads(done.stdout)["return_mean"])


def test_a_cue_is_remembered_for_three_steps(tmp_path: Path) -> None:
    with_memory, without = trained(tmp_path / "with", "world.history=3"), trained(tmp_path / "without")
    print(f"S = {with_memory:.3f} with history, {without:.3f} without")
    assert with_memory > -0.2
    assert without < WITHOUT_MEMORY + 0.15


def test_recurrent_policies_remember_a_cue(tmp_path: Path) -> None:
    recurrent = trained(tmp_path / "gru", "network.recurrent=gru", "replay.sequence_steps=4", "replay.burn_in=0")
    print(f"S = {recurrent:.3f}")
    assert recurrent > -0.2
