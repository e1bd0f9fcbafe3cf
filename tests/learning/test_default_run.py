"""What the defaults learn: the run a newcomer starts first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.learning, pytest.mark.timeout(900)]


def test_five_minutes_of_simple_spread_with_the_defaults(tmp_path: Path) -> None:
    """A random team scores -78; S is the mean over 1,000 episodes of the real mpe2 of the return summed over agents."""
    command = [sys.executable, "-m", "deploy", "train", "simple_spread", "--run", str(tmp_path / "run"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    print(f"S = {result['return_mean']:.2f} {result['return_ci95']} after {result['updates']} updates")
    assert result["episodes"] == 1_000
    assert result["return_mean"] >= -40
